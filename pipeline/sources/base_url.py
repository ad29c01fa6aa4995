"""What the relative URLs of one page are relative to."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pipeline.sources.page import resolve

# URLs that joining leaves as they are, but for what stands before them: no white space, no backslash, no empty query.
_REST = r"(?:\?[^\x00-\x20\\#]+)?"
_WITH_HOST = re.compile(rf"(https?:)?//[A-Za-z0-9.:-]+(?:/[^\x00-\x20\\#?;]*{_REST})?")
_FROM_ROOT = re.compile(rf"/(?![/.])(?:[^\x00-\x20\\#?;/]|/(?!\.))*{_REST}")


class BaseUrl:
    """A page's base URL. `resolve` gives what `pipeline.sources.page.resolve` gives, sooner for the usual forms."""

    def __init__(self, page_url: str, href: str | None = None) -> None:
        """`href` is that of the page's first <base>, which counts if it leads to the web."""
        self._url = page_url
        if href is not None:
            base = resolve(page_url, href)
            self._url = base if _origin(base)[0] else page_url
        self._scheme, self._origin = _origin(self._url)

    def resolve(self, url: str) -> str:
        """`url` made absolute as a browser would, or as found if that is not possible."""
        if self._scheme:
            if found := _WITH_HOST.fullmatch(url):
                return url if found[1] else self._scheme + url
            if _FROM_ROOT.fullmatch(url):
                return self._origin + url
        return resolve(self._url, url)


def _origin(url: str) -> tuple[str, str]:
    """(`https:`, `https://HOST`) of an http(s) URL, else empty."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return "", ""
    return f"{parts.scheme}:", f"{parts.scheme}://{parts.netloc}"
