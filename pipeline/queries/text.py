"""The normal form of a text for matching: what a reader takes for the same words is the same string."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLANK = ord(" ")


class _WordCharacters(dict[int, int | str | None]):
    """For str.translate: letters, marks and digits stay, invisible format characters go, all else becomes a blank."""

    def __missing__(self, code: int) -> int | str | None:
        category = unicodedata.category(chr(code))
        kept = code if category[0] in "LMN" else None if category == "Cf" else " "
        self[code] = kept
        return kept


_WORD_CHARACTERS = _WordCharacters()
# The same for ASCII, with letters folded: index = byte.
_ASCII = np.array([ord(chr(i).lower()) if chr(i).isalnum() else BLANK for i in range(128)] + [BLANK] * 128, np.uint8)


def normalise(text: str) -> str:
    """`text` in compatibility form (NFKC), case-folded, its runs of letters, marks and digits joined by one blank.

    "St. Louis", "ST  LOUIS" and "St Louis" are one; so are "naïve" in one or two code points per letter.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(word for word in folded.translate(_WORD_CHARACTERS).split(" ") if word)


def normalise_column(texts: pa.StringArray) -> pa.StringArray:
    """`normalise` of every text; null stays null. ASCII texts, for which a table of 128 bytes does, are done at once."""
    is_ascii = pc.fill_null(pc.string_is_ascii(texts), False)
    ascii_texts = _normalise_ascii(texts.filter(is_ascii))
    if len(ascii_texts) == len(texts):
        return ascii_texts
    other = texts.filter(pc.invert(is_ascii)).to_pylist()
    both = pa.concat_arrays(
        [ascii_texts, pa.array([None if text is None else normalise(text) for text in other], pa.string())]
    )
    is_other = ~is_ascii.to_numpy(zero_copy_only=False)
    place = np.where(is_other, len(ascii_texts) + np.cumsum(is_other) - 1, np.cumsum(~is_other) - 1)
    return both.take(pa.array(place))


def _normalise_ascii(texts: pa.StringArray) -> pa.StringArray:
    """`normalise` of ASCII texts without nulls, on the bytes of the whole column."""
    if not len(texts):
        return texts
    _, offset_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if offsets[0] == offsets[-1]:
        return texts
    characters = _ASCII[np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]]
    offsets = offsets - offsets[0]
    is_word = characters != BLANK
    # A blank stays if it follows a word character of the same text, so only one at the text's end is left to trim.
    follows_word = np.concatenate([[False], is_word[:-1]])
    follows_word[offsets[:-1][offsets[:-1] < len(characters)]] = False
    kept = is_word | follows_word
    kept_before = np.concatenate([[0], np.cumsum(kept)])
    squeezed = pa.StringArray.from_buffers(
        len(texts), pa.py_buffer(kept_before[offsets].astype(np.int32)), pa.py_buffer(characters[kept])
    )
    return pc.ascii_rtrim(squeezed, characters=" ")
