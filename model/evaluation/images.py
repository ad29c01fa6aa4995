"""One stored image: where its bytes lie, and its pixels as the model wants them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.data import preprocess
from model.data.images import MEAN_RGB, STD_RGB
from model.data.shards import Folder

# Part of the key of cached features: what is done to an image before the tower sees it.
PREPROCESSING = f"short side, bicubic, middle square, mean {MEAN_RGB}, deviation {STD_RGB}"


class UnreadableError(ValueError):
    """An image that no decoder can read; the message is the reason."""


class StoredImage(Protocol):
    """An encoded image, wherever it lies."""

    def read(self) -> bytes:
        """Its bytes; called from any thread."""


@dataclass(frozen=True)
class FileImage:
    """An image that is a file of its own."""

    path: Path

    def read(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True)
class ImageRef:
    """Bytes inside a tar of a folder, on a disk or in an object store."""

    folder: Folder
    file: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Call it from any thread."""
        return self.folder.read(self.file, self.offset, self.size)


def pixels(image_bytes: bytes, image_px: int) -> NDArray[np.uint8]:
    """The middle square (image_px, image_px, 3), as in the trainer's validation. Raises UnreadableError."""
    try:
        return preprocess(image_bytes, image_px)
    except UnidentifiedImageError as error:
        # Pillow's own message holds an address in memory, which differs from run to run.
        raise UnreadableError("not an image that can be decoded") from error
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableError(str(error)) from error
