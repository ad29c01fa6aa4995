"""Images that show several classes, however they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.evaluation.images import StoredImage
from model.evaluation.names import Words
from model.evaluation.samples import digest_of

LABELS = "labels"
"""Of a column, or a field: the classes that an image shows."""
IGNORED = "ignored"
"""The same of classes for which it counts neither as showing them nor as not showing them: Pascal VOC's difficult ones."""


@dataclass(frozen=True)
class ManyLabelled:
    """`key` is unique in the set. A class is in one of `labels` and `ignored` at most; those in neither are not to be seen."""

    key: str
    labels: frozenset[int]
    ignored: frozenset[int]
    image: StoredImage


@dataclass(frozen=True)
class ManySplit:
    """Images with their classes; `digest` identifies both."""

    samples: tuple[ManyLabelled, ...]
    digest: str


@dataclass(frozen=True)
class ManyLayout:
    """What a folder holds; `train` and `val` are None if it has none."""

    stored_as: str
    class_names: Words
    test: ManySplit
    train: ManySplit | None
    val: ManySplit | None


def many_labelled(key: str, labels: Iterable[int], ignored: Iterable[int], image: StoredImage) -> ManyLabelled:
    """A class that is both shown and to be ignored (an object that is easy to see beside a difficult one) is shown."""
    shown = frozenset(labels)
    return ManyLabelled(key, shown, frozenset(ignored) - shown, image)


def many_split(samples: Iterable[ManyLabelled], files: Iterable[str]) -> ManySplit:
    """A split of files whose digests are `files`, in the order of the samples."""
    whole = tuple(samples)
    told = [[sample.key, sorted(sample.labels), sorted(sample.ignored)] for sample in whole]
    return ManySplit(whole, digest_of([told, list(files)]))
