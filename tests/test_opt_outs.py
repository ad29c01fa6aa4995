"""What files and hosts say against their use: every place and spelling of it, and bytes of strangers that say nothing."""

from __future__ import annotations

import io
import json
import re
import zlib
from fnmatch import translate
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from downloaded_parts import Pair, write_facts, write_part
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from upath import UPath

from pipeline.config import ImageConfig
from pipeline.file_opt_out import MAX_PACKET_BYTES, PNG_XMP, file_opt_out
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.query import QueryConfig
from pipeline.tdm_rules import TdmRules

PLUS = "http://ns.useplus.org/ldf/xmp/1.0/"
VOCABULARY = "http://ns.useplus.org/ldf/vocab/"
TDM = "http://www.w3.org/ns/tdmrep/"


def packet(attributes: str = "", elements: str = "", prefix: str = "plus", namespace: str = PLUS) -> bytes:
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:{prefix}="{namespace}" {attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def stored(kind: str, xmp: bytes) -> bytes:
    """A picture with that XMP, as Pillow writes it."""
    buffer, options = io.BytesIO(), dict[str, Any]()
    if kind.startswith("PNG"):
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=kind == "PNG, compressed")
        options = {"pnginfo": info}
    else:
        options = {"xmp": xmp}
    Image.new("RGB", (20, 10), "teal").save(buffer, kind.split(",")[0], **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG, compressed", "WEBP"])
def test_it_is_found_where_each_format_keeps_it(kind: str) -> None:
    told = f'plus:DataMining="{VOCABULARY}DMI-PROHIBITED-AIMLTRAINING"'
    assert file_opt_out(stored(kind, packet(told))) == "DMI-PROHIBITED-AIMLTRAINING"
    assert file_opt_out(stored(kind, packet())) is None


@pytest.mark.parametrize(
    ("xmp", "expected"),
    [
        (packet(f'plus:DataMining="{VOCABULARY}DMI-PROHIBITED"'), "DMI-PROHIBITED"),
        (packet("plus:DataMining = 'DMI-PROHIBITED-SEECONSTRAINT'"), "DMI-PROHIBITED-SEECONSTRAINT"),
        (packet(f'plus:DataMining="{VOCABULARY}DMI-ALLOWED"'), None),
        (packet(f'plus:DataMining="{VOCABULARY}DMI-UNSPECIFIED"'), None),
        (packet(elements=f"<plus:DataMining>\n {VOCABULARY}DMI-PROHIBITED\n</plus:DataMining>"), "DMI-PROHIBITED"),
        (packet(elements=f'<plus:DataMining rdf:resource="{VOCABULARY}DMI-PROHIBITED"/>'), "DMI-PROHIBITED"),
        (packet(f'p:DataMining="{VOCABULARY}DMI-PROHIBITED"', prefix="p"), "DMI-PROHIBITED"),
        (packet(f'q:DataMining="{VOCABULARY}DMI-PROHIBITED"', prefix="p"), None),
        (packet(elements=f"<plus:OtherConstraints>{VOCABULARY}DMI-PROHIBITED</plus:OtherConstraints>"), None),
        (packet('tdm:reservation="1"', prefix="tdm", namespace=TDM), "tdm:reservation"),
        (packet('tdm:reservation="0"', prefix="tdm", namespace=TDM), None),
        (packet(elements="<t:reservation> 1 </t:reservation>", prefix="t", namespace=TDM), "tdm:reservation"),
        (packet(elements="<t:reservation>10</t:reservation>", prefix="t", namespace=TDM), None),
    ],
)
def test_each_spelling(xmp: bytes, expected: str | None) -> None:
    assert file_opt_out(stored("JPEG", xmp)) == expected


def test_a_caption_that_speaks_of_it_is_none() -> None:
    told = packet(f'plus:DataMining="{VOCABULARY}DMI-PROHIBITED"')
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "JPEG", comment=told)
    assert file_opt_out(buffer.getvalue()) is None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "PNG, compressed", "WEBP"]), st.integers(0, 700), st.binary(max_size=9))
def test_bytes_of_strangers_are_no_crash(kind: str, at: int, junk: bytes) -> None:
    body = stored(kind, packet(f'plus:DataMining="{VOCABULARY}DMI-PROHIBITED"'))
    for hostile in (
        body[:at],
        body[:at] + junk,
        body[:at] + junk + body[at:],
        body[:at] + junk + body[at + len(junk) :],
    ):
        assert file_opt_out(hostile) in (None, "DMI-PROHIBITED")


def test_a_packet_that_unpacks_to_gigabytes_or_never_ends_takes_no_time() -> None:
    bomb = PNG_XMP + b"\1\0\0\0" + zlib.compress(b"<plus:DataMining " + b" " * 50 * MAX_PACKET_BYTES)
    chunk = len(bomb).to_bytes(4, "big") + b"iTXt" + bomb + bytes(4)
    assert file_opt_out(b"\x89PNG\r\n\x1a\n" + chunk) is None
    for text in (
        "<!DOCTYPE x [<!ENTITY a 'aaaa'>]>&a;",
        "<plus:DataMining " * 60_000,
        "xmlns:" * 150_000,
        "plus:DataMining=" * 60_000,
    ):
        webp = b"RIFF\0\0\0\0WEBPXMP " + len(text).to_bytes(4, "little") + text.encode()
        assert file_opt_out(webp) is None


@pytest.mark.parametrize(
    ("obey", "expected"),
    [
        (True, [("opted_out_file", "DMI-PROHIBITED"), ("small_image", "9"), (None, None)]),
        (False, [(None, None), ("small_image", "9"), (None, None)]),
    ],
)
def test_such_an_image_is_dropped_unless_opt_outs_are_not_obeyed(
    tmp_path: Path, obey: bool, expected: list[tuple[str | None, str | None]]
) -> None:
    pairs = [
        Pair("0", file_opt_out="DMI-PROHIBITED"),
        Pair("1", file_opt_out="DMI-PROHIBITED", original_size_px=(9, 9)),
        Pair("2"),
    ]
    selected, download = write_part(tmp_path, 0, pairs)
    sources = image_sources([selected], [download], [write_facts(tmp_path, 0, pairs)], [])
    config = ImageVerdictsConfig(images=ImageConfig(), obey_opt_out=obey, query=QueryConfig(threads=1))
    result = IMAGE_VERDICTS.run(sources, UPath(tmp_path / "verdicts"), config)
    rows = pq.read_table(f"{result.out.path}/image_verdicts.parquet").to_pylist()
    assert [(row["drop_reason"], row["decided_by"]) for row in rows] == expected


def rules(*locations: tuple[str, object]) -> TdmRules:
    return TdmRules(json.dumps([{"location": at, "tdm-reservation": value} for at, value in locations]).encode())


@pytest.mark.parametrize(
    ("location", "url", "is_reserved"),
    [
        ("/", "http://a.example", True),
        ("/images/", "http://a.example/images/a.jpg", True),
        ("/images/", "http://a.example/Images/a.jpg", False),
        ("/images/$", "http://a.example/images/a.jpg", False),
        ("/*.jpg$", "http://a.example/x/y.jpg", True),
        ("/*.jpg$", "http://a.example/x/y.jpg?size=1", False),
        ("/*.jpg", "http://a.example/x/y.jpg?size=1", True),
        ("/a%7eb%2fc", "http://a.example/a~b%2Fc", True),
        ("/gr\u00fcn/", "http://a.example/gr%C3%BCn/a.jpg", True),
        ("/a/*/b", "http://a.example/a/b", False),
        ("/path/foo-%24", "http://a.example/path/foo-%24", True),
    ],
)
def test_where_a_reservation_holds(location: str, url: str, is_reserved: bool) -> None:
    assert rules((location, 1)).reserves(url) is is_reserved
    assert not rules((location, 0), ("/", 1)).reserves(url) or not is_reserved, "the first that matches decides"


@settings(max_examples=150, deadline=None)
@given(st.text("ab*", max_size=7), st.booleans(), st.text("ab", max_size=7))
def test_patterns_are_those_of_a_regular_expression(pattern: str, is_whole: bool, path: str) -> None:
    expression = translate(pattern).removesuffix(r"\Z").removesuffix(r"\z") + (r"\Z" if is_whole else "")
    expected = re.match(expression, path) is not None
    location = f"/{pattern}{'$' if is_whole else ''}"
    assert rules((location, 1)).reserves(f"http://a.example/{path}") is expected


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[" * 200_000, b"{}", b"7", b'[7, {"location": 7}, {"location": "/"}]', b"\xff\xfe"]
)
def test_what_is_no_file_of_rules_reserves_nothing(body: bytes) -> None:
    assert not TdmRules(body).reserves("http://a.example/a.jpg")
