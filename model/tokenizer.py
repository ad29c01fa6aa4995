"""The tokenizer: lower-cased byte-level BPE, learned from the captions it is used on or CLIP's own, saved with the run.

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

from model.clip_vocabulary import END, START, clean, hugging_face_backend, official_backend

TRAINED, CLIPS_OWN = "trained", "clip"  # PretrainConfig.tokenizer
OFFICIAL = "official"
PAD_ID = 0  # as in the official code; what follows the end token is never seen
MIN_PAIR_COUNT = 2


class Tokenizer:
    """Texts -> token ids, at most `context_length` of them.

    The file `tokenizer.json` is in Hugging Face's format, with one more field where texts are cleaned as the official
    code does it: `"cleaning": "official"`.
    """

    def __init__(self, backend: tokenizers.Tokenizer, context_length: int, cleans_as_official: bool = False) -> None:
        end_id = backend.token_to_id(END)
        nothing = [backend.token_to_id(START), end_id]
        if end_id is None or end_id != backend.get_vocab_size() - 1 or backend.encode("").ids != nothing:
            raise ValueError(
                f"a tokenizer whose texts do not end with {END}, its last entry: it is not one that this program wrote, "
                "nor CLIP's"
            )
        self.backend = backend
        self.context_length = context_length
        self.cleans_as_official = cleans_as_official
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
        described = json.loads(path.read_text(encoding="utf-8"))
        cleaning = described.pop("cleaning", None)
        return cls(tokenizers.Tokenizer.from_str(json.dumps(described)), context_length, cleaning == OFFICIAL)

    @classmethod
    def ready_made(cls, source: str, context_length: int) -> Tokenizer:
        """CLIP's own (`source` is "clip"), or that of a folder of Hugging Face's. Raises ValueError if it cannot be used."""
        if source == CLIPS_OWN:
            return cls(official_backend(), context_length, cleans_as_official=True)
        return cls(hugging_face_backend(Path(source)), context_length)

    def to_json(self) -> str:
        """The text of `tokenizer.json`."""
        text: str = self.backend.to_str(pretty=True)
        if not self.cleans_as_official:
            return text
        return json.dumps({"cleaning": OFFICIAL, **json.loads(text)}, indent=2, ensure_ascii=False)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Ids (B, L) int64, L = the longest text of the batch; longer ones are cut, their end token kept."""
        return self.pad(self.encode_ids(texts)[0])

    def encode_ids(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """The ids of each text, and how many texts were cut to the context length."""
        rows, cut = [], 0
        cleaned = [clean(text) for text in texts] if self.cleans_as_official else list(texts)
        for encoding in self.backend.encode_batch_fast(cleaned):
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
