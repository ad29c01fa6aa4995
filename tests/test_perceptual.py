"""The perceptual hash against its definition written as loops, and against what the web does to pictures."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from pipeline.perceptual import GreyImage, contrast, distance, entropy_bits, perceptual_hash, read_colours, read_grey

NEAR_BITS = 4  # the default of images.evaluation_distance
FAR_BITS = 16


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def hash_of(data: bytes) -> int:
    hashed = perceptual_hash(read_grey(data))
    assert hashed is not None
    return hashed


def scenes() -> list[Image.Image]:
    """Twelve pieces of two photographs, and both whole."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    corners = [(left, top) for top in (0, 213) for left in (0, 213, 426)]
    return photos + [photo.crop((x, y, x + 213, y + 213)) for photo in photos for x, y in corners]


SCENES = scenes()


def plain_hash(grey: list[list[int]]) -> int:
    """The definition: means of 32 x 32 areas, DCT-II, above the median of frequencies 1 to 8 in both directions."""
    height, width = len(grey), len(grey[0])

    def share(area: int, length: int, pixel: int) -> float:
        start, end = area * length / 32, (area + 1) * length / 32
        return max(0.0, min(end, pixel + 1) - max(start, pixel)) * 32 / length

    rows = [[share(area, height, y) for y in range(height)] for area in range(32)]
    columns = [[share(area, width, x) for x in range(width)] for area in range(32)]
    halves = [[sum(column[x] * line[x] for x in range(width)) for column in columns] for line in grey]
    means = [[sum(row[y] * halves[y][area] for y in range(height)) for area in range(32)] for row in rows]

    def cosine(frequency: int, area: int) -> float:
        return math.cos(math.pi * frequency * (2 * area + 1) / 64)

    values = [
        sum(means[y][x] * cosine(v, y) * cosine(u, x) for y in range(32) for x in range(32))
        for v in range(1, 9)
        for u in range(1, 9)
    ]
    ordered = sorted(values)
    median = (ordered[31] + ordered[32]) / 2
    return int("".join("1" if value > median else "0" for value in values), 2)


@pytest.mark.parametrize("size", [(32, 32), (45, 37), (20, 70)])
def test_the_hash_is_its_definition(size: tuple[int, int]) -> None:
    grey_HW = np.asarray(SCENES[3].resize(size).convert("L"))
    assert (perceptual_hash(grey_HW) or 0) % 2**64 == plain_hash(grey_HW.tolist())


@pytest.mark.parametrize("scene", range(len(SCENES)))
def test_the_same_picture_stays_near(scene: int) -> None:
    image = SCENES[scene]
    original = hash_of(encoded(image, quality=95))
    double = image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC)
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
    for name, other in {
        "quality 50": encoded(image, quality=50),
        "double": encoded(double),
        "half": encoded(half),
        "brighter": encoded(ImageEnhance.Brightness(image).enhance(1.05)),
        "png": encoded(image, "PNG"),
        "webp": encoded(image, "WEBP", quality=80),
    }.items():
        assert distance(original, hash_of(other)) <= NEAR_BITS, name


def test_other_pictures_are_far() -> None:
    hashes = [hash_of(encoded(image)) for image in SCENES]
    assert min(distance(one, other) for place, one in enumerate(hashes) for other in hashes[:place]) >= FAR_BITS


def test_the_distance_is_the_number_of_differing_bits() -> None:
    pairs = [(0, 0), (-1, 0), (-(2**63), 0), (5, -6), (123456789, -987654321)]
    for one, other in pairs:
        bits = [f"{number % 2**64:064b}" for number in (one, other)]
        assert distance(one, other) == sum(a != b for a, b in zip(*bits, strict=True))


def test_a_picture_is_upright_and_on_white() -> None:
    """EXIF orientation 6 tells to turn the stored picture by 90 degrees clockwise."""
    image = SCENES[2]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = image.rotate(90, expand=True)
    assert distance(hash_of(encoded(turned, exif=exif, quality=95)), hash_of(encoded(image, quality=95))) <= NEAR_BITS
    assert distance(hash_of(encoded(turned, quality=95)), hash_of(encoded(image, quality=95))) >= FAR_BITS

    see_through = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    see_through.paste((0, 0, 0, 255), (0, 0, 4, 4))
    assert read_grey(encoded(see_through, "PNG")).tolist() == [[0] * 4 + [255] * 4] * 4


def test_a_large_jpeg_is_decoded_smaller_but_no_other_picture() -> None:
    image = SCENES[0].resize((1280, 854))
    small_HW = read_grey(encoded(image, quality=95))
    assert small_HW.shape == (107, 160)
    whole_HW = np.asarray(Image.open(io.BytesIO(encoded(image, quality=95))).convert("L"))
    small, whole = perceptual_hash(small_HW), perceptual_hash(whole_HW)
    assert small is not None and whole is not None and distance(small, whole) <= NEAR_BITS
    assert abs(float(small_HW.std()) - float(whole_HW.std())) < 5


@pytest.mark.parametrize("kind", ["L", "CMYK", "P", "1", "LA", "I;16"])
def test_every_mode_of_pixels_is_read(kind: str) -> None:
    form = "TIFF" if kind in ("CMYK", "I;16") else "PNG"
    pixels = SCENES[2].convert("L") if kind == "I;16" else SCENES[2]
    assert read_grey(encoded(pixels.convert(kind), form)).shape == (213, 213)


def test_of_an_animation_it_is_the_first_frame() -> None:
    frames = [image.convert("P") for image in SCENES[2:5]]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert distance(hash_of(moving), hash_of(encoded(SCENES[2]))) <= NEAR_BITS


def test_blank_pictures_have_no_hash_no_contrast_and_no_entropy() -> None:
    one_colour = encoded(Image.new("RGB", (90, 60), (200, 30, 90)))
    grey_HW = read_grey(one_colour)
    assert perceptual_hash(grey_HW) is None
    assert (contrast(read_colours(one_colour)), entropy_bits(grey_HW)) == (0.0, 0.0)
    page = Image.new("RGB", (90, 60), "white")
    page.paste((250, 250, 250), (0, 0, 45, 60))
    assert contrast(read_colours(encoded(page, "PNG"))) == 2.5
    assert entropy_bits(read_grey(encoded(page, "PNG"))) == 1.0


def test_contrast_sees_colours_of_the_same_brightness() -> None:
    flag = Image.new("RGB", (90, 60), (240, 60, 60))
    flag.paste((60, 137, 137), (0, 0, 45, 60))
    assert read_grey(encoded(flag, quality=95)).std() < 1 and contrast(read_colours(encoded(flag, quality=95))) > 50
    assert contrast(read_colours(encoded(flag.convert("L")))) < 1


def test_the_grey_level_of_the_colours_of_a_jpeg_is_that_of_the_grey_picture() -> None:
    """What the download stores is JPEG; of other pictures Pillow rounds once more."""
    for data in (encoded(SCENES[0]), encoded(SCENES[3]), encoded(SCENES[3].convert("L"))):
        assert np.array_equal(read_colours(data)[..., 0], read_grey(data))


def test_contrast_and_entropy_are_their_definitions() -> None:
    image = SCENES[5].resize((40, 40))
    variance = 0.0
    for plane in image.convert("YCbCr").split():
        values = list(plane.getdata())
        mean = sum(values) / len(values)
        variance += sum((value - mean) ** 2 for value in values) / len(values)
    assert contrast(read_colours(encoded(image, "PNG"))) == pytest.approx(math.sqrt(variance))
    grey_HW: GreyImage = np.asarray(image.convert("L"))
    levels = grey_HW.ravel().tolist()
    shares = [levels.count(level) / len(levels) for level in set(levels)]
    assert entropy_bits(grey_HW) == pytest.approx(-sum(share * math.log2(share) for share in shares))


@pytest.mark.parametrize("data", [b"", b"no image at all", encoded(SCENES[2])[:4000], encoded(SCENES[2], "PNG")[:9000]])
def test_what_is_no_whole_image_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="no image that can be read"):
        read_grey(data)
