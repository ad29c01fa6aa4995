"""JPEG bytes: whether they are whole, what size they have, and as three channels."""

from __future__ import annotations

import simplejpeg

START = b"\xff\xd8"
END = b"\xff\xd9"
START_OF_SCAN = 0xDA
FILL = 0xFF
STAND_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length: TEM, RST0 to RST7


def is_cut_off(body: bytes) -> bool:
    """Whether `body` is a JPEG whose end is missing. False for all other bytes: their decoders tell.

    A JPEG decoder fills what is missing with grey and is content. Segments are walked up to the first scan, because
    the thumbnail inside one has an end marker of its own; in a scan no other bytes look like it (ITU T.81, B.1.1.5).
    """
    if not body.startswith(START):
        return False
    position = len(START)
    while position + 4 <= len(body):
        prefix, marker = body[position], body[position + 1]
        if prefix != 0xFF:
            return False
        if marker == START_OF_SCAN:
            return body.rfind(END, position) < 0  # from the end: a whole image has it there
        if marker == FILL:
            position += 1
        elif marker in STAND_ALONE:
            position += 2
        else:
            position += 2 + int.from_bytes(body[position + 2 : position + 4], "big")
    return True


def size_px(image: bytes) -> tuple[int, int]:
    """Width and height in pixels. Raises ValueError if the bytes are no JPEG."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(image)
    return int(width), int(height)


def as_rgb(image: bytes, quality: int) -> bytes:
    """The same picture with three channels: the same bytes unless it is grey. Raises ValueError if it is no JPEG."""
    _, _, colour_space, _ = simplejpeg.decode_jpeg_header(image)
    if colour_space == "YCbCr":
        return image
    pixels_HWC = simplejpeg.decode_jpeg(image, colorspace="RGB")
    return bytes(simplejpeg.encode_jpeg(pixels_HWC, quality=quality, colorspace="RGB", colorsubsampling="420"))
