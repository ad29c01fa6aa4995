from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import urls
from pipeline.addresses import is_public
from pipeline.urls import normalise_url


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTP://EXAMPLE.com/A.JPG", "http://example.com/A.JPG"),
        ("http://example.com:80/a", "http://example.com/a"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("https://example.com:80/a", "https://example.com:80/a"),
        ("http://example.com:/a", "http://example.com/a"),
        ("http://example.com./a", "http://example.com/a"),
        ("http://example.com/a#top", "http://example.com/a"),
        ("http://example.com/%7ebob/%2fx%c3%a9", "http://example.com/~bob/%2Fx%C3%A9"),
        ("http://example.com/caf\u00e9 x.jpg", "http://example.com/caf%C3%A9%20x.jpg"),
        ("http://example.com/100%.jpg", "http://example.com/100%25.jpg"),
        ("http://example.com/a/./b/../c/.", "http://example.com/a/c/"),
        ("http://example.com/../../a", "http://example.com/a"),
        ("http://example.com/a/%2e%2E/b", "http://example.com/b"),
        ("http://example.com/a/..", "http://example.com/"),
        ("http://example.com/a?", "http://example.com/a"),
        ("http://example.com/a?utm_source=x&w=2&fbclid=3&h=1", "http://example.com/a?w=2&h=1"),
        ("http://example.com/a?UTM_Medium=x", "http://example.com/a"),
        ("http://example.com/a?b=2&a=1&b=2", "http://example.com/a?b=2&a=1&b=2"),
        ("http://example.com/a?q=/?:@%3d", "http://example.com/a?q=/?:@%3D"),
        ("http://b\u00fccher.example/a", "http://xn--bcher-kva.example/a"),
        ("http://B\u00dcCHER.example/a", "http://xn--bcher-kva.example/a"),
        ("http://[2001:DB8:0:0::1]:8080/a", "http://[2001:db8::1]:8080/a"),
        ("  http://example.com/a\nb ", "http://example.com/ab"),
        ("http:\\\\example.com\\a?b\\c", "http://example.com/a?b%5Cc"),
        ("http://user:pw@example.com/a", "http://user:pw@example.com/a"),
        ("http://my_host.example/a", "http://my_host.example/a"),
    ],
)
def test_normal_form(url: str, normal: str) -> None:
    assert normalise_url(url) == normal


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.jpg",
        "/a.jpg",
        "//example.com/a",
        "ftp://example.com/a",
        "data:image/gif;base64,R0",
        "javascript:void(0)",
        "http://",
        "http:///a",
        "http://exa mple.com/",
        "http://a..b/",
        "http://example.com:port/",
        "http://example.com:99999/",
        "http://[::1/",
        "http://[::g]/",
        "http://" + "a." * 130 + "com/",
        "http://-\u00e9-.example/",
    ],
)
def test_what_is_no_web_address_has_no_normal_form(url: str) -> None:
    assert normalise_url(url) is None


PIECES = st.sampled_from(
    [
        "http://",
        "https://",
        "HTTP:",
        "a",
        "Z",
        "b.example",
        ".",
        "..",
        "/",
        "//",
        "%",
        "%2e",
        "%7E",
        "%c3%a9",
        "%zz",
        "?",
    ]
    + [
        "&",
        "=",
        "#",
        ":",
        "80",
        "@",
        "utm_x=1",
        "%75tm_x=1",
        "\\",
        " ",
        "\n",
        "\u00e9",
        "\u3002",
        "\uff21",
        "[::1]",
        "+",
        "'",
    ]
)
URLS = st.lists(PIECES, max_size=12).map("".join)


@given(st.one_of(st.text(), URLS, URLS.map("http://h.example/".__add__)))
def test_it_is_idempotent_and_always_a_plain_ascii_url(url: str) -> None:
    normal = normalise_url(url)
    if normal is not None:
        assert normalise_url(normal) == normal
        assert normal.isascii() and " " not in normal and normal.startswith(("http://", "https://"))


@given(st.from_regex(urls._PLAINLY_NORMAL, fullmatch=True))
def test_the_shortcut_says_what_the_long_way_says(url: str) -> None:
    if normalise_url(url) is not None:
        assert urls._normalise(url) == url


PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "[2606:4700::1111]", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NOT_PUBLIC = [
    *["127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "224.0.0.1"],
    *["0.0.0.0", "0.1.2.3", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1"],
    *["::", "::1", "[::1]", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1"],
    *["::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::"],
    *["localhost", "", "127.1", "0x7f.1", "2130706433"],
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_of_ones_own_network(address: str) -> None:
    assert not is_public(address)
