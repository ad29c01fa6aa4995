"""Decoded pixels against Pillow's own way of turning an image upright."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from pipeline.upright import orientation, upright

PIXELS = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)


def encoded(image: Image.Image, kind: str, turn: int | None) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    if turn is not None:
        exif[ExifTags.Base.Orientation] = turn
    image.save(buffer, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def decoded(body: bytes) -> np.ndarray:
    return upright(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED), body)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", [None, *range(10)])
def test_every_turn_is_undone(kind: str, turn: int | None) -> None:
    body = encoded(Image.fromarray(PIXELS), kind, turn)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(body))).convert("RGB"))
    assert np.array_equal(decoded(body)[..., ::-1], expected)


def test_grey_images_and_broken_exif() -> None:
    grey = encoded(Image.fromarray(PIXELS[..., 0]), "JPEG", 6)
    assert decoded(grey).shape == (9, 6)
    assert orientation(grey.replace(b"Exif\0\0MM\0*", b"Exif\0\0??\0*")) == 1
    assert orientation(b"Exif\0\0 and no image") == 1
    avif = encoded(Image.fromarray(PIXELS), "AVIF", None)
    assert orientation(avif.replace(b"pitm\0\0\0\0\0\1", b"pitm\0\0\0\0\0\7") + b"Exif\0\0") == 1


def test_sixteen_bits_become_eight() -> None:
    _, png = cv2.imencode(".png", np.array([[0, 257, 1_000, 40_000, 65_535]], np.uint16))
    assert decoded(png.tobytes()).tolist() == [[0, 1, 4, 156, 255]]
