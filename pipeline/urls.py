"""The normal form of a URL: what makes two spellings of one address equal.

It identifies a row; the URL as it was found stays beside it. The steps are those of RFC 3986 section 6.2 (case,
percent-encoding, dot segments, default port) and of the WHATWG URL standard where browsers differ from it (white space,
backslashes), then the parameters that only track a visitor are taken off.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit

import idna

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_HOST_CHARS = 253  # RFC 1035

# Click and campaign identifiers; they change from visit to visit while the image stays the same.
TRACKING_PREFIX = "utm_"
TRACKING_PARAMETERS = frozenset(
    [
        "fbclid",
        "gclid",
        "gclsrc",
        "gbraid",
        "wbraid",
        "dclid",
        "msclkid",
        "yclid",
        "ysclid",
        "twclid",
        "ttclid",
        "igshid",
    ]
    + [
        "li_fat_id",
        "mc_cid",
        "mc_eid",
        "mkt_tok",
        "_hsenc",
        "_hsmi",
        "_ga",
        "_gl",
        "vero_id",
        "oly_anon_id",
        "oly_enc_id",
    ]
)

_CONTROLS_AND_SPACE = "".join(map(chr, range(0x21)))
_LINE_BREAKS = re.compile(r"[\t\n\r]")
_UNRESERVED = r"A-Za-z0-9._~\-"
_PATH_TO_MEND = re.compile(rf"%[0-9A-Fa-f]{{2}}|[^{_UNRESERVED}!$&'()*+,;=:@/]")
_QUERY_TO_MEND = re.compile(rf"%[0-9A-Fa-f]{{2}}|[^{_UNRESERVED}!$&'()*+,;=:@/?]")
_USER_TO_MEND = re.compile(rf"%[0-9A-Fa-f]{{2}}|[^{_UNRESERVED}!$&'()*+,;=:]")
_UNRESERVED_CHAR = re.compile(f"[{_UNRESERVED}]")
_ASCII_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# Most URLs of the web are normal as they are: plain host, no dot segment, nothing to decode, no query.
_PLAINLY_NORMAL = re.compile(
    rf"https?://([a-z0-9_-]{{1,63}}(?:\.[a-z0-9_-]{{1,63}})*)(?:/(?:[A-Za-z0-9_~-][{_UNRESERVED}]*)?)+"
)


def normalise_url(url: str) -> str | None:
    """The normal form of an http(s) URL, or None if `url` is not one, has no valid host or cannot be parsed.

    Applying it twice changes nothing more. The query's parameters keep their order, for it may matter to the server.
    """
    plain = _PLAINLY_NORMAL.fullmatch(url)
    if plain and len(plain[1]) <= MAX_HOST_CHARS:
        return url
    return _normalise(url)


def _normalise(url: str) -> str | None:
    try:
        parts = urlsplit(tidy(url))
        port = parts.port
        host = _normal_host(parts.hostname or "")
    except ValueError:  # a port that is no number, a broken IPv6 address, a host that Unicode folds into a path
        return None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS or host is None:
        return None
    netloc = _user(parts) + host + ("" if port in (None, DEFAULT_PORTS[scheme]) else f":{port}")
    path = _without_dot_segments(_mend(parts.path, _PATH_TO_MEND) or "/")
    query = _without_tracking(_mend(parts.query, _QUERY_TO_MEND))
    return f"{scheme}://{netloc}{path}" + (f"?{query}" if query else "")


def tidy(url: str) -> str:
    """`url` without the white space that browsers ignore, and with `/` where they read a backslash as one."""
    url = _LINE_BREAKS.sub("", url.strip(_CONTROLS_AND_SPACE))
    if "\\" not in url:
        return url
    end = min((at for at in (url.find("?"), url.find("#")) if at >= 0), default=len(url))
    return url[:end].replace("\\", "/") + url[end:]


def _user(parts: SplitResult) -> str:
    user, at, _ = parts.netloc.rpartition("@")
    return _mend(user, _USER_TO_MEND) + "@" if user and at else ""


def _normal_host(host: str) -> str | None:
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host).compressed}]"
    host = unquote(host)
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    host = host.lower().removesuffix(".")
    return host if len(host) <= MAX_HOST_CHARS and _ASCII_HOST.fullmatch(host) else None


def _mend(text: str, to_mend: re.Pattern[str]) -> str:
    """`text` in the normal form of percent-encoding (RFC 3986, 6.2.2): decoded where it may be, else in capitals."""
    return to_mend.sub(_mend_one, text)


def _mend_one(match: re.Match[str]) -> str:
    text = match[0]
    if len(text) == 1:
        return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
    char = chr(int(text[1:], 16))
    return char if _UNRESERVED_CHAR.fullmatch(char) else text.upper()


def _without_dot_segments(path: str) -> str:
    """`path`, which starts with a slash, with `.` and `..` resolved (RFC 3986, 5.2.4)."""
    if "/." not in path:
        return path
    *folders, last = path.split("/")[1:]
    if last in (".", ".."):
        folders, last = [*folders, last], ""
    kept: list[str] = []
    for folder in folders:
        if folder == "..":
            del kept[-1:]
        elif folder != ".":
            kept.append(folder)
    return "/" + "/".join([*kept, last])


def _without_tracking(query: str) -> str:
    return "&".join(field for field in query.split("&") if not _tracks(field))


def _tracks(field: str) -> bool:
    name = field.partition("=")[0].lower()
    return name.startswith(TRACKING_PREFIX) or name in TRACKING_PARAMETERS
