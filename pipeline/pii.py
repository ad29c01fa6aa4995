"""Personal data in captions, masked: e-mail addresses, IP addresses, payment card and telephone numbers.

A caption keeps the fact that something stood there, as a token, and loses the thing. Precision goes first, for captions are
full of numbers that are nobody's (years, sizes, ISBNs, catalogue numbers): digits are a telephone number if they are
written as one, with `+`, an area code in brackets or a national form, or if a word such as `tel` stands before them.
Every pattern is bounded or takes a whole run of its characters at once, so the time is linear in the caption.
"""

from __future__ import annotations

import ipaddress
import re

KINDS = ("email", "ip", "card", "phone")  # in the order in which they are looked for, and told

_TRIGGER = re.compile(r"[\d@]")

# Addresses are not only ASCII. Scripts that are written without blanks are left out: they would run into the address.
_LETTERS = "A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff"
_LOCAL = rf"[{_LETTERS}0-9._%+-]"
_EMAIL = re.compile(
    rf"""
    (?<!{_LOCAL}) {_LOCAL}{{1,64}}+ @
    (?:[{_LETTERS}0-9-]{{1,63}}+\.){{1,8}}
    (?!(?:png|jpe?g|gif|webp|svg|avif|bmp|tiff?|heic|pdf)\b)  # icon@2x.png is a file
    (?:xn--[a-z0-9-]{{1,59}}|[{_LETTERS}]{{2,24}}) (?![{_LETTERS}0-9])
    """,
    re.IGNORECASE | re.VERBOSE,
)

_IPV4 = re.compile(r"(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\w|\.\d)")
# What stands before four numbers that are no address: version 1.2.3.4, section 1.2.3.4, >=1.2.3.4.
_VERSION_WORD = re.compile(
    r"(?:\b(?:v|ver|versions?|rev|release|build|firmware|section|chapter)[.:-]?|[<>=~!]=)\s?\Z", re.IGNORECASE
)
VERSION_CHARS = 12  # so far before the numbers such a word is looked for
_IPV6 = re.compile(r"(?<![\w:.])[0-9a-f:]{4,64}+(?:(?:\.\d{1,3}){3})?(?!\w)", re.IGNORECASE)
# A first group of four digits, as all addresses in use have, tells an address from times, scores and C++ names.
_IPV6_START = re.compile(r"[0-9a-f]{4}:|::ffff:\d", re.IGNORECASE)

_SEPARATOR = r"[ ().\-/\u2010-\u2013]{0,2}"
_DENSE = re.compile(rf"\d(?:{_SEPARATOR}\d){{6}}")  # fewer digits are neither a card nor a telephone

_CARD = re.compile(
    r"(?<![\w.,+-])(?:\d{14,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5})(?!\w|[.,-]\d)"
)
# Issuers' prefixes and lengths: Visa, Mastercard, American Express, Diners, JCB, Discover and UnionPay.
_ISSUED = re.compile(
    r"4\d{15}(?:\d{3})?|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}|6(?:011|2\d\d|4[4-9]\d|5\d\d)\d{12,15}"
)

_START = r"(?<![\w$\u20ac\u00a3\u00a5+.,#])(?<!\w-)"
_END = r"(?:\s?(?:ext\.?|x)\s?\d{1,5})?(?!\w|-\d)"
_PHONES = tuple(
    (needle, re.compile(pattern, re.IGNORECASE | re.VERBOSE))
    for needle, pattern in (  # the needle saves most searches
        # E.164: +1 (212) 555-0199; +44 20 7946 0958, (+49) 30 123456; 0044 20 7946 0958
        ("+1", rf"(?<![\w+])\(?\+1\)?{_SEPARATOR}[2-9]\d\d{_SEPARATOR}\d{{3}}{_SEPARATOR}\d{{4}}{_END}"),
        ("+", rf"(?<![\w+])(?:\(\+[2-9]\d{{0,2}}\)|\+[2-9])(?:{_SEPARATOR}\d){{6,13}}{_END}"),
        ("00", rf"{_START}00[1-9]\d{{0,2}}[\ -](?:{_SEPARATOR}\d){{6,12}}{_END}"),
        # North America: (212) 555-0199; 1-800-555-0199
        ("(", rf"{_START}(?:1[\ .-])?\([2-9]\d\d\)[\ -]?[2-9]\d\d[\ .-]\d{{4}}{_END}"),
        ("", rf"{_START}(?:1[\ .-])?[2-9]\d\d(?P<mark>[.-])[2-9]\d\d(?P=mark)\d{{4}}{_END}"),
        # an area code in brackets: (020) 7946 0958, (11) 98765-4321
        ("(", rf"{_START}(?:\(0[1-9]\d{{0,3}}\)\ ?\d{{3,5}}[\ -]?\d{{3,5}}|\([1-9]\d\)\ ?9?\d{{4}}-\d{{4}}){_END}"),
        # a trunk zero and four pairs, no more: 01 23 45 67 89
        (
            "0",
            rf"{_START}(?<!/)(?<!\d[\ .-])0[1-9](?P<mark>[\ .-])\d\d(?:(?P=mark)\d\d){{3}}(?!(?P=mark)\d\d(?!\d)){_END}",
        ),
        # a trunk zero and 9 or 10 digits more, in groups: 020 7946 0958, 0171/1234567
        (
            "0",
            rf"""{_START}(?<!/)(?<!\d[\ .-])0[1-9](?=\d{{0,3}}\ ?[/\ -])(?!\d?[\ -]\d\d[\ -]\d\d[\ -])
            (?:(?:\ ?[/-]\ ?|\ )?\d){{8,9}}{_END}""",
        ),
    )
)
_ANY_PHONE = re.compile(rf"(?<!\d)\(?\d(?:{_SEPARATOR}\d){{6,14}}{_END}", re.IGNORECASE)
# What a telephone number is called, in the languages with the most captions; then at most two words and a few marks.
_CALLED = re.compile(
    r"""(?:(?<!\w)(?:
      tel|phone|ph|telephone|mobile|mob|cell|cellphone|call|text|sms|fax|hotline|whats\s?app|viber   # English
    | t[\u00e9e]l[\u00e9e]phone|portable|telefon|handy|telefono|cellulare|tel[\u00e9e]fono|m[\u00f3o]vil|telefone|celular
    | \u0442\u0435\u043b|\u0442\u0435\u043b\u0435\u0444\u043e\u043d                                # Russian: tel, telefon
    )(?!\w)
    | [\u260e\u260f\u2706\U0001f4de\U0001f4f1]                                                       # signs of a telephone
    | \u7535\u8bdd|\u96fb\u8a71|\u624b\u673a|\u643a\u5e2f|\uc804\ud654)                            # Chinese, Japanese, Korean
    (?:\W{1,2}(?:no|nr|number|us|me|at|on|is)(?!\w)){0,2}[\s:.#+-]{0,4}\Z""",
    re.IGNORECASE | re.VERBOSE,
)
CALLED_CHARS = 32  # so far before a number its name is looked for
_DATE = re.compile(r"(?:\d{1,2}([-/. ])\d{1,2}\1(?:19|20)\d\d|(?:19|20)\d\d([-/.])\d{1,2}\2\d{1,2})(?!\d)")
_DECIMAL = re.compile(r"\d\.\d{5}")
_YEARS = re.compile(r"(?:19|20)\d\d(?:\D+(?:19|20)\d\d)+")


def mask(caption: str) -> tuple[str, tuple[str, ...]]:
    """The caption with a token, such as `<email>`, for each find, and the kinds found, in the order of KINDS.

    Masking what is masked changes nothing more.
    """
    if _TRIGGER.search(caption) is None:
        return caption, ()
    kinds: list[str] = []
    text = caption
    for kind, find in (("email", _mask_emails), ("ip", _mask_ips), ("card", _mask_cards), ("phone", _mask_phones)):
        masked = find(text)
        if masked != text:
            kinds.append(kind)
            text = masked
    return text, tuple(kinds)


def _mask_emails(text: str) -> str:
    return _EMAIL.sub("<email>", text) if "@" in text else text


def _mask_ips(text: str) -> str:
    if text.count(":") >= 2:
        text = _IPV6.sub(_ipv6, text)
    return _IPV4.sub(_ipv4, text) if text.count(".") >= 3 else text


def _mask_cards(text: str) -> str:
    return _CARD.sub(_card, text) if _DENSE.search(text) else text


def _mask_phones(text: str) -> str:
    if _DENSE.search(text) is None:
        return text
    for needle, pattern in _PHONES:
        if needle in text:
            text = pattern.sub(_phone, text)
    return _ANY_PHONE.sub(_called_phone, text)


def _ipv4(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - VERSION_CHARS) : match.start()]
    # Addresses of hosts begin and end with another number than zero.
    is_host = not match[0].startswith("0") and not match[0].endswith(".0")
    if not is_host or not _is_address(match[0]) or _VERSION_WORD.search(before):
        return match[0]
    return "<ip>"


def _ipv6(match: re.Match[str]) -> str:
    address = match[0]
    if address.endswith(":") and not address.endswith("::"):  # a colon of the sentence
        address = address[:-1]
    if not _IPV6_START.match(address) or not _TRIGGER.search(address) or not _is_address(address):
        return match[0]
    return "<ip>" + match[0][len(address) :]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _card(match: re.Match[str]) -> str:
    digits = _digits(match[0])
    return "<card>" if _ISSUED.fullmatch(digits) and _passes_luhn(digits) else match[0]


def _passes_luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1."""
    values = [int(digit) for digit in reversed(digits)]
    return sum(values[0::2] + [sum(divmod(2 * value, 10)) for value in values[1::2]]) % 10 == 0


def _phone(match: re.Match[str]) -> str:
    """The token, unless the match is a date, a coordinate, years or a round number."""
    number = match[0]
    is_other = _DATE.match(number.lstrip("(")) or _DECIMAL.search(number) or _YEARS.fullmatch(number)
    return number if is_other or _digits(number).endswith("000000") else "<phone>"


def _called_phone(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - CALLED_CHARS) : match.start()]
    return _phone(match) if _CALLED.search(before) else match[0]


def _digits(text: str) -> str:
    return "".join(str(int(char)) for char in text if char.isdecimal())
