"""How often the training captions name a class: whether "unseen" is true is counted, not claimed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Mentions:
    """What some captions say of class names: how many each name stands in, and whether all of its words occur."""

    captions_read: int
    captions_naming: list[int]
    words_occur: list[bool]


def count_mentions(class_names: Sequence[str], captions: Iterable[str]) -> Mentions:
    """A name stands in a caption if its words do, in a row, in any case, punctuation aside."""
    names = [_words(name) for name in class_names]
    wanted = set(names)
    lengths = sorted({len(name) for name in wanted if name})
    counts: Counter[tuple[str, ...]] = Counter()
    seen: set[str] = set()
    captions_read = 0
    for caption in captions:
        captions_read += 1
        words = _words(caption)
        seen.update(words)
        runs = {words[start : start + length] for length in lengths for start in range(len(words) - length + 1)}
        counts.update(runs & wanted)
    return Mentions(captions_read, [counts[name] for name in names], [seen.issuperset(name) for name in names])


def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.casefold()))
