"""From the bytes of an image to the square that a tower sees.

The paper's only augmentation is a random square crop of the resized image (section 2.5). Where the stored short side is
already the tower's, that is a pure crop; else Pillow resizes, bicubic and anti-aliased, as the official code does.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from model.data.order import Crop

MEAN_RGB = (0.48145466, 0.4578275, 0.40821073)  # of the official code
STD_RGB = (0.26862954, 0.26130258, 0.27577711)
JPEG_MAGIC = b"\xff\xd8"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is decoded. Pillow knows more, and starts Ghostscript for one of them."""

MOST_PIXELS = 178_956_970
"""Pillow's own limit (twice MAX_IMAGE_PIXELS), for JPEGs too, which it does not decode here: a header alone can ask for 12 GB."""

Pixels = npt.NDArray[np.uint8]


def decode(image: bytes) -> Pixels:
    """RGB pixels (height, width, 3). Raises ValueError or OSError if it cannot be decoded."""
    if image[:2] == JPEG_MAGIC:
        height, width, *_ = simplejpeg.decode_jpeg_header(image)
        _check_size(height, width)
        pixels: Pixels = simplejpeg.decode_jpeg(image, colorspace="RGB")
        return pixels
    with Image.open(io.BytesIO(image), formats=FORMATS) as picture:
        if picture.mode.startswith("I;16"):
            # Pillow would cut off at 255 what goes to 65535, and nearly all of it would be white.
            grey = np.asarray(picture) >> 8
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        if picture.mode in ("I", "F"):
            raise ValueError("its pixels have 32 bits, of which none is known to be white; store it with 8 or 16")
        return np.asarray(picture.convert("RGB"))


def _check_size(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than {MOST_PIXELS:,}")


class Decoder:
    """Squares of one image after the other, decoded into memory that it keeps: one for each thread.

    Where `scaled`, a JPEG that is at least twice as large as it must be is decoded at half of its size or less, without
    computing the rest. That is about twice as fast, and the pixels differ a little, as the shrinking is the JPEG's own (of
    its cosines) and not Pillow's; the square is of the same place.
    """

    def __init__(self, image_px: int, scaled: bool = False) -> None:
        self.image_px = image_px
        self.scaled = scaled
        self._memory = np.empty(0, np.uint8)

    def fill(self, square_HWC: Pixels, image: bytes, at: Crop) -> None:
        """Write the square of an encoded image, as `square` cuts it. Raises ValueError or OSError if it cannot be decoded."""
        if image[:2] != JPEG_MAGIC:
            square_HWC[...] = square(decode(image), self.image_px, at)
            return
        height, width, *_ = simplejpeg.decode_jpeg_header(image)
        _check_size(height, width)
        if height == width == self.image_px:
            simplejpeg.decode_jpeg(image, colorspace="RGB", buffer=square_HWC)
            return
        if height * width * 3 > len(self._memory):
            self._memory = np.empty(height * width * 3, np.uint8)
        least_px = self.image_px if self.scaled and min(height, width) >= 2 * self.image_px else 0
        pixels = simplejpeg.decode_jpeg(
            image, colorspace="RGB", min_height=least_px, min_width=least_px, buffer=self._memory
        )
        square_HWC[...] = square(pixels, self.image_px, at, (height, width))


def square(pixels: Pixels, image_px: int, at: Crop = None, size: tuple[int, int] | None = None) -> Pixels:
    """The image resized so that its short side is `image_px`, then a square of that side.

    `at` = (x, y), each in [0, 1), picks one of the equally likely squares; None is the middle one. `size` is the height and width
    of the image where `pixels` are it at some eighths of that.
    """
    height, width = size or pixels.shape[:2]
    short = min(height, width)
    new_width, new_height = image_px * width // short, image_px * height // short
    if at is None:
        left, top = round((new_width - image_px) / 2), round((new_height - image_px) / 2)
    else:
        left, top = int(at[0] * (new_width - image_px + 1)), int(at[1] * (new_height - image_px + 1))
    if short == image_px:
        return pixels[top : top + image_px, left : left + image_px]
    # Resizing only the square gives, to within Pillow's rounding, the pixels of resizing all and cropping.
    shown = round(8 * pixels.shape[1] / width) / 8  # the decoder rounds sides up
    x_scale, y_scale = shown * width / new_width, shown * height / new_height
    box = (left * x_scale, top * y_scale, (left + image_px) * x_scale, (top + image_px) * y_scale)
    picture = Image.fromarray(pixels).resize((image_px, image_px), Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture)


def preprocess(image: bytes, image_px: int) -> Pixels:
    """The middle square (image_px, image_px, 3) of an encoded image, for evaluation."""
    return square(decode(image), image_px)


def normalise(image_BHWC: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) of mean 0 and deviation 1, channels last in memory."""
    batch, height, width, channels = image_BHWC.shape
    # Row by row of pixels, in place: three numbers at a time would not be vectorised, and fresh memory costs more than the sums.
    mean, std = (
        torch.tensor(values, device=image_BHWC.device).mul_(255).repeat(width) for values in (MEAN_RGB, STD_RGB)
    )
    rows = image_BHWC.reshape(batch * height, width * channels).float().sub_(mean).div_(std)
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
