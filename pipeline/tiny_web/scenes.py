"""Scenes: one coloured shape, sometimes two, before a background; not yet painted, not yet told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.tiny_web.draws import Draws

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "crescent", "ring")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
HELD_OUT_SHIFTS = (0, 3, 5)
"""Shape i is never seen in the colours i + shift (mod 8): each shape and each colour misses the same number."""

EXCLUDED_COLOURS: dict[str, tuple[str, ...]] = {
    "grey": (),
    "dark": ("black",),
    "beige": ("white", "yellow"),
    "gradient": ("white",),
    "noise": (),
    "grass": ("green",),
    "sky": ("blue", "white"),
    "sand": ("white", "yellow", "orange"),
    "brick": ("red", "orange"),
}
"""Backgrounds, and the colours that would drown in them."""

TEXTURES = ("plain", "plain", "plain", "plain", "plain", "striped", "striped", "dotted", "dotted", "checkered")
BIG_SHARE = 0.75
SECOND_SHARE = 0.12
OFFSET_CLEAR = 0.10
"""From this distance off the centre, in shares of the short side, a position has a name."""
OFFSET_CENTRED = 0.04


@dataclass(frozen=True)
class Combination:
    """A class of the evaluation: a shape in a colour."""

    shape: str
    colour: str

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


ALL_COMBINATIONS = tuple(Combination(shape, colour) for shape in SHAPES for colour in COLOURS)
HELD_OUT_COMBINATIONS = tuple(
    Combination(shape, COLOURS[(index + shift) % len(COLOURS)])
    for index, shape in enumerate(SHAPES)
    for shift in HELD_OUT_SHIFTS
)
TRAINING_COMBINATIONS = tuple(
    combination for combination in ALL_COMBINATIONS if combination not in set(HELD_OUT_COMBINATIONS)
)


@dataclass(frozen=True)
class Thing:
    """A shape in a place; lengths in pixels."""

    combination: Combination
    texture: str
    is_big: bool
    centre_x_px: float
    centre_y_px: float
    radius_px: float
    angle_deg: float


@dataclass(frozen=True)
class Scene:
    """All that is to be seen in one picture; `key` names it and decides its grain."""

    key: str
    width_px: int
    height_px: int
    background: str
    main: Thing
    second: Thing | None = None

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """The classes in the picture, the main one first."""
        return tuple(thing.combination for thing in (self.main, self.second) if thing is not None)

    @property
    def position(self) -> str | None:
        """left, right, top, bottom or centre; None where a person would hesitate, and beside a second thing."""
        short_px = min(self.width_px, self.height_px)
        dx = (self.main.centre_x_px - self.width_px / 2) / short_px
        dy = (self.main.centre_y_px - self.height_px / 2) / short_px
        if self.second is not None:
            return None
        if max(abs(dx), abs(dy)) < OFFSET_CENTRED:
            return "centre"
        if max(abs(dx), abs(dy)) < OFFSET_CLEAR or min(abs(dx), abs(dy)) > 0.6 * max(abs(dx), abs(dy)):
            return None
        if abs(dx) > abs(dy):
            return "left" if dx < 0 else "right"
        return "top" if dy < 0 else "bottom"

    @property
    def relation(self) -> str | None:
        """Where the main thing lies as seen from the second."""
        if self.second is None:
            return None
        dx = self.main.centre_x_px - self.second.centre_x_px
        dy = self.main.centre_y_px - self.second.centre_y_px
        if abs(dx) > abs(dy):
            return "left of" if dx < 0 else "right of"
        return "above" if dy < 0 else "below"


def draw_scene(
    seed: int,
    key: str,
    combinations: Sequence[Combination] = TRAINING_COMBINATIONS,
    second_share: float = SECOND_SHARE,
) -> Scene:
    """The scene called `key`: its main thing is one of `combinations`, a second one always a training combination."""
    draws = Draws(seed, "scene", key)
    main = draws.choice("main", combinations)
    width_px, height_px = _size(draws)
    seconds = [other for other in TRAINING_COMBINATIONS if other.shape != main.shape and other.colour != main.colour]
    second = draws.choice("second", seconds) if draws.chance("has_second", second_share) else None
    shown = {main.colour} | ({second.colour} if second else set())
    backgrounds = [name for name, excluded in EXCLUDED_COLOURS.items() if shown.isdisjoint(excluded)]
    background = draws.choice("background", backgrounds)
    if second is None:
        return Scene(key, width_px, height_px, background, _place_alone(draws, main, width_px, height_px))
    things = _place_two(draws, main, second, width_px, height_px)
    return Scene(key, width_px, height_px, background, *things)


def _size(draws: Draws) -> tuple[int, int]:
    """Width and height in pixels: short side 96 to 120, from square to 1.6 : 1."""
    short = draws.between("short_side", 96, 120)
    ratio = 1.0 if draws.chance("is_square", 0.25) else draws.between("ratio", 1.0, 1.6)
    sides = round(short), round(short * ratio)
    return (sides[1], sides[0]) if draws.chance("is_landscape", 0.6) else sides


def _place_alone(draws: Draws, main: Combination, width_px: int, height_px: int) -> Thing:
    """Anywhere, but whole within the central square, so that a centre crop shows it."""
    short_px = min(width_px, height_px)
    is_big = draws.chance("is_big", BIG_SHARE)
    extent = draws.between("extent", 0.50, 0.75) if is_big else draws.between("extent", 0.32, 0.40)
    room = (1.0 - extent) / 2 - 0.02
    dx, dy = (draws.between(axis, -1, 1) for axis in ("dx", "dy"))
    if draws.chance("is_centred", 0.2):
        dx, dy = dx * OFFSET_CENTRED, dy * OFFSET_CENTRED
    return Thing(
        combination=main,
        texture=draws.choice("texture", TEXTURES),
        is_big=is_big,
        centre_x_px=width_px / 2 + dx * room * short_px,
        centre_y_px=height_px / 2 + dy * room * short_px,
        radius_px=extent * short_px / 2,
        angle_deg=draws.between("angle", -15, 15),
    )


def _place_two(
    draws: Draws, main: Combination, second: Combination, width_px: int, height_px: int
) -> tuple[Thing, Thing]:
    """The big main thing and the small second one, side by side along the longer side."""
    is_wide = width_px > height_px or (width_px == height_px and draws.chance("is_side_by_side", 0.5))
    long_px, short_px = max(width_px, height_px), min(width_px, height_px)
    main_radius = draws.between("main_extent", 0.46, 0.56) * short_px / 2
    second_radius = draws.between("second_extent", 0.26, 0.32) * short_px / 2
    gap = (long_px - 2 * main_radius - 2 * second_radius) / 3
    along = [gap + main_radius, long_px - gap - second_radius]
    if draws.chance("main_is_last", 0.5):
        along = [long_px - position for position in along]
    things = []
    for name, combination, radius, position in (
        ("main", main, main_radius, along[0]),
        ("second", second, second_radius, along[1]),
    ):
        slack = max(0.0, min(short_px / 2 - radius - 2, 0.2 * short_px))
        across = short_px / 2 + draws.between(f"{name}_across", -1, 1) * slack
        things.append(
            Thing(
                combination=combination,
                texture=draws.choice(f"{name}_texture", TEXTURES),
                is_big=name == "main",
                centre_x_px=position if is_wide else across,
                centre_y_px=across if is_wide else position,
                radius_px=radius,
                angle_deg=draws.between(f"{name}_angle", -15, 15),
            )
        )
    return things[0], things[1]
