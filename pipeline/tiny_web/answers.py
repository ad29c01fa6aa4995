"""What a site answers at a path: pages, pictures, and the misbehaviour that the plan asks for."""

from __future__ import annotations

import io
import itertools
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from PIL import Image

from pipeline.tiny_web.pages import THUMBNAIL_SUFFIX, render_page
from pipeline.tiny_web.painting import render, render_jpeg, to_jpeg
from pipeline.tiny_web.pairs import LOOP_SUFFIX, ImageFile
from pipeline.tiny_web.world import Page, World

TINY_SIDE_PX = 24
WIDE_SIZE_PX = (480, 96)
BOMB_SIDE_PX = 20_000
CHUNK_BYTES = 1 << 16
NOT_FOUND = b"<!doctype html><title>404</title><p>There is no such page.</p>"
FAILED = b"<!doctype html><title>500</title><p>Something went wrong.</p>"


@dataclass(frozen=True)
class Answer:
    """A whole body, or a stream that is sent with a pause after each chunk and then cut."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Iterator[bytes] | None = None
    pause_s: float = 0.0


def _html(body: bytes, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "text/html; charset=utf-8"}, body)


class Answers:
    """What the world's addresses answer. Pictures are painted when first asked for and kept. Safe for many threads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pages = {(page.site, page.path): page for page in world.pages}
        self._bodies: dict[tuple[int, str], bytes] = {}
        self._bomb: bytes = b""
        self._bomb_lock = threading.Lock()
        self._misbehaviour: dict[str, Callable[[ImageFile], Answer]] = {
            "redirect": self._redirect,
            "redirect_loop": self._redirect,
            "drip": self._drip,
            "http_404": lambda file: _html(NOT_FOUND, 404),
            "http_500": lambda file: _html(FAILED, 500),
            "truncated": self._truncated,
            "huge": self._huge,
            "bomb": self._decompression_bomb,
            "html": lambda file: Answer(200, {"Content-Type": "image/jpeg"}, NOT_FOUND),
        }

    def answer(self, site: int, path: str) -> Answer:
        """The answer of `site` at `path` (without query)."""
        if path == "/robots.txt":
            return Answer(200, {"Content-Type": "text/plain"}, b"User-agent: *\nDisallow: /private/\n")
        page = self._pages.get((site, path))
        if page is not None:
            return self._page(page)
        file = self._file(site, path)
        if file is None:
            return _html(NOT_FOUND, 404)
        if file.behaviour != "picture":
            return self._misbehaviour[file.behaviour](file)
        headers = {"Content-Type": "image/png" if file.look == "logo" else "image/jpeg"}
        if file.robots_tag:
            headers["X-Robots-Tag"] = file.robots_tag
        return Answer(200, headers, self.image_bytes(file))

    def image_bytes(self, file: ImageFile) -> bytes:
        """The bytes of a picture that is served whole."""
        key = (file.site, file.path)
        if key not in self._bodies:
            self._bodies[key] = self._paint(file)
        return self._bodies[key]

    def _page(self, page: Page) -> Answer:
        answer = _html(render_page(self._world, page).encode())
        if page.opt_out == "header":
            answer.headers["X-Robots-Tag"] = "noai"
        return answer

    def _file(self, site: int, path: str) -> ImageFile | None:
        """The file at a path, or the small version of one; a loop has a second stop."""
        files = self._world.files
        stem, dot, ending = path.rpartition(".")
        if (site, path) not in files and stem.endswith(THUMBNAIL_SUFFIX):
            original = files.get((site, stem.removesuffix(THUMBNAIL_SUFFIX) + dot + ending))
            return replace(original, path=path, look="thumbnail") if original and original.scene else None
        if (site, path) not in files and path.endswith(LOOP_SUFFIX):
            start = files.get((site, path.removesuffix(LOOP_SUFFIX)))
            return (
                replace(start, path=path, target=start.path) if start and start.behaviour == "redirect_loop" else None
            )
        return files.get((site, path))

    def _paint(self, file: ImageFile) -> bytes:
        seed = self._world.config.seed
        if file.scene is None:
            buffer = io.BytesIO()
            Image.new("RGB", (32, 32), (40, 90, 160)).save(buffer, "PNG")
            return buffer.getvalue()
        if file.look == "near_duplicate":
            return render_jpeg(seed, file.scene, quality=75, scale=0.92)
        if file.look == "thumbnail":
            return render_jpeg(seed, file.scene, scale=0.5)
        if file.look == "tiny":
            return to_jpeg(render(seed, file.scene).resize((TINY_SIDE_PX, TINY_SIDE_PX)))
        if file.look == "wide":
            picture = Image.new("RGB", WIDE_SIZE_PX, (200, 200, 200))
            picture.paste(render(seed, file.scene), (180, 0))
            return to_jpeg(picture)
        return render_jpeg(seed, file.scene)

    # --- misbehaviour ---

    @staticmethod
    def _redirect(file: ImageFile) -> Answer:
        return Answer(302, {"Location": file.target})

    def _drip(self, file: ImageFile) -> Answer:
        """A good picture, a byte at a time; it ends unfinished after `drip_s`."""
        config = self._world.config
        body = self.image_bytes(file)
        count = min(len(body) - 1, max(1, round(config.drip_s / config.drip_pause_s)))
        return Answer(
            200,
            {"Content-Type": "image/jpeg", "Content-Length": str(len(body))},
            stream=(body[at : at + 1] for at in range(count)),
            pause_s=config.drip_pause_s,
        )

    def _truncated(self, file: ImageFile) -> Answer:
        """Half of a picture that the header promises whole."""
        body = self.image_bytes(file)
        return Answer(
            200, {"Content-Type": "image/jpeg", "Content-Length": str(len(body))}, stream=iter([body[: len(body) // 2]])
        )

    def _huge(self, file: ImageFile) -> Answer:
        """The start of a JPEG and then zeros, without a Content-Length that would warn."""
        zeros = itertools.repeat(bytes(CHUNK_BYTES), -(-self._world.config.huge_bytes // CHUNK_BYTES))
        return Answer(
            200, {"Content-Type": "image/jpeg"}, stream=itertools.chain([self.image_bytes(file)[:400]], zeros)
        )

    def _decompression_bomb(self, file: ImageFile) -> Answer:
        with self._bomb_lock:
            self._bomb = self._bomb or _png_bomb(BOMB_SIDE_PX)
        return Answer(200, {"Content-Type": "image/png"}, self._bomb)


def _png_bomb(side_px: int) -> bytes:
    """A valid black PNG of side x side pixels with one bit each, a thousand times smaller than its pixels."""
    row = bytes(1 + (side_px + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(row) for _ in range(side_px)), packer.flush()])
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", packed) + _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
