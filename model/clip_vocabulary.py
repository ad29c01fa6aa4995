"""CLIP's own vocabulary: 256 bytes, the same at a word's end, 48,894 merges, start and end: 49,408 entries (table 18).

It is read from what is on this machine: the file that open_clip_torch brings along, or a folder of Hugging Face's. The
two differ in how a text is cleaned before it is cut into words:

- open_clip and the official code repair the text (ftfy), resolve HTML entities, join white space, lower the case;
- Hugging Face's tokenizers compose Unicode (NFC), replace white space, lower the case.

Unlike theirs, these tokenizers let no text spell the start or the end token: it is taken as the letters it is made of.
"""

from __future__ import annotations

import gzip
import html
import json
from importlib.util import find_spec
from pathlib import Path

import ftfy
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from model.errors import InputError

START = "<|startoftext|>"
END = "<|endoftext|>"
MERGES = 48_894
WORD_END = "</w>"
# What a text spells is text, and what is cut or padded is the trainer's business.
ONLY_TEXT: dict[str, object] = {"added_tokens": [], "truncation": None, "padding": None}

# The official pattern. It ignores case, which matters to two that lower case leaves alone: the long s, and the iota below
# a letter, which is then neither a letter nor anything else, and is left out.
OFFICIAL_WORDS = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"
HUGGING_FACE_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def clean(text: str) -> str:
    """What the official code does to a text before it cuts it into words."""
    if not (text.isascii() and text.isprintable() and "&" not in text):  # else there is nothing to repair
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def official_backend() -> tokenizers.Tokenizer:
    """The tokenizer of the official code, for texts that are cleaned already. Raises InputError without open_clip_torch."""
    package = find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "CLIP's own vocabulary comes with the package open_clip_torch, which is not installed (pip install "
            "open_clip_torch); or name a local folder of Hugging Face tokenizer files"
        )
    path = Path(package.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = _pairs(lines[1 : MERGES + 1])
    return _backend(_vocabulary(merges), merges, OFFICIAL_WORDS, normalizer=None)


def hugging_face_backend(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder with tokenizer.json, or with vocab.json and merges.txt, that cleans as Hugging Face's does.

    Raises InputError if there is none.
    """
    whole, vocab, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    try:
        if whole.is_file():
            described = json.loads(whole.read_text(encoding="utf-8"))
            return tokenizers.Tokenizer.from_str(json.dumps({**described, **ONLY_TEXT}))
        if vocab.is_file() and merges.is_file():
            lines = merges.read_text(encoding="utf-8").split("\n")
            pairs = _pairs([line for line in lines if not line.startswith("#version")])
            return _backend(json.loads(vocab.read_text(encoding="utf-8")), pairs, HUGGING_FACE_WORDS, _normalizer())
    except Exception as error:  # tokenizers raise no other kind
        raise InputError(f"{folder}: its tokenizer cannot be read ({error}); copy it again") from error
    raise InputError(
        f"{folder}: neither tokenizer.json nor vocab.json and merges.txt; name a folder of Hugging Face tokenizer files"
    )


def for_hugging_face(official: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same entries, with Hugging Face's cleaning in the place of the official one."""
    model = json.loads(official.to_str())["model"]
    return _backend(model["vocab"], [tuple(pair) for pair in model["merges"]], HUGGING_FACE_WORDS, _normalizer())


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    return [(first, second) for first, second in (line.split() for line in lines if line)]


def _vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Entry -> id. The bytes come first, those that can be printed before the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = [*map(chr, printable), *(chr(256 + number) for number in range(len(others)))]
    merged = [first + second for first, second in merges]
    entries = [*alphabet, *(letter + WORD_END for letter in alphabet), *merged, START, END]
    return {entry: number for number, entry in enumerate(entries)}


def _backend(
    vocab: dict[str, int], merges: list[tuple[str, str]], words: str, normalizer: normalizers.Normalizer | None
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix=WORD_END))
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocab[START]), (END, vocab[END])]
    )
    return backend


def _normalizer() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
