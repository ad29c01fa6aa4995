"""What a site says to robots: the rules of robots.txt, and the opt-outs of X-Robots-Tag and of meta robots."""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from time import time

from protego import Protego

OPT_OUT_TOKENS = ("noai", "noimageai", "noindex", "noimageindex", "noml")
# Directives that are written "name: value"; any other "name:" in X-Robots-Tag addresses the robot of that name.
VALUE_DIRECTIVES = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))

_NAMED_IN_BROWSER_STYLE = re.compile(r"compatible;\s*([A-Za-z_-]+)", re.IGNORECASE)
_PRODUCT = re.compile(r"[A-Za-z_-]+")


def product_token(user_agent: str) -> str:
    """The name that robots rules address, lower case: `webimagetext` of `webimagetext/0.1 (...)` (RFC 9309, 2.2.1)."""
    named = _NAMED_IN_BROWSER_STYLE.search(user_agent)
    if named:
        return named[1].lower()
    product = _PRODUCT.match(user_agent.strip())
    return product[0].lower() if product else user_agent.lower()


def directives(values: Iterable[str], token: str) -> frozenset[str]:
    """The directives, lower case, that `values` of X-Robots-Tag give to all robots or to the one named `token`.

    `none` is given as `noindex` and `nofollow`, which it stands for.
    """
    found: set[str] = set()
    for value in values:
        addressee = "*"
        for item in value.lower().split(","):
            name, colon, rest = item.partition(":")
            if colon and name.strip() not in VALUE_DIRECTIVES:
                addressee, item = name.strip(), rest
            if addressee in ("*", token):
                found.add(item.strip())
    if "none" in found:
        found |= {"noindex", "nofollow"}
    return frozenset(found)


def opt_out(found: frozenset[str]) -> str | None:
    """The opt-out tokens among directives, comma-joined in a fixed order, or None."""
    return ",".join(token for token in OPT_OUT_TOKENS if token in found) or None


def retry_after_s(value: str) -> float:
    """How many seconds from now a Retry-After header asks to wait (RFC 9110, 10.2.3); 0 if it is neither number nor date."""
    value = value.strip()
    try:
        wait_s = float(value) if value.isdecimal() else parsedate_to_datetime(value).timestamp() - time()
    except ValueError:
        return 0.0
    return max(wait_s, 0.0)


class RobotsRules:
    """The robots.txt of one origin, as RFC 9309 reads it.

    `status` is that of the final response, None if there was none: 2xx is read, 3xx and 4xx allow everything (2.3.1.3),
    5xx and none forbid everything, for the rules may exist and cannot be known (2.3.1.4).
    """

    def __init__(self, status: int | None, body: bytes, token: str) -> None:
        self._token = token
        self.is_known = status is not None and 200 <= status < 500
        readable = status is not None and 200 <= status < 300
        self._rules = Protego.parse(body.decode("utf-8", "replace") if readable else "")

    def allows(self, url: str) -> bool:
        """Whether the robot may fetch `url`, a URL of this origin."""
        return self.is_known and bool(self._rules.can_fetch(url, self._token))

    @property
    def crawl_delay_s(self) -> float:
        """The pause that the site asks for, in seconds, 0 if it does not."""
        return float(self._rules.crawl_delay(self._token) or 0.0)
