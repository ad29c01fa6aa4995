"""The opt-out that an image carries in itself: its XMP, which is gone once the image is stored anew.

Read are `plus:DataMining` (IPTC Photo Metadata 2023.1; PLUS LDF: any of the values DMI-PROHIBITED...) and `tdm:reservation`
(TDM Reservation Protocol). The packet is searched, not parsed: no bytes of a stranger reach an XML parser, and what is not XML
is searched alike. Not read: an XMP that a JPEG continues in further segments, a file beside the image, C2PA.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from html import unescape

MAX_PACKET_BYTES = 1 << 20
PROHIBITED = "DMI-PROHIBITED"
TDM_RESERVED = "tdm:reservation"
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
JPEG_APP1, JPEG_START_OF_SCAN = 0xE1, 0xDA
PNG_MARK = b"\x89PNG\r\n\x1a\n"
PNG_XMP = b"XML:com.adobe.xmp\0"
# Namespace, the name in it, and the prefix that it bears where none is declared.
_DATA_MINING = ("http://ns.useplus.org/ldf/xmp/1.0/", "DataMining", "plus")
_RESERVATION = ("http://www.w3.org/ns/tdmrep/", "reservation", "tdm")


def file_opt_out(body: bytes) -> str | None:
    """What an image's XMP says against its use: DMI-PROHIBITED..., `tdm:reservation`, or None."""
    packet = next(_packets(body), None)
    if packet is None:
        return None
    text = packet[:MAX_PACKET_BYTES].decode("utf-8", "replace")
    for value in _values(text, *_DATA_MINING):
        term = re.search(rf"{PROHIBITED}[A-Z-]*", value)
        if term:
            return term[0]
    return TDM_RESERVED if any(value.strip() == "1" for value in _values(text, *_RESERVATION)) else None


def _values(text: str, namespace: str, name: str, usual_prefix: str) -> Iterator[str]:
    """The values of a property: an attribute, an element's text or its rdf:resource. Each quantifier has a bound."""
    declared = re.findall(rf"xmlns:([\w.-]{{1,40}})\s{{0,9}}=\s{{0,9}}[\"']{re.escape(namespace)}[\"']", text)
    prefixes = "|".join(re.escape(prefix) for prefix in sorted({*declared[:9], usual_prefix}))
    attribute = rf"\b(?:{prefixes}):{name}\s{{0,9}}=\s{{0,9}}[\"']([^\"'<]{{0,200}})[\"']"
    element = rf"<(?:{prefixes}):{name}(\s[^<>]{{0,400}})?>([^<]{{0,200}})"
    for found in re.finditer(attribute, text):
        yield unescape(found[1])
    for found in re.finditer(element, text):
        yield unescape(found[2])
        yield unescape(found[1] or "")


def _packets(body: bytes) -> Iterator[bytes]:
    if body.startswith(b"\xff\xd8"):
        return _of_jpeg(body)
    if body.startswith(PNG_MARK):
        return _of_png(body)
    if body.startswith(b"WEBP", 8):
        return _of_webp(body)
    return iter(())


def _of_jpeg(body: bytes) -> Iterator[bytes]:
    """XMP Specification, part 3, 1.1.3: an APP1 segment with a name of its own, before the first scan."""
    position = 2
    while position + 4 <= len(body) and body[position] == 0xFF and body[position + 1] != JPEG_START_OF_SCAN:
        if body[position + 1] == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(body[position + 2 : position + 4], "big")
        if body[position + 1] == JPEG_APP1 and body.startswith(JPEG_XMP, position + 4):
            yield body[position + 4 + len(JPEG_XMP) : end]
        position = end


def _of_png(body: bytes) -> Iterator[bytes]:
    """Part 3, 1.1.5: an iTXt chunk, which may be compressed."""
    position = len(PNG_MARK)
    while position + 8 <= len(body):
        size = int.from_bytes(body[position : position + 4], "big")
        start, end = position + 8, position + 8 + size
        if body.startswith(b"iTXt", position + 4) and body.startswith(PNG_XMP, start):
            is_compressed = body[start + len(PNG_XMP) : start + len(PNG_XMP) + 1] == b"\1"
            # Behind its two flags stand a language and a translated name, each with a zero.
            *_, text = body[start + len(PNG_XMP) + 2 : end].split(b"\0", 2)
            yield _inflated(text) if is_compressed else text
        position = end + 4


def _of_webp(body: bytes) -> Iterator[bytes]:
    """WebP Container Specification: a chunk of a RIFF file, of even length."""
    position = 12
    while position + 8 <= len(body):
        size = int.from_bytes(body[position + 4 : position + 8], "little")
        if body.startswith(b"XMP ", position):
            yield body[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MAX_PACKET_BYTES)
    except zlib.error:
        return b""
