"""Painting a scene: numpy for the background, supersampled Pillow masks for the things."""

from __future__ import annotations

import io
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from pipeline.tiny_web.draws import Draws
from pipeline.tiny_web.scenes import Scene, Thing

SUPERSAMPLING = 4
JPEG_QUALITY = 90

RGB: dict[str, tuple[int, int, int]] = {
    "red": (218, 28, 36),
    "orange": (250, 132, 12),
    "yellow": (250, 222, 30),
    "green": (24, 150, 58),
    "blue": (28, 72, 214),
    "purple": (142, 44, 176),
    "black": (16, 16, 18),
    "white": (250, 250, 250),
}
SECOND_TONE: dict[str, tuple[int, int, int]] = {
    "black": (92, 92, 96),
    "white": (196, 196, 200),
    "yellow": (206, 168, 10),
}
"""The other tone of a texture where half way to white would leave the colour's name."""

Polygon = tuple[tuple[float, float], ...]
FloatPlane = NDArray[np.float32]


def render_jpeg(seed: int, scene: Scene, quality: int = JPEG_QUALITY, scale: float = 1.0) -> bytes:
    """The scene as a JPEG file; `scale` < 1 makes a smaller version of the same picture."""
    image = render(seed, scene)
    if scale != 1.0:
        size = (max(1, round(scene.width_px * scale)), max(1, round(scene.height_px * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return to_jpeg(image, quality)


def to_jpeg(image: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """An image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def render(seed: int, scene: Scene) -> Image.Image:
    """The scene as an RGB image of its size."""
    draws = Draws(seed, "paint", scene.key)
    image = Image.fromarray(_paint_background(draws, scene.background, scene.width_px, scene.height_px), "RGB")
    for name, thing in (("main", scene.main), ("second", scene.second)):
        if thing is not None:
            _paint_thing(image, thing, draws, name)
    return image


# --- backgrounds ------------------------------------------------------------------------------------------------------


def _paint_background(draws: Draws, kind: str, width_px: int, height_px: int) -> NDArray[np.uint8]:
    """(height, width, 3) pixels."""
    grain = np.frombuffer(draws.noise("grain", width_px * height_px), np.uint8).reshape(height_px, width_px)
    grain_HW = grain.astype(np.float32) / 127.5 - 1.0
    tint = np.array([draws.between(f"tint{channel}", -7, 7) for channel in range(3)], np.float32)
    light = draws.between("light", -1, 1)
    level_HW, colour = _LEVELS[kind](draws, grain_HW, light)
    picture = np.asarray(colour, np.float32) + tint + level_HW[..., None]
    return picture.clip(0, 255).astype(np.uint8)


Level = tuple[FloatPlane, tuple[float, float, float]]
"""Brightness added to each pixel, and the colour it is added to."""


def _grey(draws: Draws, grain_HW: FloatPlane, light: float) -> Level:
    return grain_HW * 2 + 22 * light, (142, 142, 142)


def _dark(draws: Draws, grain_HW: FloatPlane, light: float) -> Level:
    return grain_HW * 3 + 12 * light, (66, 66, 70)


def _beige(draws: Draws, grain_HW: FloatPlane, light: float) -> Level:
    return grain_HW * 2 + 8 * light, (214, 196, 168)


def _gradient(draws: Draws, grain_HW: FloatPlane, light: float) -> Level:
    height_px, width_px = grain_HW.shape
    angle = draws.between("gradient_angle", 0, 2 * math.pi)
    x_W = np.linspace(-1, 1, width_px, dtype=np.float32) * math.cos(angle)
    y_H = np.linspace(-1, 1, height_px, dtype=np.float32) * math.sin(angle)
    return (x_W[None, :] + y_H[:, None]) * 38 + grain_HW * 2, (136.0, 138.0, 142.0)


def _noise(draws: Draws, grain_HW: FloatPlane, light: float) -> Level:
    return grain_HW * 42 + 10 * light, (134, 134, 134)


def _grass(draws: Draws, grain_HW: FloatPlane, light: float) -> Level:
    blades_HW = grain_HW + np.roll(grain_HW, 1, 0) + np.roll(grain_HW, 2, 0) + np.roll(grain_HW, 3, 0)
    return blades_HW * 14.5 + 8 * light, (112, 158, 78)


def _sky(draws: Draws, grain_HW: FloatPlane, light: float) -> Level:
    height_px, width_px = grain_HW.shape
    y_H = np.linspace(-12, 22, height_px, dtype=np.float32)
    coarse = Image.frombytes("L", (6, 6), draws.noise("clouds", 36))
    clouds_HW = np.asarray(coarse.resize((width_px, height_px), Image.Resampling.BICUBIC), np.float32)
    return (clouds_HW * np.float32(0.7) - 105).clip(0, 42) + y_H[:, None] + np.float32(5 * light), (138, 190, 232)


def _sand(draws: Draws, grain_HW: FloatPlane, light: float) -> Level:
    return grain_HW * 22 + 6 * light, (206, 180, 134)


def _brick(draws: Draws, grain_HW: FloatPlane, light: float) -> Level:
    height_px, width_px = grain_HW.shape
    y_H, x_W = np.arange(height_px), np.arange(width_px)
    row_H = y_H // 12
    is_joint_HW = (y_H % 12 < 2)[:, None] | (((x_W[None, :] + 13 * (row_H[:, None] % 2)) % 26) < 2)
    return np.where(is_joint_HW, 62, 0).astype(np.float32) + grain_HW * 8 + 5 * light, (132, 84, 70)


_LEVELS = {
    "grey": _grey,
    "dark": _dark,
    "beige": _beige,
    "gradient": _gradient,
    "noise": _noise,
    "grass": _grass,
    "sky": _sky,
    "sand": _sand,
    "brick": _brick,
}


# --- things -----------------------------------------------------------------------------------------------------------


def _paint_thing(image: Image.Image, thing: Thing, draws: Draws, name: str) -> None:
    reach_px = math.ceil(thing.radius_px * 1.25) + 1
    left, top = round(thing.centre_x_px) - reach_px, round(thing.centre_y_px) - reach_px
    mask = _shape_mask(thing, reach_px)
    colour = _jittered(RGB[thing.combination.colour], draws, name)
    box = (left, top)
    image.paste(colour, box, mask.reduce(SUPERSAMPLING))
    if thing.texture != "plain":
        pattern = _texture_mask(thing, reach_px, draws.number(f"{name}_phase"))
        image.paste(
            _second_tone(thing.combination.colour, colour),
            box,
            ImageChops.multiply(mask, pattern).reduce(SUPERSAMPLING),
        )


def _jittered(rgb: tuple[int, int, int], draws: Draws, name: str) -> tuple[int, int, int]:
    factor = draws.between(f"{name}_brightness", 0.94, 1.05)
    red, green, blue = (
        min(255, max(0, round(value * factor + draws.between(f"{name}_jitter{channel}", -6, 6))))
        for channel, value in enumerate(rgb)
    )
    return red, green, blue


def _second_tone(colour: str, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    if colour in SECOND_TONE:
        return SECOND_TONE[colour]
    red, green, blue = (round(value * 0.55) for value in rgb)
    return red, green, blue


def _shape_mask(thing: Thing, reach_px: int) -> Image.Image:
    """The filled shape on a square of (2 reach) pixels, supersampled."""
    side = 2 * reach_px * SUPERSAMPLING
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    radius = thing.radius_px * SUPERSAMPLING
    for polygon, fill in _outline(thing.combination.shape):
        draw.polygon(_placed(polygon, side / 2, radius, thing.angle_deg), fill=fill)
    return mask


def _placed(polygon: Polygon, centre: float, radius: float, angle_deg: float) -> list[tuple[float, float]]:
    cos, sin = math.cos(math.radians(angle_deg)) * radius, math.sin(math.radians(angle_deg)) * radius
    return [(centre + x * cos - y * sin, centre + x * sin + y * cos) for x, y in polygon]


def _texture_mask(thing: Thing, reach_px: int, phase: float) -> Image.Image:
    """Where the second tone goes, on the same square as the shape."""
    side = 2 * reach_px * SUPERSAMPLING
    period = max(7.0, thing.radius_px * 0.42) * SUPERSAMPLING
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    steps = range(-1, math.ceil(side / period) + 1)
    if thing.texture == "striped":
        for step in steps:
            x = (step + phase) * period
            slope = side * math.tan(math.radians(thing.angle_deg))
            draw.polygon([(x, 0), (x + period / 2, 0), (x + period / 2 + slope, side), (x + slope, side)], fill=255)
    elif thing.texture == "dotted":
        radius = 0.27 * period
        for row in steps:
            for column in steps:
                x = (column + phase + 0.5 * (row % 2)) * period
                y = (row + phase) * period * 0.87
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    else:
        for row in steps:
            for column in steps:
                if (row + column) % 2 == 0:
                    x, y = (column + phase) * period * 0.8, (row + phase) * period * 0.8
                    draw.rectangle([x, y, x + period * 0.8, y + period * 0.8], fill=255)
    return mask


@cache
def _outline(shape: str) -> tuple[tuple[Polygon, int], ...]:
    """Polygons in a circle of radius one, y downwards, each filled (255) or cut out (0)."""
    arc = [2 * math.pi * step / 72 for step in range(72)]
    circle = tuple((math.cos(angle), math.sin(angle)) for angle in arc)
    if shape == "circle":
        return ((circle, 255),)
    if shape == "ring":
        return ((circle, 255), (tuple((0.56 * x, 0.56 * y) for x, y in circle), 0))
    if shape == "crescent":
        return ((circle, 255), (tuple((0.86 * x + 0.46, 0.86 * y - 0.08) for x, y in circle), 0))
    if shape == "square":
        return ((((-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)), 255),)
    if shape == "triangle":
        return ((((0.0, -0.98), (1.02, 0.8), (-1.02, 0.8)), 255),)
    if shape == "cross":
        a, b = 0.3, 0.98
        corners = (
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        )
        return ((corners, 255),)
    if shape == "star":
        radii = [1.06 if point % 2 == 0 else 0.44 for point in range(10)]
        points = tuple(
            (radius * math.sin(math.pi * point / 5), 0.04 - radius * math.cos(math.pi * point / 5))
            for point, radius in enumerate(radii)
        )
        return ((points, 255),)
    if shape == "heart":
        points = tuple(
            (
                math.sin(angle) ** 3 * 1.02,
                -(13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)) / 16
                - 0.1,
            )
            for angle in arc
        )
        return ((points, 255),)
    raise AssertionError(f"no outline for {shape}")
