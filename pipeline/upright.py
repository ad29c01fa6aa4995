"""Images decoded as a person sees them, for a downloader that takes them as they lie in the file.

img2dataset decodes with `cv2.IMREAD_UNCHANGED`: what EXIF says of the camera's turn is not heeded, so that one photograph in some
lies on its side, and of samples of 16 bits it keeps the largest 8-bit value for almost all. The turn is lost for good once the
image is stored anew.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image

EXIF_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF")  # of JPEG, PNG and WebP

# What undoes each value of EXIF's orientation (CIPA DC-008, 4.6.4), on pixels [row, column, ...].
_UNDO: dict[int, Callable[[Any], Any]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}


def orientation(body: bytes) -> int:
    """The orientation that an image's EXIF tells, 1 (upright) to 8; 1 if it tells none."""
    if not any(mark in body for mark in EXIF_MARKS):
        return 1
    try:
        with Image.open(BytesIO(body)) as image:
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError):  # RuntimeError: of AVIF
        return 1  # whether it is an image at all is the decoder's to say
    return value if value in _UNDO else 1


def upright(pixels: Any, body: bytes) -> Any:
    """Decoded pixels [row, column, channel], turned as the file asks, in 8 bits."""
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257).astype(np.uint8)
    undo = _UNDO.get(orientation(body))
    return np.ascontiguousarray(undo(pixels)) if undo else pixels


def decode_upright() -> None:
    """From now on `cv2.imdecode` gives upright images in 8 bits, in this process."""
    import cv2

    decode = cv2.imdecode

    def imdecode(buffer: Any, flags: int) -> Any:
        pixels = decode(buffer, flags)
        return pixels if pixels is None else upright(pixels, bytes(buffer))

    cv2.imdecode = imdecode  # type: ignore[assignment]  # one of its overloads
