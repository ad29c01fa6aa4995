"""Images that show several classes, however they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.evaluation.images import StoredImage
from model.evaluation.samples import Split, digest_of

LABELS_FIELD = "labels"
"""Of a table, or of JSON: the classes that an image shows."""
IGNORED_FIELD = "ignored"
"""The same of classes for which it counts neither as showing them nor as not showing them: Pascal VOC's difficult ones."""


@dataclass(frozen=True)
class MultilabelImage:
    """`key` is unique in the set. A class is in one of `labels` and `ignored` at most; those in neither are not to be seen."""

    key: str
    labels: frozenset[int]
    ignored: frozenset[int]
    image: StoredImage


def multilabel_image(key: str, labels: Iterable[int], ignored: Iterable[int], image: StoredImage) -> MultilabelImage:
    """A class that is both shown and to be ignored (an object that is easy to see beside a difficult one) is shown."""
    shown = frozenset(labels)
    return MultilabelImage(key, shown, frozenset(ignored) - shown, image)


def multilabel_split(samples: Iterable[MultilabelImage], files: Iterable[str]) -> Split[MultilabelImage]:
    """A split of files whose digests are `files`, in the order of the samples."""
    whole = tuple(samples)
    told = [[sample.key, sorted(sample.labels), sorted(sample.ignored)] for sample in whole]
    return Split(whole, digest_of([told, list(files)]))
