"""CLIP's own vocabulary: token for token what open_clip and transformers make of the ugliest texts."""

from __future__ import annotations

import gzip
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import clip_vocabulary
from model.errors import InputError
from model.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="open_clip_torch is not installed")

UGLY = [
    "",
    " \n\t ",
    "A PHOTO of a cat, isn't it? We'LL see; they'd've said I'm",
    "caf\u00e9 cafe\u0301 \ufb01ne \u0130stanbul \u01c4 \u1e9e STRASSE \u017f'\u017f",
    "AT&amp;T &amp;lt;b&amp;gt; &eacute;t&#233; &nbsp; &unknown; &#x1F600;",
    "\u201ccurly\u201d \u2018quotes\u2019 \u2026 \u2013 \u2014",
    "Ã©tÃ© â€œmojibakeâ€\x9d",
    "\u6771\u4eac\u30bf\u30ef\u30fc \ud55c\uad6d\uc5b4",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\U0001f388\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "1 23 456 \u00bd \u00b2 \u2167 \u0664",
    "\x00\x01\x7f \x1b[31mred\x1b[0m \ufeff \ufffd \u2028 \u3000 \x85",
    "http://www.example.com/a_b-c.jpg?x=1&y=2#z <a href='x'>",
    "!!!???...---___*** '' ''s 's's",
    "word " * 200,
    "x" * 500,
]
PIECES = [
    *"aZ09 '&;<>.,!-_\n\t\u00e9\u017f\u0130\u0345\u6771\U0001f388",
    "'s",
    "'RE",
    "&amp;",
    "&lt;",
    "&#39;",
    "cat ",
    "\u201c",
]
SPELLED = ("<start_of_text>", "<end_of_text>", "<|startoftext|>", "<|endoftext|>")


@pytest.fixture(scope="module")
def official() -> Tokenizer:
    return Tokenizer.ready_made("clip", 77)


@pytest.fixture(scope="module")
def open_clip_tokenizer() -> Any:
    """Imported by who runs these tests, not by all who collect them: it takes seconds."""
    return pytest.importorskip("open_clip.tokenizer")


@pytest.fixture(scope="module")
def peer(open_clip_tokenizer: Any) -> Any:
    return open_clip_tokenizer.SimpleTokenizer()


@pytest.fixture(scope="module")
def folder(open_clip_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's tokenizer as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    path = Path(open_clip_tokenizer.default_bpe())
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 48_894 + 1]]
    vocab = dict(open_clip_tokenizer.SimpleTokenizer().encoder)
    vocab["<|startoftext|>"], vocab["<|endoftext|>"] = vocab.pop("<start_of_text>"), vocab.pop("<end_of_text>")
    out = tmp_path_factory.mktemp("hugging_face")
    transformers.CLIPTokenizer(vocab=vocab, merges=merges).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def from_folder(folder: Path) -> Tokenizer:
    return Tokenizer.ready_made(str(folder), 77)


@pytest.fixture(scope="module")
def transformers_peer(folder: Path) -> Any:
    return pytest.importorskip("transformers").CLIPTokenizer.from_pretrained(folder)


def rows(tokens_BL: torch.Tensor) -> list[list[int]]:
    """Ids up to the end token."""
    return [ids[: ids.index(49_407) + 1] for ids in tokens_BL.tolist()]


# Not what Unicode has not assigned yet: the peers' tables of letters are of another version.
characters = st.characters(exclude_categories=["Cn", "Cs"])
texts = st.one_of(st.text(characters, max_size=60), st.lists(st.sampled_from(PIECES), max_size=30).map("".join))


def test_ugly_texts_are_open_clips(official: Tokenizer, peer: Any) -> None:
    assert official.vocab_size == 49_408
    assert official.encode_ids(UGLY)[0] == rows(peer(UGLY))


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_any_text_is_open_clips(text: str, official: Tokenizer, peer: Any, open_clip_tokenizer: Any) -> None:
    if not any(spelled in open_clip_tokenizer._clean_lower(text) for spelled in SPELLED):
        assert official.encode_ids([text])[0] == rows(peer([text]))


def test_ugly_texts_are_transformers(from_folder: Tokenizer, transformers_peer: Any) -> None:
    expected = transformers_peer(UGLY, truncation=True, max_length=77)["input_ids"]
    assert from_folder.encode_ids(UGLY)[0] == expected


@settings(max_examples=100, deadline=None)
@given(some=st.lists(texts, min_size=1, max_size=5))
def test_any_text_is_transformers(some: list[str], from_folder: Tokenizer, transformers_peer: Any) -> None:
    expected = transformers_peer(some, truncation=True, max_length=77)["input_ids"]
    assert from_folder.encode_ids(some)[0] == expected


def test_a_folder_with_the_older_files_gives_the_same(folder: Path, from_folder: Tokenizer, tmp_path: Path) -> None:
    described = json.loads((folder / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(described["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in described["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    older = Tokenizer.ready_made(str(tmp_path), 77)
    assert older.encode_ids(UGLY) == from_folder.encode_ids(UGLY)


@pytest.mark.parametrize("spelled", SPELLED)
def test_no_text_can_spell_a_special_token(spelled: str, official: Tokenizer, from_folder: Tokenizer) -> None:
    for tokenizer in (official, from_folder):
        (ids,), cut = tokenizer.encode_ids([f"a {spelled} b"])
        assert max(ids[1:-1]) < 49_406 and (ids[0], ids[-1], cut) == (49_406, 49_407, 0)


def test_padding_and_end_are_where_the_text_tower_looks(official: Tokenizer) -> None:
    tokens_BL = official.encode(["a", "word " * 200])
    assert tokens_BL.shape == (2, 77) and tokens_BL[0].tolist()[3:] == [0] * 74
    assert tokens_BL.argmax(dim=1).tolist() == [2, 76]


def test_the_saved_file_cleans_as_before(official: Tokenizer, from_folder: Tokenizer, tmp_path: Path) -> None:
    for tokenizer in (official, from_folder):
        path = tmp_path / "tokenizer.json"
        path.write_text(tokenizer.to_json(), encoding="utf-8")
        assert Tokenizer.load(path, 77).encode_ids(UGLY) == tokenizer.encode_ids(UGLY)


def test_what_cannot_be_used_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"neither tokenizer\.json nor vocab\.json"):
        Tokenizer.ready_made(str(tmp_path), 77)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot be read .*copy it again"):
        Tokenizer.ready_made(str(tmp_path), 77)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.setattr(clip_vocabulary, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install open_clip_torch"):
        Tokenizer.ready_made("clip", 77)
