"""A photograph as a person sees it: turned as its EXIF says. Images of shards are upright already (docs/shards.md)."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from model.evaluation.images import pixels

EXIF_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF")  # of JPEG, PNG and WebP

# What undoes each orientation (CIPA DC-008, 4.6.4).
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_pixels(image: bytes, image_px: int) -> NDArray[np.uint8]:
    """The middle square (image_px, image_px, 3), turned. Raises UnreadableError.

    The square is turned and not the whole image, whose middle it is either way, to within a pixel.
    """
    square_HWC = pixels(image, image_px)
    undo = UNDO.get(_orientation(image))
    return square_HWC if undo is None else np.asarray(Image.fromarray(square_HWC).transpose(undo))


def _orientation(image: bytes) -> int:
    """What the EXIF tells, 1 (upright) if it tells nothing that can be read."""
    if not any(mark in image for mark in EXIF_MARKS):
        return 1
    try:
        with Image.open(io.BytesIO(image)) as picture:
            orientation: int = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1
    return orientation
