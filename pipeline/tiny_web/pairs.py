"""The pairs of the tiny web, good ones and nuisances in known numbers, each with what a correct pipeline says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.tiny_web.captions import FOREIGN_LANGUAGES, caption_key, describe, describe_in
from pipeline.tiny_web.config import TinyWebConfig
from pipeline.tiny_web.draws import Draws
from pipeline.tiny_web.evaluation import EVALUATION_COMBINATIONS, evaluation_scene
from pipeline.tiny_web.scenes import Scene, draw_scene

Behaviour = Literal[
    "picture", "redirect", "redirect_loop", "drip", "http_404", "http_500", "truncated", "huge", "bomb", "html"
]
Look = Literal["scene", "near_duplicate", "tiny", "wide", "thumbnail", "logo"]
Home = Literal["ordinary", "opt_out_header", "opt_out_meta", "disallowed", "broken_html"]

MAX_IMAGES_PER_CAPTION = 8
"""No caption but the slogans is on more images: the pipeline takes one on more than 10 for boilerplate (ALIGN)."""
HOTLINK_SHARE = 0.08
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
LOOP_SUFFIX = "/again"
"""The second stop of a redirect loop, which leads back to the first."""
SLOGANS = (
    "Free shipping & easy returns on all orders",
    "Join our newsletter today and get ten percent off",
    "Welcome to our shop, have a look around",
    "Click here to see the picture in full size",
)
IMAGES_PER_SLOGAN = 12


@dataclass(frozen=True)
class ImageFile:
    """What a site answers at one path."""

    site: int
    path: str
    scene: Scene | None = None
    behaviour: Behaviour = "picture"
    look: Look = "scene"
    target: str = ""
    """Path that a redirect leads to."""
    robots_tag: str = ""
    """X-Robots-Tag that it is sent with."""


@dataclass(frozen=True)
class Pair:
    """An image and a text on a page.

    `reason` is the pipeline's drop reason, None = kept. In a `group` exactly one pair is kept, whichever comes first in
    the pipeline's order, and all others get `reason`.
    """

    site: int
    image: ImageFile | str
    caption: str | None
    nuisance: str = ""
    reason: str | None = None
    group: str | None = None
    home: Home = "ordinary"


@dataclass(frozen=True)
class Nuisance:
    """A trouble of the real web; its number is a share of the good pairs, within bounds."""

    name: str
    share: float
    at_least: int
    reason: str | None
    behaviour: Behaviour = "picture"
    look: Look = "scene"
    home: Home = "ordinary"
    at_most: int = 1_000_000_000

    def count(self, pairs: int) -> int:
        """How many a web of so many good pairs has."""
        return min(self.at_most, max(self.at_least, round(self.share * pairs)))


NUISANCES = (
    # Before the download.
    Nuisance("data_url", 0.003, 2, "invalid_url"),
    Nuisance("javascript_url", 0.001, 1, "invalid_url"),
    Nuisance("no_alt", 0.006, 2, "no_caption"),
    Nuisance("blank_alt", 0.002, 1, "no_caption"),
    Nuisance("opt_out_header", 0.006, 3, "opted_out", home="opt_out_header"),
    Nuisance("opt_out_meta", 0.006, 3, "opted_out", home="opt_out_meta"),
    Nuisance("short_caption", 0.004, 2, "short_caption"),
    Nuisance("long_caption", 0.002, 2, "long_caption"),
    Nuisance("file_name", 0.010, 3, "file_name_caption"),
    Nuisance("few_words", 0.008, 3, "few_words"),
    Nuisance("foreign", 0.025, 8, "language"),
    Nuisance("slogan", 0.012, IMAGES_PER_SLOGAN, "frequent_caption"),
    Nuisance("repeated_pair", 0.015, 5, "duplicate_pair"),
    # At the download.
    Nuisance("noai_image", 0.005, 2, "opted_out_image"),
    Nuisance("missing", 0.012, 3, "http_404", "http_404"),
    Nuisance("server_error", 0.004, 2, "http_500", "http_500"),
    Nuisance("redirect_loop", 0.001, 2, "too_many_redirects", "redirect_loop"),
    Nuisance("drip", 0.001, 4, "timeout", "drip", at_most=6),
    Nuisance("huge", 0.001, 2, "too_large", "huge", at_most=4),
    Nuisance("truncated", 0.002, 2, "not_an_image", "truncated"),
    Nuisance("html_as_jpeg", 0.002, 2, "not_an_image", "html"),
    Nuisance("bomb", 0.0005, 2, "too_many_pixels", "bomb", at_most=4),
    # After the download.
    Nuisance("tiny_image", 0.006, 2, "small_image", look="tiny"),
    Nuisance("wide_image", 0.004, 2, "aspect_ratio", look="wide"),
    Nuisance("image_copy", 0.015, 5, "duplicate_image"),
    Nuisance("evaluation_copy", 0.005, 4, "evaluation_copy"),
    # Odd, but good.
    Nuisance("redirect", 0.008, 3, None, "redirect"),
    Nuisance("near_duplicate", 0.008, 3, None, look="near_duplicate"),
    Nuisance("broken_html", 0.001, 3, None, home="broken_html", at_most=12),
    # Never seen: robots.txt forbids the page.
    Nuisance("disallowed", 0.008, 4, None, home="disallowed"),
)
KEPT_NUISANCES = ("redirect", "near_duplicate", "broken_html")


def nuisance_counts(config: TinyWebConfig) -> dict[str, int]:
    """Pairs of each nuisance, by name."""
    return {nuisance.name: nuisance.count(config.pairs) for nuisance in NUISANCES}


def plan_pairs(config: TinyWebConfig) -> tuple[Pair, ...]:
    """All pairs: `config.pairs` of them are to be kept, the nuisances come on top."""
    counts = nuisance_counts(config)
    ordinary_pairs = config.pairs - sum(counts[name] for name in KEPT_NUISANCES)
    planner = _Planner(config, ordinary_pairs)
    extra = [pair for nuisance in NUISANCES for pair in planner.nuisance_pairs(nuisance, counts[nuisance.name])]
    return (*planner.ordinary, *extra)


class _Planner:
    """Makes pairs and remembers how often each caption was used."""

    def __init__(self, config: TinyWebConfig, ordinary_pairs: int) -> None:
        self._config = config
        self._uses: Counter[str] = Counter()
        self.ordinary = [self._fresh("good", index) for index in range(ordinary_pairs)]

    def nuisance_pairs(self, nuisance: Nuisance, count: int) -> Iterator[Pair]:
        """The `count` pairs of a nuisance."""
        special = _SPECIAL.get(nuisance.name)
        for index in range(count):
            pair = special(self, nuisance, index) if special else self._plain(nuisance, index)
            yield replace(pair, nuisance=nuisance.name)

    def _plain(self, nuisance: Nuisance, index: int) -> Pair:
        """A pair that would be good, but for what the server or the page does to it."""
        pair = self._fresh(nuisance.name, index)
        image = replace(self._file(pair), behaviour=nuisance.behaviour, look=nuisance.look)
        if nuisance.behaviour == "redirect_loop":
            path = f"/go/{self._name(nuisance.name, index)}"
            image = replace(image, path=path, target=path + LOOP_SUFFIX)
        if nuisance.behaviour == "bomb":
            image = replace(image, path=f"/img/{self._name(nuisance.name, index)}.png")
        return replace(pair, image=image, reason=nuisance.reason, home=nuisance.home)

    def _fresh(self, kind: str, index: int) -> Pair:
        """A new picture with a true caption, on a page of some site."""
        key = f"{kind}/{index}"
        draws = Draws(self._config.seed, "pair", key)
        scene = draw_scene(self._config.seed, key)
        site = draws.choice("site", range(self._config.sites))
        path = draws.choice("path", _PATHS).format(name=self._name(kind, index))
        elsewhere = (site + 1) % self._config.sites if draws.chance("is_hotlinked", HOTLINK_SHARE) else site
        return Pair(elsewhere, ImageFile(site, path, scene), self._describe(scene))

    def _name(self, kind: str, index: int) -> str:
        return Draws(self._config.seed, "name", kind, index).digest("name").hex()[:10]

    def _describe(self, scene: Scene) -> str:
        attempt = 0
        while True:
            caption = describe(self._config.seed, scene, attempt)
            if self._uses[caption_key(caption)] < MAX_IMAGES_PER_CAPTION:
                self._uses[caption_key(caption)] += 1
                return caption
            attempt += 1

    @staticmethod
    def _file(pair: Pair) -> ImageFile:
        assert isinstance(pair.image, ImageFile)
        return pair.image

    # --- nuisances with a way of their own ---

    def _with_address(self, nuisance: Nuisance, index: int) -> Pair:
        address = PIXEL if nuisance.name == "data_url" else "javascript:void(0)"
        return replace(self._fresh(nuisance.name, index), image=address, reason=nuisance.reason)

    def _with_text(self, nuisance: Nuisance, index: int) -> Pair:
        pair = self._fresh(nuisance.name, index)
        return replace(pair, caption=self._text(nuisance.name, pair, index), reason=nuisance.reason)

    def _text(self, name: str, pair: Pair, index: int) -> str | None:
        draws = Draws(self._config.seed, "text", name, index)
        scene = self._file(pair).scene
        assert scene is not None
        if name == "no_alt":
            return None
        if name == "long_caption":
            return " ".join(describe(self._config.seed, scene, attempt).rstrip(".!?") + ";" for attempt in range(60))
        if name == "file_name":
            number = int(draws.between("number", 1000, 9999))
            return draws.choice("pattern", ("IMG_{}.jpg", "DSC0{}.JPG", "image-{}.png", "photo_{}.jpeg")).format(number)
        if name == "foreign":
            language = tuple(FOREIGN_LANGUAGES)[index % len(FOREIGN_LANGUAGES)]
            return describe_in(language, scene.main.combination)
        if name == "slogan":
            count = nuisance_counts(self._config)["slogan"]
            return SLOGANS[index % min(len(SLOGANS), count // IMAGES_PER_SLOGAN)]
        words = {
            "blank_alt": ("   ",),
            "short_caption": ("red", "star", "ring", "pic"),
            "few_words": ("image", "photo", "picture", "banner"),
        }
        return draws.choice("words", words[name])

    def _repeated(self, nuisance: Nuisance, index: int) -> Pair:
        """The same address and text on a page of another site; every fifth time a third copy."""
        base_index = 2 * (index - (index % 5 == 4))
        base = replace(self.ordinary[base_index], group=f"{nuisance.name}/{base_index}", reason=nuisance.reason)
        self.ordinary[base_index] = base
        return replace(base, site=(base.site + 1 + (index % 5 == 4)) % self._config.sites)

    def _copied(self, nuisance: Nuisance, index: int) -> Pair:
        """The same bytes at another address, in turn with the same and with another true caption."""
        base_index = 2 * (index - (index % 5 == 4)) + 1
        base = replace(self.ordinary[base_index], group=f"{nuisance.name}/{base_index}", reason=nuisance.reason)
        self.ordinary[base_index] = base
        pair = self._fresh(nuisance.name, index)
        scene = self._file(base).scene
        assert scene is not None
        caption = base.caption if index % 2 == 0 else self._describe(scene)
        return replace(base, site=pair.site, image=replace(self._file(pair), scene=scene), caption=caption)

    def _evaluation_copy(self, nuisance: Nuisance, index: int) -> Pair:
        """A picture of an evaluation set, byte for byte, out in the wild."""
        names = tuple(EVALUATION_COMBINATIONS)
        scene = evaluation_scene(self._config.seed, names[index % len(names)], index // len(names))
        pair = self._fresh(nuisance.name, index)
        image = replace(self._file(pair), scene=scene)
        return replace(pair, image=image, caption=self._describe(scene), reason=nuisance.reason)

    def _near_duplicate(self, nuisance: Nuisance, index: int) -> Pair:
        """A good picture once more, smaller and compressed anew, under another true caption."""
        pair = self._fresh(nuisance.name, index)
        scene = self._file(self.ordinary[-1 - index]).scene
        assert scene is not None
        image = replace(self._file(pair), scene=scene, look=nuisance.look)
        return replace(pair, image=image, caption=self._describe(scene), reason=nuisance.reason)

    def _opted_out(self, nuisance: Nuisance, index: int) -> Pair:
        """An image whose own header opts out."""
        pair = self._fresh(nuisance.name, index)
        image = replace(self._file(pair), robots_tag=("noai", "noimageai")[index % 2])
        return replace(pair, image=image, reason=nuisance.reason)

    def _redirected(self, nuisance: Nuisance, index: int) -> Pair:
        """A good picture behind a redirect."""
        pair = self._fresh(nuisance.name, index)
        file = self._file(pair)
        image = replace(file, path=f"/go/{self._name('go', index)}", behaviour=nuisance.behaviour, target=file.path)
        return replace(pair, image=image, reason=nuisance.reason)


_PATHS = ("/img/{name}.jpg", "/uploads/2024/05/{name}.jpg", "/media/pictures/{name}.jpeg")
_SPECIAL: Mapping[str, Callable[[_Planner, Nuisance, int], Pair]] = {
    "data_url": _Planner._with_address,
    "javascript_url": _Planner._with_address,
    "repeated_pair": _Planner._repeated,
    "image_copy": _Planner._copied,
    "evaluation_copy": _Planner._evaluation_copy,
    "noai_image": _Planner._opted_out,
    "near_duplicate": _Planner._near_duplicate,
    "redirect": _Planner._redirected,
} | dict.fromkeys(
    ("no_alt", "blank_alt", "short_caption", "long_caption", "file_name", "few_words", "foreign", "slogan"),
    _Planner._with_text,
)
