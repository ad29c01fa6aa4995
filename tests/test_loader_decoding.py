"""What the loader decodes: bit for bit the crop of the whole image, or near it where it may decode at a smaller scale."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model.data.images import Decoder, square

PLACES = (None, (0.0, 0.0), (0.37, 0.81), (0.999, 0.999))


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shapes under a little noise, as a photograph has."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 255, (9, 9, 3)).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy_HWC = np.asarray(coarse) + draw.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(noisy_HWC, 0, 255).astype(np.uint8))


def jpeg(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def by_pillow(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}], ids=["420", "444", "progressive"])
def test_squares_are_those_of_the_whole_image(options: dict[str, object]) -> None:
    """One decoder for images of all sizes in turn, whose memory holds the one before."""
    decoder = Decoder(48)
    square_HWC = np.zeros((48, 48, 3), np.uint8)
    for number, (width, height) in enumerate([(64, 48), (48, 48), (48, 101), (130, 90), (48, 64), (30, 40), (96, 96)]):
        image = jpeg(photo(width, height, number), **options)
        for at in PLACES:
            decoder.fill(square_HWC, image, at)
            assert np.array_equal(square_HWC, square(by_pillow(image), 48, at)), (width, height, at)


def test_grey_jpegs_and_other_formats_are_decoded_too() -> None:
    square_HWC = np.zeros((48, 48, 3), np.uint8)
    grey = jpeg(photo(60, 48).convert("L"))
    Decoder(48).fill(square_HWC, grey, (0.5, 0.0))
    assert np.array_equal(square_HWC, by_pillow(grey)[:, 6:54])
    buffer = io.BytesIO()
    photo(60, 48).save(buffer, "PNG")
    Decoder(48).fill(square_HWC, buffer.getvalue(), (0.5, 0.0))
    assert np.array_equal(square_HWC, np.asarray(photo(60, 48))[:, 6:54])


@pytest.mark.parametrize("size", [(48, 64), (95, 95), (64, 48)])
def test_scaled_decoding_leaves_images_alone_that_are_not_twice_as_large(size: tuple[int, int]) -> None:
    image = jpeg(photo(*size))
    scaled_HWC, exact_HWC = np.zeros((2, 48, 48, 3), np.uint8)
    Decoder(48, scaled=True).fill(scaled_HWC, image, (0.3, 0.6))
    Decoder(48).fill(exact_HWC, image, (0.3, 0.6))
    assert np.array_equal(scaled_HWC, exact_HWC)


@pytest.mark.parametrize("size", [(96, 96), (200, 130), (410, 500)])
def test_scaled_decoding_of_larger_images_is_near_the_exact(size: tuple[int, int]) -> None:
    image = jpeg(photo(*size))
    scaled_HWC, exact_HWC, shifted_HWC = np.zeros((3, 48, 48, 3), np.uint8)
    Decoder(48, scaled=True).fill(scaled_HWC, image, None)
    Decoder(48).fill(exact_HWC, image, None)
    Decoder(48).fill(
        shifted_HWC, jpeg(photo(*size).transform(size, Image.Transform.AFFINE, (1, 0, size[0] / 48, 0, 1, 0))), None
    )
    off = np.abs(scaled_HWC.astype(int) - exact_HWC).mean()
    assert 0 < off < 2
    assert off < np.abs(shifted_HWC.astype(int) - exact_HWC).mean() / 2  # a shift by one pixel is much farther


def test_a_jpeg_cut_short_is_an_error() -> None:
    square_HWC = np.zeros((48, 48, 3), np.uint8)
    for damaged in (jpeg(photo(60, 48))[:900], jpeg(photo(48, 48))[:900], b"\xff\xd8", b"nothing"):
        with pytest.raises((ValueError, OSError)):
            Decoder(48).fill(square_HWC, damaged, None)
