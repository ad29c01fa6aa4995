"""The download stage with both backends, and bare img2dataset with the same options: how fast, and how long with hostile hosts.

    python -m benchmarks.bench_download --images 1500

Healthy: one server on loopback with keep-alive; images per second are counted there, from the first request to the last, without
the start of the processes. Processor time per image is the difference to a run of a few images. Hostile: beside healthy images
some of each kind of misbehaviour; bare img2dataset is ended after `--cap` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import multiprocessing
import os
import resource
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from upath import UPath

from pipeline.config import DownloadConfig
from pipeline.download import download_stage
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

SIZE_PX = (800, 600)
DISTINCT = 16
THREADS = 32
EACH_KIND = 3
HEALTHY_BESIDE = 60
DEADLINE_S = 60.0
KINDS = ("drip", "endless", "loop", "busy", "html", "half", "bomb", "reset", "tls", "dns")


def picture(seed: int) -> bytes:
    """A JPEG of about 60 kB, as a photograph has."""
    noise = np.random.default_rng(seed).integers(0, 255, (SIZE_PX[1] // 10, SIZE_PX[0] // 10, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(SIZE_PX, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 100 megapixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(10_000 * 1_251))
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Server:
    """A host in a process of its own: `/KIND/NUMBER`, and `/_times` with the times of the first and the last request."""

    def __init__(self) -> None:
        self.images = [picture(seed) for seed in range(DISTINCT)]
        self.bomb = bomb()
        self.times: list[float] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                keeps = b"1.1" in line
                while (header := await reader.readline()) not in (b"\r\n", b""):
                    keeps = keeps and header.lower() != b"connection: close\r\n"
                _, kind, number = line.split()[1].decode().rsplit("/", 2) if line.count(b"/") > 2 else ("", "", "0")
                if not number.isdecimal():  # /.well-known/tdmrep.json
                    kind, number = "", "0"
                await self.answer(kind, int(number), writer)
                if not keeps or kind in ("drip", "endless", "reset"):
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def answer(self, kind: str, number: int, writer: asyncio.StreamWriter) -> None:
        image = self.images[number % DISTINCT]
        if kind == "times":
            self.send(writer, 200, json.dumps([self.times[0], self.times[-1]]).encode())
            self.times.clear()
            return
        self.times.append(time.monotonic())
        if kind in ("drip", "endless"):
            step, pause_s = (1, 1.0) if kind == "drip" else (1 << 17, 0.1)
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            for _ in itertools.count():
                writer.write(image[:step].ljust(step, b"\0"))
                await writer.drain()
                await asyncio.sleep(pause_s)
        elif kind == "reset":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(image)}\r\n\r\n".encode() + image[:1_000])
            await writer.drain()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif kind == "loop":
            self.send(writer, 302, b"", f"Location: /loop/{(number + 1) % 1_000}\r\n")
        elif kind == "busy":
            self.send(writer, 429, b"", "Retry-After: 1\r\n")
        elif kind in ("good", "html", "half", "bomb"):
            bodies = {"good": image, "html": b"<p>no picture</p>", "half": image[: len(image) // 2], "bomb": self.bomb}
            self.send(writer, 200, bodies[kind])
        else:
            self.send(writer, 404, b"")
        await writer.drain()

    @staticmethod
    def send(writer: asyncio.StreamWriter, status: int, body: bytes, headers: str = "") -> None:
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)


def serve(ports: Any, certificate: Path) -> None:
    """Serve until killed; tells the ports of HTTP and of HTTPS."""

    async def run() -> None:
        server = Server()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        plain = await asyncio.start_server(server.handle, "127.0.0.1", 0)
        secret = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=context)
        ports.put([each.sockets[0].getsockname()[1] for each in (plain, secret)])
        await asyncio.Event().wait()

    asyncio.run(run())


def make_certificate(folder: Path) -> Path:
    """A certificate that nobody signed."""
    file = folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=nobody", "-days", "2"]
    made = subprocess.run([*command, "-keyout", "-", "-out", "-"], check=True, capture_output=True)
    file.write_bytes(made.stdout)
    return file


def config(backend: str) -> DownloadConfig:
    """The same bounds for all; on loopback one host is the whole web."""
    settings = {"backend": backend, "threads": THREADS, "connections_per_host": THREADS, "max_failed_share": 1}
    bounds = {"timeout_s": 3, "image_deadline_s": 5, "part_deadline_s": DEADLINE_S, "max_image_bytes": 2_000_000}
    return DownloadConfig.model_validate(settings | bounds | {"allow_private_addresses": True})


def bare(part: Path, out: Path, settings: DownloadConfig) -> None:
    """img2dataset by itself, with the options that we give it."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from img2dataset import download

    download(
        url_list=str(part),
        input_format="parquet",
        url_col="url",
        save_additional_columns=["pair_id"],
        output_folder=str(out),
        output_format="webdataset",
        number_sample_per_shard=pq.read_metadata(part).num_rows,
        processes_count=1,
        thread_count=settings.threads,
        timeout=settings.timeout_s,
        retries=settings.retries,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        image_size=settings.short_side_px,
        encode_format="jpg",
        encode_quality=settings.jpeg_quality,
        compute_hash="sha256",
        extract_exif=False,
        enable_wandb=False,
    )


def one_run(name: str, folder: Path) -> None:
    """What the child process does: download the part in `folder`, print its measures."""
    started = time.monotonic()
    settings = config("img2dataset" if name == "bare" else name)
    if name == "bare":
        bare(folder / "part" / "selected.parquet", folder / "bare", settings)
        (stats,) = (folder / "bare").glob("*_stats.json")
        told = json.loads(stats.read_text())
        outcomes = {"ok": told["successes"], "failed": told["count"] - told["successes"]}
    else:
        counts = download_stage(folder / "cache").run([UPath(folder / "part")], UPath(folder / name), settings).counts
        outcomes = {"ok": counts.rows_kept, **counts.dropped}
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(each.ru_utime + each.ru_stime for each in usage)
    print("\n" + json.dumps({"wall_s": time.monotonic() - started, "cpu_s": cpu_s, "outcomes": outcomes}))


def measured(name: str, urls: list[str], cap_s: float) -> dict[str, Any]:
    """One run in a process of its own, ended after `cap_s` seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-download-") as root:
        folder = Path(root)
        table = pa.table({"pair_id": [f"{number:032d}" for number in range(len(urls))], "url": urls})

        def work(_: Any, out: Path, __: Settings) -> Counts:
            pq.write_table(table, out / "selected.parquet")
            return Counts(rows_in=len(urls), rows_kept=len(urls))

        Stage("part", work).run([], UPath(folder / "part"), Settings())
        started = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.bench_download", "--run", name, str(folder)]
        with (folder / "log").open("w+") as log:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
            try:
                output, _ = child.communicate(timeout=cap_s)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
                return {
                    "wall_s": time.monotonic() - started,
                    "cpu_s": float("nan"),
                    "outcomes": {"not done": len(urls)},
                }
            if child.returncode:
                log.seek(0)
                raise RuntimeError(f"{name} ended with {child.returncode}: {log.read()[-2_000:]}")
        told: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return told


def times_of(port: int) -> float:
    """Seconds from the first request to the last since the last call."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /times/0 HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    first, last = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    return float(last - first)


def healthy(port: int, images: int, names: list[str]) -> None:
    """Print images per second of each, and processor time."""
    urls = [f"http://127.0.0.1:{port}/good/{number}" for number in range(images)]
    few = images // 10
    print(f"healthy: {images} images of {SIZE_PX[0]} x {SIZE_PX[1]}")
    for name in names:
        start_s = measured(name, urls[:few], cap_s=600)["cpu_s"]
        times_of(port)
        told = measured(name, urls, cap_s=600)
        rate = images / times_of(port)
        each_ms = 1_000 * (told["cpu_s"] - start_s) / (images - few)
        print(
            f"  {name:12} {rate:7.1f} images/s, {each_ms:5.2f} ms of the processor each; "
            f"{told['cpu_s']:5.1f} s of it and {told['wall_s']:5.1f} s in all, {told['outcomes']}",
            flush=True,
        )


def hostile(port: int, tls_port: int, cap_s: float, names: list[str]) -> None:
    """Print how long each takes when some of the hosts are hostile."""
    # Another name is another host: one that is asked less often takes none of the healthy images with it.
    roots = {
        "busy": f"http://localhost:{port}/busy",
        "tls": f"https://127.0.0.1:{tls_port}/good",
        "dns": "http://no-such-host.invalid/good",
    }
    urls = [f"http://127.0.0.1:{port}/good/{number}" for number in range(HEALTHY_BESIDE)]
    for kind in KINDS:
        urls += [f"{roots.get(kind, f'http://127.0.0.1:{port}/{kind}')}/{number}" for number in range(EACH_KIND)]
    print(f"hostile: {EACH_KIND} of each of {', '.join(KINDS)} beside {HEALTHY_BESIDE} healthy")
    for name in names:
        told = measured(name, urls, cap_s)
        print(f"  {name:12} {told['wall_s']:5.1f} s, {json.dumps(told['outcomes'])}", flush=True)


def main() -> int:
    """Print the tables; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_500)
    parser.add_argument("--cap", type=float, default=90.0, help="seconds after which a run with hostile hosts is ended")
    parser.add_argument("--only", choices=("healthy", "hostile"))
    parser.add_argument("--names", nargs="*", default=["bare", "img2dataset", "native"])
    parser.add_argument("--run", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        one_run(given.run[0], Path(given.run[1]))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-server-") as folder:
        spawn = multiprocessing.get_context("spawn")
        ports = spawn.Queue()
        server = spawn.Process(target=serve, args=(ports, make_certificate(Path(folder))), daemon=True)
        server.start()
        port, tls_port = ports.get()
        if given.only != "hostile":
            healthy(port, given.images, given.names)
        if given.only != "healthy":
            hostile(port, tls_port, given.cap, given.names)
        server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
