"""The tokenizer: lower-cased byte-level BPE, learned from the captions it is used on, saved with the run.

Bytes are the alphabet, so every text has tokens. The start and end tokens are the last two entries and no text can
spell them; the end token has the largest id, which is how the text tower finds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

START = "<|startoftext|>"
END = "<|endoftext|>"
PAD_ID = 0  # as in the official code; what follows the end token is never seen
MIN_PAIR_COUNT = 2


class Tokenizer:
    """Texts -> token ids, at most `context_length` of them; the file `tokenizer.json` is in Hugging Face's format."""

    def __init__(self, backend: tokenizers.Tokenizer, context_length: int) -> None:
        end_id = backend.token_to_id(END)
        if end_id is None or end_id != backend.get_vocab_size() - 1:
            raise ValueError(f"the tokenizer's last entry is not {END}; it is not one that this program wrote")
        self.backend = backend
        self.context_length = context_length
        self.end_id: int = end_id

    @property
    def vocab_size(self) -> int:
        return self.backend.get_vocab_size()

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int, context_length: int) -> Tokenizer:
        """Learn at most `vocab_size` entries. The same captions, in any order, give the same tokenizer."""
        learner = _blank(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 2,
            min_frequency=MIN_PAIR_COUNT,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        learner.train_from_iterator(captions, trainer)
        learned = json.loads(learner.to_str())["model"]
        vocab: dict[str, int] = learned["vocab"]
        start_id, end_id = len(vocab), len(vocab) + 1
        merges = [tuple(pair) for pair in learned["merges"]]
        backend = _blank(models.BPE(vocab={**vocab, START: start_id, END: end_id}, merges=merges))
        backend.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, start_id), (END, end_id)]
        )
        return cls(backend, context_length)

    @classmethod
    def load(cls, path: Path, context_length: int) -> Tokenizer:
        """Read a `tokenizer.json`. Raises ValueError if it is not one of ours."""
        return cls(tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8")), context_length)

    def to_json(self) -> str:
        """The text of `tokenizer.json`."""
        return self.backend.to_str(pretty=True)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Ids (B, L) int64, L = the longest text of the batch; longer ones are cut, their end token kept."""
        return self.pad(self.encode_ids(texts)[0])

    def encode_ids(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """The ids of each text, and how many texts were cut to the context length."""
        rows, cut = [], 0
        for encoding in self.backend.encode_batch_fast(list(texts)):
            ids: list[int] = encoding.ids
            if len(ids) > self.context_length:
                ids = [*ids[: self.context_length - 1], self.end_id]
                cut += 1
            rows.append(ids)
        return rows, cut

    def pad(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Lists of ids -> (B, L) int64, as long as the longest."""
        longest = max((len(ids) for ids in rows), default=0)
        padded = [[*ids, *[PAD_ID] * (longest - len(ids))] for ids in rows]
        return torch.tensor(padded, dtype=torch.int64).view(len(rows), longest)


def _blank(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    return backend
