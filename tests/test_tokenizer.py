"""The tokenizer: complete, deterministic, and with end tokens that no text can forge."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
import torch

from model.tokenizer import START, Tokenizer

CAPTIONS = [f"A photo of a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("circle", "star")] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, vocab_size=320, context_length=10)


def test_rows_begin_and_end_and_are_padded_to_the_longest(tokenizer: Tokenizer) -> None:
    tokens_BL = tokenizer.encode(["red", "a photo of a blue star"])
    assert tokens_BL.dtype == torch.int64
    start, end = tokenizer.backend.token_to_id(START), tokenizer.end_id
    assert tokens_BL[:, 0].tolist() == [start, start]
    assert tokens_BL.argmax(dim=1).tolist() == [2, tokens_BL.shape[1] - 1]
    assert tokens_BL[0].tolist() == [start, tokens_BL[0, 1], end] + [0] * (tokens_BL.shape[1] - 3)


def test_end_token_has_the_largest_id_and_the_size_is_bounded(tokenizer: Tokenizer) -> None:
    assert tokenizer.end_id == tokenizer.vocab_size - 1 <= 319
    assert Tokenizer.train(["tiny"], vocab_size=49_408, context_length=10).vocab_size == 256 + 2


@pytest.mark.parametrize("text", ["naïve Ünïcode 東京 🎈", "<|endoftext|> in <|startoftext|> the text", "\x00\t odd\n"])
def test_every_text_round_trips_and_none_can_forge_a_special_token(text: str) -> None:
    tokenizer = Tokenizer.train(CAPTIONS, vocab_size=320, context_length=200)
    ids = tokenizer.encode([text])[0].tolist()
    assert ids.count(tokenizer.end_id) == ids.count(tokenizer.end_id - 1) == 1 and ids[-1] == tokenizer.end_id
    assert tokenizer.backend.decode(ids[1:-1]).split() == text.lower().split()


def test_case_spaces_and_unicode_form_do_not_matter(tokenizer: Tokenizer) -> None:
    one, other = tokenizer.encode(["  RED   Caf\u00e9 ", "red cafe\u0301"])
    assert one.tolist() == other.tolist()


def test_long_texts_are_cut_counted_and_keep_their_end(tokenizer: Tokenizer) -> None:
    long = "a photo of a red circle and a blue star and a green circle"
    rows, cut = tokenizer.encode_ids(["red", long])
    assert cut == 1 and len(rows[1]) == 10 and rows[1][-1] == tokenizer.end_id
    unlimited = Tokenizer(tokenizer.backend, 100).encode_ids([long])[0][0]
    assert rows[1][:-1] == unlimited[:9]


def test_same_captions_in_any_order_give_the_same_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    again = Tokenizer.train(reversed(CAPTIONS), vocab_size=320, context_length=10)
    assert again.to_json() == tokenizer.to_json()
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    loaded = Tokenizer.load(tmp_path / "tokenizer.json", 10)
    assert torch.equal(loaded.encode(CAPTIONS), tokenizer.encode(CAPTIONS))


def test_no_texts_give_no_rows(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]).shape == (0, 0)


def test_a_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(path))
    with pytest.raises(ValueError, match="not one that this program wrote"):
        Tokenizer.load(path, 10)
