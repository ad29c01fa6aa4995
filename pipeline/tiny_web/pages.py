"""The HTML of the tiny web: galleries, blogs and shops as people write them, with a few careless pages among them."""

from __future__ import annotations

import posixpath
from html import escape

from pipeline.tiny_web.draws import Draws
from pipeline.tiny_web.pairs import PIXEL, ImageFile, Pair
from pipeline.tiny_web.world import Page, World

THUMBNAIL_SUFFIX = "-s"
"""`/img/x-s.jpg` is the small version of `/img/x.jpg` that some srcset name."""
SENTENCES = (
    "We add new pictures every week, so come back soon.",
    "All of them were made by our members.",
    "If you like what you see, tell your friends.",
    "Write to us when you find a mistake.",
    "Prices are in euros and include taxes.",
    "It rained all day, but the walk was worth it.",
)


def render_page(world: World, page: Page) -> str:
    """The page as its site sends it, UTF-8 to be."""
    if page.is_broken:
        return _broken_document(world, page)
    body = "\n".join(_figure(world, page, number, pair) for number, pair in enumerate(page.pairs))
    base = f'<base href="{page.base}">\n' if page.base else ""
    robots = '<meta name="robots" content="noimageai, noai">\n' if page.opt_out == "meta" else ""
    draws = Draws(world.config.seed, "prose", page.site, page.path)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(page.title)}</title>\n{base}{robots}</head>\n<body>\n<h1>{escape(page.title)}</h1>\n"
        f"<p>{escape(draws.choice('first', SENTENCES))} {escape(draws.choice('last', SENTENCES))}</p>\n"
        f"<main>\n{body}\n</main>\n<nav>\n{_navigation(world, page)}\n</nav>\n"
        f"{_footer(world, page)}\n</body>\n</html>\n"
    )


def _navigation(world: World, page: Page) -> str:
    links = (f'<li><a href="{escape(_link(world, page, path))}">{escape(text)}</a></li>' for path, text in page.links)
    return "<ul>\n" + "\n".join(links) + "\n</ul>"


def _footer(world: World, page: Page) -> str:
    """Sites link to each other, and to what is no page at all."""
    friend = (page.site + 1) % world.config.sites
    return (
        f'<footer><a href="{world.origin(friend)}/">Our friends</a> <a href="mailto:hello@example.org">Mail</a> '
        f'<a href="javascript:void(0)">Print</a> <a href="{page.path}#top">Top</a></footer>'
    )


def _link(world: World, page: Page, path: str) -> str:
    """The same place as a relative link, a path or a full address, as the author liked."""
    form = Draws(world.config.seed, "link", page.site, page.path, path).choice("form", ("relative", "path", "absolute"))
    if form == "absolute":
        return world.origin(page.site) + path
    return _relative(page, path) if form == "relative" else path


def _image_address(world: World, page: Page, image: ImageFile | str) -> str:
    if isinstance(image, str):
        return image
    draws = Draws(world.config.seed, "src", page.site, page.path, image.path)
    if image.site != page.site:
        address = world.image_url(image)
        return address.removeprefix("http:") if draws.chance("is_schemeless", 0.3) else address
    form = draws.choice("form", ("relative", "relative", "path", "absolute", "schemeless"))
    if form in ("absolute", "schemeless"):
        address = world.image_url(image)
        return address if form == "absolute" else address.removeprefix("http:")
    return _relative(page, image.path) if form == "relative" else image.path


def _relative(page: Page, path: str) -> str:
    """`path` as seen from the page, or from its <base href>."""
    start = (page.base or page.path).rpartition("/")[0] or "/"
    relative = posixpath.relpath(path, start)
    return relative + "/" if path.endswith("/") and relative != "." else relative if relative != "." else "./"


# --- images: a caption stands in exactly one place, so that there is no doubt which text is meant ---------------------


def _figure(world: World, page: Page, number: int, pair: Pair) -> str:
    address = escape(_image_address(world, page, pair.image))
    if pair.caption is None:
        return f'<p><img src="{address}"></p>'
    draws = Draws(world.config.seed, "markup", page.site, page.path, number)
    caption = escape(pair.caption)
    is_special = isinstance(pair.image, str) or not pair.caption.strip() or pair.nuisance == "logo"
    if page.kind == "gallery" or is_special:
        return f'<a href="{page.path}#picture-{number}"><img src="{address}" alt="{caption}"></a>'
    if page.kind == "blog":
        return _blog_figure(draws, address, caption)
    return _shop_figure(draws, address, caption)


def _blog_figure(draws: Draws, address: str, caption: str) -> str:
    if draws.chance("has_alt_text", 0.4):
        return f'<p>{draws.choice("sentence", SENTENCES)} <img src="{address}" alt="{caption}" loading="lazy"></p>'
    words = caption.split(" ")
    if len(words) > 4 and draws.chance("has_emphasis", 0.3):
        words[2] = f"<em>{words[2]}</em>"
    alt = draws.choice("alt", ("", ' alt=""'))
    return f'<figure>\n<img src="{address}"{alt}>\n<figcaption>\n  {" ".join(words)}\n</figcaption>\n</figure>'


def _shop_figure(draws: Draws, address: str, caption: str) -> str:
    """The largest of a srcset is the one in src as well."""
    small = thumbnail_of(address)
    kind = draws.choice("kind", ("alt", "title", "srcset", "density", "lazy", "lazy_placeholder"))
    image = {
        "alt": f'<img src="{address}" alt="{caption}" width="160">',
        "title": f'<img src="{address}" title="{caption}">',
        "srcset": f'<img src="{address}" srcset="{small} 80w, {address} 160w" sizes="160px" alt="{caption}">',
        "density": f'<img src="{address}" srcset="{small} 0.5x, {address} 1x" alt="{caption}">',
        "lazy": f'<img class="lazy" data-src="{address}" alt="{caption}">',
        "lazy_placeholder": f'<img class="lazy" src="{PIXEL}" data-src="{address}" alt="{caption}">',
    }[kind]
    price = int(draws.between("price", 3, 90))
    return f'<article class="product">\n{image}\n<p>{price}.90 €, in stock</p>\n</article>'


def thumbnail_of(address: str) -> str:
    """The address of the small version."""
    stem, dot, ending = address.rpartition(".")
    return f"{stem}{THUMBNAIL_SUFFIX}{dot}{ending}"


def _broken_document(world: World, page: Page) -> str:
    """No doctype, nothing closed, attributes without quotes, stray ends, a bare < and &: browsers show it anyway."""
    images = "\n".join(
        f"<td><IMG SRC={_image_address(world, page, pair.image)} ALT='{escape(pair.caption or '')}' border=0>"
        "<br>5 < 6 & so on"
        for pair in page.pairs
    )
    links = " <li>".join(f"<A HREF={_link(world, page, path)}>{escape(text)}" for path, text in page.links)
    return (
        f"<html><title>{escape(page.title)}</title></head><body bgcolor=#ffffcc><center><font color=red><h1>Welcome!\n"
        f"</p></div><table><tr>{images}\n</b></span></table><ul><li>{links}\n<!-- never closed properly --->\n"
    )
