"""Personal data in captions: what is masked, what only looks like it, and that no text takes long."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import pii
from pipeline.pii import KINDS, mask

MASKED = [
    ("write to ann.example+x@sub.example.co.uk now", "write to <email> now", "email"),
    ("jos\u00e9@ex\u00e4mple.fr", "<email>", "email"),
    ("\u8054\u7cfbfoo@bar.com\u5427", "\u8054\u7cfb<email>\u5427", "email"),
    ("(foo@bar.com).", "(<email>).", "email"),
    ("mailto:foo@bar.xn--p1ai", "mailto:<email>", "email"),
    ("a@b.com, c@d.org", "<email>, <email>", "email"),
    ("server 192.168.1.254:8080/x", "server <ip>:8080/x", "ip"),
    ("8.8.8.8, 1.1.1.1.", "<ip>, <ip>.", "ip"),
    ("at 2001:db8::1: up", "at <ip>: up", "ip"),
    ("2001:0DB8:85a3:0000:0000:8a2e:0370:7334", "<ip>", "ip"),
    ("[fe80::1]", "[<ip>]", "ip"),
    ("::ffff:10.1.2.3", "<ip>", "ip"),
    ("2001:db8::", "<ip>", "ip"),
    ("card 4111 1111 1111 1111 ok", "card <card> ok", "card"),
    ("4111111111111111", "<card>", "card"),
    ("3782-822463-10005", "<card>", "card"),
    ("5555-5555-5555-4444,", "<card>,", "card"),
    ("6011000990139424", "<card>", "card"),
    ("30569309025904", "<card>", "card"),
    ("Ann (212) 555-0199", "Ann <phone>", "phone"),
    ("1-800-555-0199", "<phone>", "phone"),
    ("212.555.0199 x12!", "<phone>!", "phone"),
    ("212-555-0198/212-555-0199", "<phone>/<phone>", "phone"),
    ("+1 (212) 555-0199", "<phone>", "phone"),
    ("+12125550199", "<phone>", "phone"),
    ("+44 20 7946 0958", "<phone>", "phone"),
    ("(+44) 20 7946 0958", "<phone>", "phone"),
    ("+49 (0)30 123456", "<phone>", "phone"),
    ("0049 30 1234567", "<phone>", "phone"),
    ("020 7946 0958", "<phone>", "phone"),
    ("(020) 7946 0958", "<phone>", "phone"),
    ("Paris 01 23 45 67 89 or 01.23.45.67.80", "Paris <phone> or <phone>", "phone"),
    ("0171/1234567", "<phone>", "phone"),
    ("07700 900123", "<phone>", "phone"),
    ("(11) 98765-4321", "<phone>", "phone"),
    ("call us at 212 555 0199 today", "call us at <phone> today", "phone"),
    ("Tel. no.: 555 0199", "Tel. no.: <phone>", "phone"),
    ("Fax +49 30/123456-78", "Fax <phone>", "phone"),
    ("WhatsApp 9876543210", "WhatsApp <phone>", "phone"),
    ("\u8054\u7cfb\u7535\u8bdd13812345678", "\u8054\u7cfb\u7535\u8bdd<phone>", "phone"),
    ("\U0001f4de 9876543210", "\U0001f4de <phone>", "phone"),
    ("tel \u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667", "tel <phone>", "phone"),
    ("+44 20 7946 0958 5105105105105100 10.0.0.1 a@b.com", "<phone> <card> <ip> <email>", "email,ip,card,phone"),
]
KEPT = [
    *["", "a cat", "in 2016", "1990-2000", "1914-1918, 1939-1945", "2012 2013 2014 2015", "Samsung phone 2019 2020"],
    *["1920x1080", "1920 x 1080 px", "3840 x 2160 (16:9)", "(1999) 1080-2160", "50 x 70 x 120 cm", "50 000 000"],
    *["2016-07-16", "16/07/2016 10:30", "05/12/2016 10:30", "01/02/2016 1030", "01 02 2016 1030", "20160716113957"],
    *["phone 2016-07-16 10", "12:30:45", "10:11:12:13", "00:1A:2B:3C:4D:5E", "00:1A:2B:FF:FE:3C:4D:5E"],
    *["ISBN 978-0-306-40615-7", "ISBN 0-306-40615-2", "9780306406157", "ISBN 0306406152", "ISSN 0317-8471"],
    *["EAN 4006381333931", "N01234", "Part 123-456-789", "AB-212-555-0199", "SKU 0012345678", "Lot 212 555 0199"],
    *["$1,234.56", "$212-555-0199", "1.234.567,00 EUR", "10,000,000", "+500 000 000 views", "1 000 000 000"],
    *["1.2.3", "version 1.2.3.4", "v10.0.0.1", "Version: 4.14.1.94", "Chrome 90.0.4430.93", "section 1.2.3.4", ">=1.2.3.4"],
    *["3.10.0.0", "256.1.1.1", "1.2.3.4.5", "std::vector A::B", "dead::beef", "4:3::2"],
    *["icon@2x.png", "@handle", "me @ home.com", "user@host", "5@3.50", "a@b.c"],
    *["1234567890123456", "4111111111111112", "4111-1111-11111111", "9999 9999 9999 9995", "0.4111111111111111"],
    *["IMG_20200102_101112~2.jpg", "20160716_113957.JPG", "Screenshot 2020-01-02-10-11-12", "DSC_4111111111111111"],
    *["Nokia phone 3310", "call of 1234", "phone 1234567890123456", "textile 5550199123", "iphone 5550199"],
    *["40.7128, -74.0060", "+40.712776 -74.005974", "f/2.8 1/250 ISO 400", "01 02 03 04 05 06 07 08", "3f 01 00 00 00 50 32"],
]  # fmt: skip


@pytest.mark.parametrize(("caption", "masked", "kinds"), MASKED)
def test_what_is_masked(caption: str, masked: str, kinds: str) -> None:
    assert mask(caption) == (masked, tuple(kinds.split(",")))
    assert mask(f"A red cat, {caption}; again {caption}") == (
        f"A red cat, {masked}; again {masked}",
        tuple(kinds.split(",")),
    )


@pytest.mark.parametrize("caption", KEPT)
def test_what_only_looks_like_it(caption: str) -> None:
    assert mask(caption) == (caption, ())
    assert mask(f"A red cat, {caption}, on a mat") == (f"A red cat, {caption}, on a mat", ())


PIECES = st.sampled_from(
    [
        "a",
        "@",
        ".com",
        "b.c",
        "1",
        "2125550199",
        "212",
        "-",
        " ",
        ".",
        ":",
        "::",
        "2001:db8",
        "+",
        "(",
        ")",
        "/",
        "00",
        "tel ",
    ]
    + ["10.0.0.1", "4111 1111 1111 1111", "0", "x", "\u00e9", "\u0663", "<phone>", "2016", "png", "555-0199"]
)


@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=40))
def test_masking_is_idempotent_and_only_replaces(caption: str) -> None:
    masked, kinds = mask(caption)
    assert mask(masked) == (masked, ())
    assert (masked == caption) == (kinds == ())
    assert list(kinds) == [kind for kind in KINDS if kind in kinds]
    assert all(f"<{kind}>" in masked for kind in kinds)
    # What is left stands in the caption, in the same order.
    rest = [re.escape(piece) for piece in re.split("<(?:email|ip|card|phone)>", masked)]
    assert re.fullmatch(".*".join(rest), caption, re.DOTALL)


@given(st.text(st.characters(exclude_characters="@", exclude_categories=["Nd"])))
def test_no_digit_and_no_at_sign_is_no_work(caption: str) -> None:
    assert mask(caption) == (caption, ())


def luhn_slowly(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def test_cards_are_those_of_issuers_with_the_check_digit() -> None:
    rng = random.Random(0)
    lengths = {
        "4": 16,
        "51": 16,
        "2221": 16,
        "2720": 16,
        "34": 15,
        "37": 15,
        "36": 14,
        "3528": 16,
        "6011": 16,
        "62": 16,
    }
    seen = {True: 0, False: 0}
    for _ in range(2_000):
        prefix = rng.choice(list(lengths))
        number = prefix + "".join(rng.choices("0123456789", k=lengths[prefix] - len(prefix)))
        assert pii._passes_luhn(number) == luhn_slowly(number)
        is_card = mask(number) == ("<card>", ("card",))
        assert is_card == luhn_slowly(number)
        seen[is_card] += 1
    assert min(seen.values()) > 100
    for prefix in ("0", "1", "2220", "2721", "50", "7", "8", "9"):
        assert mask(next(n for n in (f"{prefix}{i:0{16 - len(prefix)}}" for i in range(99)) if luhn_slowly(n)))[1] != (
            "card",
        )


UNITS = [
    "a",
    "1",
    "@",
    "a@",
    "a.",
    "1.",
    "1 ",
    "1-",
    "f:",
    ":",
    "+",
    "+4",
    "(",
    "00 ",
    "tel ",
    "tel 1",
    "0 1 ",
    "a@a.",
    "a@b.com ",
]
UNITS += [
    "4111 1111 1111 1111 ",
    "1.1.1.1",
    "\u00e9",
    "01 ",
    "- ",
    "::ffff:1.",
    "a@" + "a" * 63 + ".",
    "(212) ",
    "call at ",
    "\u0660",
]


def seconds_of(caption: str) -> float:
    started = time.process_time()
    mask(caption)
    return time.process_time() - started


@pytest.mark.parametrize("unit", UNITS)
def test_a_megabyte_of_anything_takes_linear_time(unit: str) -> None:
    chars = 200_000
    text = (unit * chars)[:chars]
    for caption in (f"{text}1", f"@{text}", f"{text}@a.com 1", f"tel {text}", f"+{text}"):
        assert seconds_of(caption) < 3  # 0.2 s; were it quadratic, hours


def test_megabytes() -> None:
    for caption in ("a" * 1_000_000 + "@1", "1 " * 500_000, "a@" * 500_000, "1" * 1_000_000):
        assert seconds_of(caption) < 15
