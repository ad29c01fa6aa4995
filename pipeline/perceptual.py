"""What a picture looks like, in a few numbers: contrast, and of its grey levels a 64-bit perceptual hash and the entropy.

The hash is that of Zauner 2010 ("Implementation and Benchmarking of Perceptual Image Hash Functions", section 3.2.1): the means
of 32 x 32 equal areas of the picture, their cosine transform (DCT-II), and for each of the 8 x 8 lowest frequencies, but those of
rows or columns alone, one bit: whether it lies above their median. Pictures that are the same but for size, compression or
brightness differ in few bits; the number of differing bits is the distance. As half of the bits are set it is nearly always even.

Sums are rounded before they are compared, so that a picture which is symmetrical, where they are exactly zero, has the same hash
on every processor; the decoder's own rounding (libjpeg-turbo and others) is the one thing that may still differ.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.fft import dct

AREAS = 32
FREQUENCIES = slice(1, 9)  # of 32; 0 is the mean of a row or column
DECODED_SIDE_PX = 64  # a larger JPEG is decoded at 1/2, 1/4 or 1/8 of its size, its short side not below this
DECIMALS = 6
LEVELS = 256

GreyImage = NDArray[np.uint8]
ColourImage = NDArray[np.uint8]
Transform = NDArray[np.float64]


def read_grey(data: bytes) -> GreyImage:
    """The grey levels (height, width) of an image file, upright as its EXIF orientation says, on white where it is transparent.

    Of an animation it is the first frame; a large JPEG is decoded smaller. Raises ValueError if the bytes are no whole image.
    """
    return _read(data, "L")


def read_colours(data: bytes) -> ColourImage:
    """The pixels (height, width, 3) of an image file as YCbCr: grey level and two colour differences; else as `read_grey`."""
    return _read(data, "YCbCr")


def _read(data: bytes, mode: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft(mode, (DECODED_SIDE_PX, DECODED_SIDE_PX))
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                coloured = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
            return np.asarray(upright.convert(mode))
    # What Pillow's readers raise of bytes that they cannot read: a broken PNG is a SyntaxError.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no image that can be read: {error}") from error


def perceptual_hash(grey_HW: GreyImage) -> int | None:
    """The hash as a signed number of 64 bits, from the lowest frequency (the sign) on, row by row.

    None for a picture without structure, such as one of a single colour.
    """
    height_px, width_px = grey_HW.shape
    spectrum_88 = (_transform(height_px) @ grey_HW @ _transform(width_px).T).round(DECIMALS)
    if not spectrum_88.any():
        return None
    bits_64 = (spectrum_88 > np.median(spectrum_88)).ravel()
    return int.from_bytes(np.packbits(bits_64).tobytes(), "big", signed=True)


def distance(one: int, other: int) -> int:
    """Bits in which two hashes differ, 0 to 64."""
    return ((one ^ other) & (2**64 - 1)).bit_count()


def contrast(colours_HW3: ColourImage) -> float:
    """Standard deviation of the colours: the root of the variances of grey level and colour differences; 0 is one colour.

    Grey levels alone would not tell a red thing on a green ground of the same brightness from nothing.
    """
    values_P3 = colours_HW3.reshape(-1, 3).astype(np.float64)
    sums_3, squares_3 = values_P3.sum(axis=0), np.einsum("pc,pc->c", values_P3, values_P3)
    # Of whole numbers, so that one colour is exactly 0; numpy's var takes as long as the decoding.
    return float(np.sqrt((squares_3 * len(values_P3) - sums_3**2).sum()) / len(values_P3))


def entropy_bits(grey_HW: GreyImage) -> float:
    """Entropy of the grey levels in bits, 0 (one colour) to 8."""
    shares = np.bincount(grey_HW.ravel(), minlength=LEVELS) / grey_HW.size
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum()) + 0.0


@functools.lru_cache(maxsize=64)
def _transform(length_px: int) -> Transform:
    """(8, length): from pixels in a line to the frequencies of their means over 32 equal pieces."""
    edges = np.linspace(0, length_px, AREAS + 1)
    pixels = np.arange(length_px)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    means = overlap.clip(0) * (AREAS / length_px)
    spectrum: Transform = dct(means, axis=0, norm="ortho")[FREQUENCIES]
    return spectrum
