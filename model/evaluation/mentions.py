"""How often the training captions name a class: whether "unseen" is true is counted, not claimed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

WORD = re.compile(r"\w+")


def captions_naming(class_names: Sequence[str], captions: Iterable[str]) -> list[int]:
    """Per class the captions in which its name stands: the same words in a row, in any case, punctuation aside."""
    names = [_words(name) for name in class_names]
    wanted = set(names)
    lengths = sorted({len(name) for name in wanted if name})
    counts: Counter[tuple[str, ...]] = Counter()
    for caption in captions:
        words = _words(caption)
        runs = {words[start : start + length] for length in lengths for start in range(len(words) - length + 1)}
        counts.update(runs & wanted)
    return [counts[name] for name in names]


def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.casefold()))
