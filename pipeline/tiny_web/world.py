"""The plan of the tiny web: sites, pages, addresses, and the truth about every pair on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeVar

from pipeline.errors import InputError
from pipeline.tiny_web.config import TinyWebConfig
from pipeline.tiny_web.draws import Draws
from pipeline.tiny_web.pairs import Home, ImageFile, Pair, plan_pairs

SiteKind = Literal["gallery", "blog", "shop"]
OptOut = Literal["", "header", "meta"]
T = TypeVar("T")

HOST = "127.0.0.1"
SITE_KINDS: tuple[SiteKind, ...] = ("gallery", "blog", "shop")
PAIRS_PER_PAGE: dict[SiteKind, int] = {"gallery": 16, "blog": 8, "shop": 12}
PAGES_PER_SECTION = 10
CLOSE_UPS_PER_PAGE = 4
PAGE_PATHS: dict[SiteKind, str] = {
    "gallery": "/albums/{section}/page{page}.html",
    "blog": "/posts/{section}/{name}/",
    "shop": "/shop/{section}/list-{page}.html",
}
SPECIAL_PATHS: dict[Home, str] = {
    "opt_out_header": "/artists/{number}.html",
    "opt_out_meta": "/studio/{number}.html",
    "disallowed": "/private/{number}.html",
    "broken_html": "/old/{number}.htm",
}
SPECIAL_TITLES: dict[Home, str] = {
    "opt_out_header": "Artists' corner",
    "opt_out_meta": "Studio",
    "disallowed": "Private album",
    "broken_html": "Old home page",
}
BASE_SHARE = 0.15
LOGO_PATH = "/static/logo.png"


@dataclass(frozen=True)
class Page:
    """One HTML page; `links` are paths on the same site with their texts."""

    site: int
    kind: SiteKind
    path: str
    title: str
    pairs: tuple[Pair, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    opt_out: OptOut = ""
    base: str = ""
    is_broken: bool = False
    is_disallowed: bool = False


@dataclass(frozen=True)
class Truth:
    """What a correct pipeline must say of one pair on one page.

    `reason` is the drop reason, None = kept. In a `group` exactly one pair is kept and all others get `reason`.
    `combinations` are the names of the classes that the image shows ("red circle"), the main one first.
    """

    page_url: str
    image_url: str
    caption: str | None
    reason: str | None
    group: str | None
    nuisance: str
    combinations: tuple[str, ...]


class World:
    """All sites at their addresses. `ports` is needed only where the configuration leaves them to the system."""

    def __init__(self, config: TinyWebConfig, ports: Sequence[int] | None = None) -> None:
        if ports is None and config.base_port == 0:
            raise InputError(
                "base_port 0 leaves the ports to the system: give `ports`, or start a TinyWeb and use its `world`"
            )
        self.config = config
        self.ports = (
            tuple(ports) if ports is not None else tuple(config.base_port + site for site in range(config.sites))
        )
        self.pages = _lay_out(config)

    def origin(self, site: int) -> str:
        """Scheme, host and port of a site."""
        return f"http://{HOST}:{self.ports[site]}"

    @property
    def seeds(self) -> tuple[str, ...]:
        """The first page of each site."""
        return tuple(f"{self.origin(site)}/" for site in range(self.config.sites))

    @cached_property
    def files(self) -> dict[tuple[int, str], ImageFile]:
        """What each site answers at the paths of its images."""
        files = {}
        for page in self.pages:
            for pair in page.pairs:
                if isinstance(pair.image, ImageFile):
                    files[pair.image.site, pair.image.path] = pair.image
        for file in list(files.values()):
            if file.behaviour == "redirect":
                files[file.site, file.target] = replace(file, path=file.target, behaviour="picture", target="")
        return files

    def image_url(self, image: ImageFile | str) -> str:
        """The absolute address of an image."""
        return image if isinstance(image, str) else self.origin(image.site) + image.path

    def page_url(self, page: Page) -> str:
        """The absolute address of a page."""
        return self.origin(page.site) + page.path

    @property
    def disallowed_urls(self) -> tuple[str, ...]:
        """Pages that are linked to, but that robots.txt forbids."""
        return tuple(self.page_url(page) for page in self.pages if page.is_disallowed)

    def truth(self) -> list[Truth]:
        """One record for each pair that a crawl must find, in the order of the pages."""
        return [
            Truth(
                page_url=self.page_url(page),
                image_url=self.image_url(pair.image),
                caption=pair.caption,
                reason=pair.reason,
                group=pair.group,
                nuisance=pair.nuisance,
                combinations=_shown(pair.image),
            )
            for page in self.pages
            if not page.is_disallowed
            for pair in page.pairs
        ]

    def expected_counts(self) -> dict[str, int]:
        """Pairs by verdict, "kept" among them. In each group one is kept."""
        records = self.truth()
        counts = Counter(record.reason or "kept" for record in records)
        for group in {record.group: record for record in records if record.group is not None}.values():
            counts[group.reason or "kept"] -= 1
            counts["kept"] += 1
        return dict(sorted(counts.items()))


def _shown(image: ImageFile | str) -> tuple[str, ...]:
    if isinstance(image, str) or image.scene is None:
        return ()
    return tuple(combination.name for combination in image.scene.combinations)


# --- pages ------------------------------------------------------------------------------------------------------------


def _lay_out(config: TinyWebConfig) -> tuple[Page, ...]:
    by_site: dict[int, list[Pair]] = {site: [] for site in range(config.sites)}
    for pair in plan_pairs(config):
        by_site[pair.site].append(pair)
    return tuple(page for site, pairs in by_site.items() for page in _site_pages(config, site, pairs))


def _site_pages(config: TinyWebConfig, site: int, pairs: list[Pair]) -> Iterator[Page]:
    """First page -> sections -> lists -> close-ups: three links deep at most."""
    kind = SITE_KINDS[site % len(SITE_KINDS)]
    shuffled = sorted(enumerate(pairs), key=lambda item: Draws(config.seed, "shuffle", site, item[0]).digest("order"))
    ordinary = [pair for _, pair in shuffled if pair.home == "ordinary"]
    special = list(_special_pages(site, kind, pairs))
    sections = list(_chunks(list(_chunks(ordinary, PAIRS_PER_PAGE[kind])), PAGES_PER_SECTION))
    section_links = tuple((f"/{number}/", f"Section {number}") for number in range(1, len(sections) + 1))
    special_links = tuple((page.path, page.title) for page in special)
    yield _finished(config, Page(site, kind, "/", f"Welcome to {kind} {site + 1}", links=section_links + special_links))
    for page in special:
        yield _finished(config, page)
    for number, contents in enumerate(sections, 1):
        yield from _section_pages(config, site, kind, number, contents)


def _section_pages(
    config: TinyWebConfig, site: int, kind: SiteKind, section: int, contents: list[list[Pair]]
) -> Iterator[Page]:
    paths = [
        PAGE_PATHS[kind].format(section=section, page=number, name=f"day-{number}")
        for number in range(1, len(contents) + 1)
    ]
    links = tuple((path, f"Page {number}") for number, path in enumerate(paths, 1))
    yield _finished(config, Page(site, kind, f"/{section}/", f"Section {section}", links=links))
    for number, (path, pairs) in enumerate(zip(paths, contents, strict=True), 1):
        title = f"Section {section}, page {number}"
        onward = (("/", "Home"), (f"/{section}/", "Up"), *links[number : number + 1])
        if kind == "gallery" and len(pairs) > CLOSE_UPS_PER_PAGE:
            close_up = f"/albums/{section}/close-up-{number}.html"
            onward = ((close_up, "Close-ups"), *onward)
            yield _finished(
                config,
                Page(site, kind, close_up, f"{title}: close-ups", tuple(pairs[:CLOSE_UPS_PER_PAGE]), ((path, "Back"),)),
            )
            pairs = pairs[CLOSE_UPS_PER_PAGE:]
        yield _finished(config, Page(site, kind, path, title, tuple(pairs), onward))


def _special_pages(site: int, kind: SiteKind, pairs: list[Pair]) -> Iterator[Page]:
    """Pages that opt out, that robots.txt forbids, and that are broken HTML."""
    opt_outs: dict[Home, OptOut] = {"opt_out_header": "header", "opt_out_meta": "meta"}
    for home, path in SPECIAL_PATHS.items():
        at_home = [pair for pair in pairs if pair.home == home]
        for number, chunk in enumerate(_chunks(at_home, 8), 1):
            yield Page(
                site,
                kind,
                path.format(number=number),
                f"{SPECIAL_TITLES[home]} {number}",
                tuple(chunk),
                (("/", "Home"),),
                opt_out=opt_outs.get(home, ""),
                is_broken=home == "broken_html",
                is_disallowed=home == "disallowed",
            )


def _finished(config: TinyWebConfig, page: Page) -> Page:
    """The page with what is decided by its address: <base href>, and the logo that shops put on every page."""
    draws = Draws(config.seed, "page", page.site, page.path)
    base = draws.choice("base", ("/img/", "/uploads/2024/")) if draws.chance("has_base", BASE_SHARE) else ""
    pairs = page.pairs
    if page.kind == "shop" and not page.opt_out and not page.is_disallowed:
        logo = ImageFile(page.site, LOGO_PATH, look="logo")
        pairs = (Pair(page.site, logo, "logo", nuisance="logo", reason="short_caption"), *pairs)
    return replace(page, base="" if page.is_broken else base, pairs=pairs)


def _chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
