"""The images of a set with their labels, however they are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from model.evaluation.images import StoredImage
from model.evaluation.names import Words

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
SPLITS = ("test", "train", "val")


class Sample(Protocol):
    """An image and what it is called; `key` is unique in the set."""

    @property
    def key(self) -> str: ...

    @property
    def image(self) -> StoredImage: ...


SampleT = TypeVar("SampleT", bound=Sample, covariant=True)  # its label is one class, or several


@dataclass(frozen=True)
class LabelledImage:
    """`key` is unique in the set."""

    key: str
    label: int
    image: StoredImage


@dataclass(frozen=True)
class Split(Generic[SampleT]):
    """Images with their labels; `digest` identifies both."""

    samples: tuple[SampleT, ...]
    digest: str


@dataclass(frozen=True)
class Layout(Generic[SampleT]):
    """What a folder holds, read by one of the ways in which sets are stored; `train` and `val` are None if it has none."""

    stored_as: str
    class_names: Words
    test: Split[SampleT]
    train: Split[SampleT] | None
    val: Split[SampleT] | None


def digest_of(value: object) -> str:
    """The sha256 of a value that JSON can tell."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def split_of(samples: Iterable[LabelledImage], files: Iterable[str]) -> Split[LabelledImage]:
    """A split of files whose digests are `files`, in the order of the samples."""
    whole = tuple(samples)
    return Split(whole, digest_of([[sample.key, sample.label] for sample in whole] + list(files)))
