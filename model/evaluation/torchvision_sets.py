"""Data sets of torchvision by the name of their class, on files that are there: nothing is downloaded.

A folder asks for one by `torchvision.toml`:

    class = "CIFAR10"
    test = { train = false }
    train = { train = true }

Its root is the folder. A folder with the name of a known set needs no such file.
"""

from __future__ import annotations

import inspect
import io
import pickle
import struct
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from model.errors import InputError
from model.evaluation.images import UnreadableError
from model.evaluation.names import CLASS_NAMES, Words
from model.evaluation.registry import KnownSet, TorchvisionSource
from model.evaluation.samples import LabelledImage, Layout, Split, split_of
from model.files import sha256_file

FILE = "torchvision.toml"
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
LABELS = ("targets", "labels", "_labels", "y")
"""Where the classes of torchvision keep the labels; without one of these each image is decoded for its own."""


BROKEN = (
    RuntimeError,
    OSError,
    ValueError,
    TypeError,
    ImportError,
    AssertionError,
    AttributeError,
    LookupError,
    EOFError,
    pickle.PickleError,
    struct.error,
)
"""What torchvision raises where files are absent or broken: it differs from class to class."""


@dataclass(frozen=True)
class TorchvisionImage:
    """The picture with this number in a data set that gives (picture, label)."""

    dataset: Any
    number: int

    def read(self) -> bytes:
        """As a PNG that loses nothing, for what reads images reads bytes. Raises UnreadableError."""
        buffer = io.BytesIO()
        try:
            picture, _ = self.dataset[self.number]
            whole = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
            # A PNG has no CMYK and the like.
            (whole if whole.mode in PNG_MODES else whole.convert("RGB")).save(buffer, "PNG", compress_level=0)
        except (*BROKEN, Image.DecompressionBombError) as error:
            # Pillow's own message may hold an address in memory, which differs from run to run.
            told = "not an image that can be decoded" if isinstance(error, UnidentifiedImageError) else _told(error)
            raise UnreadableError(told) from error
        return buffer.getvalue()


def torchvision_source(folder: Path, known: KnownSet | None) -> TorchvisionSource | None:
    """What `torchvision.toml` asks for, else what is known of the set. Raises InputError."""
    path = folder / FILE
    if not path.is_file():
        return known.torchvision if known is not None else None
    try:
        return TorchvisionSource.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        told = str(error)
        if isinstance(error, ValidationError):
            told = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError(
            f'{path}: {told}; write class = "NAME" and, for each of test, train and val, what it is called with'
        ) from error


def read_torchvision(
    folder: Path, source: TorchvisionSource, own: Words | None, packaged: Words | None
) -> Layout[LabelledImage]:
    """The set whose files lie in `folder`. Raises InputError if torchvision cannot read them, or knows no such class."""
    from torchvision import datasets

    make = getattr(datasets, source.class_name, None)
    if not (isinstance(make, type) and issubclass(make, datasets.VisionDataset)):
        raise InputError(f"{folder}: torchvision.datasets has no data set {source.class_name!r}; mend {FILE}")
    # The files beside ours are what torchvision reads; hidden ones and caches of Python are nobody's data.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (FILE, CLASS_NAMES))
    digests = [sha256_file(path) for path in files if not path.name.startswith(".")]
    wanted = {"test": source.test, "train": source.train, "val": source.val}
    made = {name: _make(make, folder, fields) for name, fields in wanted.items() if fields is not None}
    names = own or packaged or _names(made["test"])
    if names is None:
        raise InputError(
            f"{folder / CLASS_NAMES}: no such file, and {source.class_name} of torchvision names no classes; write it"
        )
    splits = {name: _split(name, dataset, folder, names, digests) for name, dataset in made.items()}
    return Layout(f"torchvision {source.class_name}", names, splits["test"], splits.get("train"), splits.get("val"))


def _make(make: Callable[..., Any], folder: Path, fields: Mapping[str, Any]) -> Any:
    known = inspect.signature(make).parameters
    fixed = {name: value for name, value in (("root", folder), ("download", False)) if name in known}
    try:
        return make(**{**fields, **fixed})
    except BROKEN as error:
        raise InputError(
            f"{folder}: torchvision cannot read {getattr(make, '__name__', make)} there ({_told(error)}); fetch it with "
            f"torchvision into this folder, or mend {FILE}"
        ) from error


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _names(dataset: Any) -> Words | None:
    classes = getattr(dataset, "classes", None)
    return Words(tuple(str(name).replace("_", " ") for name in classes), "torchvision") if classes else None


def _split(split: str, dataset: Any, folder: Path, names: Words, digests: list[str]) -> Split[LabelledImage]:
    labels = next((getattr(dataset, name) for name in LABELS if hasattr(dataset, name)), None)
    try:
        told = labels if labels is not None else (dataset[number][1] for number in range(len(dataset)))
        numbers = [int(label) for label in told]
    except BROKEN as error:
        raise InputError(
            f"{folder}: torchvision tells no class of each image of {split} ({_told(error)}); name a data set with one label an "
            f"image in {FILE}, or fetch it again"
        ) from error
    if not numbers:
        raise InputError(f"{folder}: {split} has no images; fetch it with torchvision into this folder, or mend {FILE}")
    if wrong := sorted({label for label in numbers if not 0 <= label < len(names.words)}):
        raise InputError(
            f"{folder}: {split} has the label {wrong[0]}, but {names.source} names {len(names.words)} classes (0 to "
            f"{len(names.words) - 1}); write {CLASS_NAMES} with a name for each label"
        )
    samples = [
        LabelledImage(f"{split}/{number:06d}", label, TorchvisionImage(dataset, number))
        for number, label in enumerate(numbers)
    ]
    return split_of(samples, digests)
