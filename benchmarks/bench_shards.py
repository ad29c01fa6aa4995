"""Packing downloaded images into shards: how fast one core is, and how much memory two sizes of data set take.

    python -m benchmarks.bench_shards --megabytes 600

The images are JPEGs that are stored as they are (nothing is encoded), about 40 kB each: 256 pixels at quality 95. Measured is the
whole stage `shards`, in a process of its own on one thread: the order, the tars, their checksums and indexes, samples.parquet,
manifest. Beside it a plain copy of the same bytes, and a copy that takes their checksum.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from upath import UPath

from pipeline.config import BuildDatasetConfig, ShardConfig
from pipeline.images import OVERLAP_COUNTS_FILE
from pipeline.query import QueryConfig
from pipeline.settings import Settings
from pipeline.shards import SHARDS, ShardsConfig
from pipeline.stage import Counts, Stage
from pipeline.tars import UstarWriter

AIM_MB_S = 150
SIDE_PX = 256
IMAGES_PER_PART = 2_000
KINDS = 64  # of pictures; a comment in each file makes it another one
CHUNK_BYTES = 1 << 20
MEMORY_LIMIT_MB = 500
OVERLAP_SCHEMA = pa.schema(
    {
        "evaluation_set": pa.string(),
        "evaluation_image": pa.string(),
        "pair_id": pa.string(),
        "distance": pa.int32(),
        "is_equal": pa.bool_(),
        "drop_reason": pa.string(),
    }
)


def pictures() -> list[bytes]:
    """Smooth colours with noise, about 40 kB each."""
    made = []
    for seed in range(KINDS):
        draw = np.random.default_rng(seed)
        coarse_HWC = draw.integers(0, 255, (8, 8, 3)).repeat(SIDE_PX // 8, 0).repeat(SIDE_PX // 8, 1)
        noisy_HWC = np.clip(coarse_HWC + draw.normal(0, 5, coarse_HWC.shape), 0, 255).astype(np.uint8)
        made.append(bytes(simplejpeg.encode_jpeg(noisy_HWC, quality=95)))
    return made


def numbered(picture: bytes, number: int) -> bytes:
    """The same picture with a comment, so that no two files are the same."""
    comment = b"%012d" % number
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


def finished(folder: Path, files: dict[str, pa.Table | str]) -> None:
    """Make a folder, to which tars may have been written, one of a finished stage."""

    def work(_: Sequence[UPath], out: Path, __: Settings) -> Counts:
        for tar in folder.glob("*.tar"):
            tar.rename(out / tar.name)
        for name, content in files.items():
            if isinstance(content, str):
                (out / name).write_text(content)
            else:
                pq.write_table(content, out / name)
        return Counts(rows_in=0, rows_kept=0)

    Stage(folder.name, work).run([], UPath(folder), Settings())


def make_inputs(folder: Path, megabytes: int) -> None:
    """downloads/part-*, image_verdicts/ and taken_down/ of images that fill so many megabytes."""
    shapes = pictures()
    images = round(megabytes * 1e6 / (sum(map(len, shapes)) / KINDS))
    verdicts = []
    for part, first in enumerate(range(0, images, IMAGES_PER_PART)):
        rows, results = [], []
        place = folder / "downloads" / f"part-{part:05d}"
        place.mkdir(parents=True)
        with (place / "00000.tar").open("wb") as opened:
            tar = UstarWriter(opened)
            for number in range(first, min(first + IMAGES_PER_PART, images)):
                image = numbered(shapes[number % KINDS], number)
                pair_id = hashlib.md5(str(number).encode()).hexdigest()
                results.append(
                    {
                        "pair_id": pair_id,
                        "status": "ok",
                        "tar": "00000.tar",
                        "image_offset": tar.add(f"{number}.jpg", image),
                    }
                )
                rows.append(verdict(number, pair_id, part, len(image)))
            tar.end()
        finished(place, {"results.parquet": pa.Table.from_pylist(results)})
        verdicts.append(pa.Table.from_pylist(rows))
    nothing = {"removed_up_to_distance": None, "reported_up_to_distance": None, "sets": {}}
    table = pa.concat_tables(verdicts).append_column("drop_reason", pa.nulls(images, pa.string()))
    finished(
        folder / "image_verdicts",
        {
            "image_verdicts.parquet": table,
            "overlap.parquet": OVERLAP_SCHEMA.empty_table(),
            OVERLAP_COUNTS_FILE: json.dumps(nothing),
        },
    )
    gone = pa.table({"pair_id": pa.array([], pa.string())})
    finished(folder / "taken_down", {"taken_down.parquet": gone})


def verdict(number: int, pair_id: str, part: int, stored_bytes: int) -> dict[str, object]:
    caption = f"a photo of the {number}th street of a town, as seen from the window of a train"
    sizes = {"width_px": SIDE_PX, "height_px": SIDE_PX, "original_width_px": 640, "original_height_px": 640}
    return {
        "pair_id": pair_id,
        "url": f"https://images.example.org/{pair_id}.jpg",
        "page_url": f"https://www.example.org/pages/{number}",
        "caption": caption,
        "text_key": "alt",
        "source": "url_list:made.csv",
        "captions": [caption],
        "stored_bytes": stored_bytes,
        "sha256": hashlib.sha256(pair_id.encode()).hexdigest(),
        "part": part,
        **sizes,
    }


def pack(folder: Path) -> None:
    config = BuildDatasetConfig(
        name="bench",
        shards=ShardConfig(samples_per_shard=2_000),
        query=QueryConfig(threads=1, memory_limit_mb=MEMORY_LIMIT_MB),
    )
    parts = [UPath(part) for part in sorted((folder / "downloads").iterdir()) if part.name.startswith("part-")]
    sources = [UPath(folder / "image_verdicts"), UPath(folder / "taken_down"), *parts]
    SHARDS.run(sources, UPath(folder / "shards"), ShardsConfig(config=config))


def copy(folder: Path) -> None:
    (folder / "copy").mkdir()
    for number, tar in enumerate(sorted(folder.glob("downloads/*/*.tar"))):
        shutil.copyfile(tar, folder / "copy" / f"{number}.tar")


def copy_with_checksum(folder: Path) -> None:
    """As a program without a cache of its own reads and writes: in pieces."""
    (folder / "checked").mkdir()
    for number, tar in enumerate(sorted(folder.glob("downloads/*/*.tar"))):
        digest = hashlib.sha256()
        with tar.open("rb") as read, (folder / "checked" / f"{number}.tar").open("wb") as written:
            while chunk := read.read(CHUNK_BYTES):
                digest.update(chunk)
                written.write(chunk)


def measured(work: Callable[[Path], None], folder: Path) -> None:
    """Do it; report.json has seconds and the peak memory of this process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    started, processor = time.perf_counter(), time.process_time()
    work(folder)
    report = {
        "processor_s": time.process_time() - processor,
        "clock_s": time.perf_counter() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    (folder / "report.json").write_text(json.dumps(report))


def run(work: Callable[[Path], None], folder: Path) -> dict[str, float]:
    process = multiprocessing.get_context("spawn").Process(target=measured, args=(work, folder))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{work.__name__} ended with exit code {process.exitcode}")
    report: dict[str, float] = json.loads((folder / "report.json").read_text())
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=600, help="of images; a third of it is packed too")
    options = parser.parse_args()
    print(f"duckdb {duckdb.__version__}, Python {platform.python_version()}, one core")
    rates, peaks = [], []
    for megabytes in (options.megabytes // 3, options.megabytes):
        with tempfile.TemporaryDirectory(prefix="wit-bench-shards-") as temporary:
            folder = Path(temporary)
            make_inputs(folder, megabytes)
            size_mb = sum(tar.stat().st_size for tar in folder.glob("downloads/*/*.tar")) / 1e6
            images = pq.read_metadata(folder / "image_verdicts" / "image_verdicts.parquet").num_rows
            print(f"{images:,} images, {size_mb:.0f} MB:")
            for work in (copy, copy_with_checksum, pack):
                report = run(work, folder)
                rate = size_mb / report["processor_s"]
                print(
                    f"  {work.__name__:<20}" + ", ".join(f"{name} {value:.2f}" for name, value in report.items()),
                    end="",
                )
                print(f", MB per second of the processor {rate:.0f}")
            rates.append(rate)
            peaks.append(report["peak_mb"])
    print(f"peak memory, larger against smaller data set: {peaks[1] / peaks[0]:.2f}")
    return 0 if rates[1] >= AIM_MB_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
