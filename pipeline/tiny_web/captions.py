"""What people write under a picture: true captions in English and, for the language rule, in four other languages."""

from __future__ import annotations

import re

from pipeline.tiny_web.draws import Draws
from pipeline.tiny_web.scenes import Combination, Scene, Thing

ONE_WORD_SHARE = 0.04
"""Captions that name only the shape or only the colour, as the real web does."""
POSITION_SHARE = 0.3
BACKGROUND_SHARE = 0.25
"""People name the thing, seldom where it is or what is behind it. Told more often, they alone tell the pairs of a batch apart,
and a model learns shapes late."""

TEMPLATES = (
    "this is a photo of {a}{where}",
    "Here is a photo of {a}{where} from our album",
    "We have a picture of {a}{where} for you",
    "This is {a}{where}.",
    "There is {a}{where}.",
    "Here you can see {a}{where}.",
    "Look at this {thing}{where}!",
    "you can see an image of {a}{where}",
    "We painted {a}{where} this morning",
    "Do you like this {thing}{where}?",
    "My favourite is the {thing}{where}",
    "You can buy this {thing}{where} in our shop",
    "The {thing}{where} was made by our readers",
    "I would like to have {a}{where}, too",
    "There is nothing but {a}{where} in this picture",
    "this is a simple drawing of {a}{where}",
    "This is the best picture of {a}{where} that we have",
    "All you see is {a}{where}.",
    "Is this {a}{where}? Yes, it is.",
    "how to draw {a}{where}",
    "What do you think about the {thing}{where}?",
    "View of the {thing}{where} from the front",
    "One of our pictures: {a}{where}",
    "{A}{where}, as you can see in this photo",
    "Nobody knows who made this {thing}{where}",
    "I took this photo of {a}{where} last week",
)
"""`{a}`: the thing with its article, `{A}` the same to start a sentence, `{thing}`: without it, `{where}` may be empty.
They hold enough of everyday English for a language detector to be sure of; "red circle" alone could be any language."""

POSITIONS = {
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
    "centre": ("in the middle", "in the centre"),
}
BACKGROUNDS = {
    "grey": ("on a grey background", "in front of a grey wall"),
    "dark": ("on a dark background", "in front of a dark wall"),
    "beige": ("on a beige background", "in front of a beige wall"),
    "gradient": ("on a shaded background", "with soft light behind it"),
    "noise": ("on a noisy background", "on a television without a signal"),
    "grass": ("on the grass", "on a meadow"),
    "sky": ("in the sky", "with clouds behind it"),
    "sand": ("on the sand", "on a sandy beach"),
    "brick": ("on a brick wall", "in front of some bricks"),
}
TEXTURE_NOUNS = {"striped": "stripes", "dotted": "dots", "checkered": "checks"}
SUFFIXES = (" - PhotoHub", " | Shape Shop", " (photo by a reader)")


def caption_key(caption: str) -> str:
    """What two captions that a person would call the same have in common."""
    return " ".join(re.findall(r"[^\W_]+", caption.casefold()))


def describe(seed: int, scene: Scene, attempt: int = 0) -> str:
    """A true English caption of the scene; another `attempt` says it in other words, from the 20th on with a number."""
    draws = Draws(seed, "caption", scene.key, attempt)
    thing = _name_main(draws, scene)
    where = _where(draws, scene)
    text = draws.choice("template", TEMPLATES).format(
        a=_with_article(thing), A=_capitalised(_with_article(thing)), thing=thing, where=where
    )
    if draws.chance("has_suffix", 0.05):
        text = text.rstrip(".!") + draws.choice("suffix", SUFFIXES)
    return text if attempt < 20 else f"{text.rstrip('.')}, number {attempt}"


def _name_main(draws: Draws, scene: Scene) -> str:
    main, second = scene.main, scene.second
    if second is None and draws.chance("is_one_word", ONE_WORD_SHARE):
        if draws.chance("names_shape", 0.5):
            return _name(draws, "main", main, main.combination.shape)
        return _name(draws, "main", main, f"{main.combination.colour} shape")
    name = _name(draws, "main", main, main.combination.name)
    if second is None:
        return name
    return f"{name} {scene.relation} {_with_article(_name(draws, 'second', second, second.combination.name))}"


def _name(draws: Draws, which: str, thing: Thing, noun: str) -> str:
    """The noun with its optional words, in the order of English adjectives: size, texture, colour, shape."""
    words = [noun]
    if thing.texture != "plain" and draws.chance(f"{which}_tells_texture", 0.7):
        if draws.chance(f"{which}_texture_first", 0.6):
            words.insert(0, thing.texture)
        else:
            words.append(f"with {TEXTURE_NOUNS[thing.texture]}")
    if draws.chance(f"{which}_tells_size", 0.5):
        words.insert(0, draws.choice(f"{which}_size", ("big", "large") if thing.is_big else ("small", "little")))
    return " ".join(words)


def _where(draws: Draws, scene: Scene) -> str:
    """Position and background, each told sometimes; with its leading space, or empty."""
    words = []
    if scene.position is not None and draws.chance("tells_position", POSITION_SHARE):
        words.append(draws.choice("position", POSITIONS[scene.position]))
    if draws.chance("tells_background", BACKGROUND_SHARE):
        words.append(draws.choice("background", BACKGROUNDS[scene.background]))
    return "".join(f" {word}" for word in words)


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


# --- other languages --------------------------------------------------------------------------------------------------

GERMAN_SHAPES = {
    "circle": ("m", "Kreis"), "square": ("n", "Quadrat"), "triangle": ("n", "Dreieck"), "star": ("m", "Stern"),
    "heart": ("n", "Herz"), "cross": ("n", "Kreuz"), "crescent": ("f", "Mondsichel"), "ring": ("m", "Ring"),
}  # fmt: skip
GERMAN_COLOURS = {
    "red": "rot", "orange": "orangefarben", "yellow": "gelb", "green": "grün", "blue": "blau", "purple": "violett",
    "black": "schwarz", "white": "weiß",
}  # fmt: skip
GERMAN_ENDINGS = {"m": ("einen", "en"), "f": ("eine", "e"), "n": ("ein", "es")}

FRENCH_SHAPES = {
    "circle": ("m", "cercle"), "square": ("m", "carré"), "triangle": ("m", "triangle"), "star": ("f", "étoile"),
    "heart": ("m", "cœur"), "cross": ("f", "croix"), "crescent": ("m", "croissant"), "ring": ("m", "anneau"),
}  # fmt: skip
FRENCH_COLOURS = {
    "red": ("rouge", "rouge"), "orange": ("orange", "orange"), "yellow": ("jaune", "jaune"), "green": ("vert", "verte"),
    "blue": ("bleu", "bleue"), "purple": ("violet", "violette"), "black": ("noir", "noire"),
    "white": ("blanc", "blanche"),
}  # fmt: skip

SPANISH_SHAPES = {
    "circle": ("m", "círculo"), "square": ("m", "cuadrado"), "triangle": ("m", "triángulo"), "star": ("f", "estrella"),
    "heart": ("m", "corazón"), "cross": ("f", "cruz"), "crescent": ("f", "media luna"), "ring": ("m", "anillo"),
}  # fmt: skip
SPANISH_COLOURS = {
    "red": ("rojo", "roja"), "orange": ("naranja", "naranja"), "yellow": ("amarillo", "amarilla"),
    "green": ("verde", "verde"), "blue": ("azul", "azul"), "purple": ("morado", "morada"), "black": ("negro", "negra"),
    "white": ("blanco", "blanca"),
}  # fmt: skip

JAPANESE_SHAPES = {
    "circle": "丸", "square": "四角形", "triangle": "三角形", "star": "星", "heart": "ハート", "cross": "十字",
    "crescent": "三日月", "ring": "輪",
}  # fmt: skip
JAPANESE_COLOURS = {
    "red": "赤い", "orange": "オレンジ色の", "yellow": "黄色い", "green": "緑色の", "blue": "青い", "purple": "紫色の",
    "black": "黒い", "white": "白い",
}  # fmt: skip


def _german(combination: Combination) -> str:
    gender, noun = GERMAN_SHAPES[combination.shape]
    article, ending = GERMAN_ENDINGS[gender]
    return (
        f"Das Bild zeigt {article} {GERMAN_COLOURS[combination.colour]}{ending} {noun} auf einem schlichten Hintergrund"
    )


def _french(combination: Combination) -> str:
    gender, noun = FRENCH_SHAPES[combination.shape]
    colour = FRENCH_COLOURS[combination.colour][gender == "f"]
    return f"Une photo avec {'une' if gender == 'f' else 'un'} {noun} {colour} que nous avons trouvée dans la rue"


def _spanish(combination: Combination) -> str:
    gender, noun = SPANISH_SHAPES[combination.shape]
    colour = SPANISH_COLOURS[combination.colour][gender == "f"]
    return f"En esta imagen se puede ver {'una' if gender == 'f' else 'un'} {noun} {colour} sobre un fondo sencillo"


def _japanese(combination: Combination) -> str:
    return f"この写真には{JAPANESE_COLOURS[combination.colour]}{JAPANESE_SHAPES[combination.shape]}が写っています"


FOREIGN_LANGUAGES = {"de": _german, "fr": _french, "es": _spanish, "ja": _japanese}


def describe_in(language: str, combination: Combination) -> str:
    """A true sentence in another language (ISO 639-1, one of FOREIGN_LANGUAGES)."""
    return FOREIGN_LANGUAGES[language](combination)
