"""Near duplicates among perceptual hashes: are all found, how fast, in how much memory.

    python -m benchmarks.bench_near_duplicates --hashes 1000000 --threads 2

Nine of ten hashes are drawn at random, the tenth is one of those with 1 to 3 bits flipped. The statements are those of the stage
`image_verdicts`: near pairs by bands, then connected components. There is no peer: the recall is that of the planted pairs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.near_duplicates import HASH_BITS, bands_for, find_near_hashes, write_components
from pipeline.query import QueryConfig

DISTANCE = 3
PLANTED_SHARE = 0.1
MEMORY_LIMIT_MB = 2_000
PLANS = (1_000_000, 10_000_000, 100_000_000, 400_000_000)


def make_hashes(folder: Path, count: int) -> None:
    """hashes.parquet, each hash once, and planted.npy with the two hashes of each pair, (P, 2)."""
    draw = np.random.default_rng(0)
    planted = int(count * PLANTED_SHARE)
    drawn_N = draw.integers(-(2**63), 2**63, count - planted, np.int64)
    flipped_P = np.zeros(planted, np.uint64)
    bits_P3 = np.argsort(draw.random((planted, HASH_BITS)), axis=1)[:, :DISTANCE].astype(np.uint64)
    how_many_P = draw.integers(1, DISTANCE + 1, planted)
    for place in range(DISTANCE):
        flipped_P |= np.where(place < how_many_P, np.uint64(1) << bits_P3[:, place], np.uint64(0))
    others_P: NDArray[np.int64] = (drawn_N[:planted].view(np.uint64) ^ flipped_P).view(np.int64)
    np.save(folder / "planted.npy", np.stack([drawn_N[:planted], others_P], axis=1))
    hashes_N = np.unique(np.concatenate([drawn_N, others_P]))
    pq.write_table(pa.table({"perceptual_hash": hashes_N}), folder / "hashes.parquet", compression="zstd")


def find(folder: Path, count: int, threads: int) -> None:
    """Write report.json: seconds and peak memory of this process."""
    query = QueryConfig(memory_limit_mb=MEMORY_LIMIT_MB, threads=threads)
    started, cpu = time.perf_counter(), time.process_time()
    near = find_near_hashes(folder / "hashes.parquet", count, folder / "near.parquet", DISTANCE, query)
    paired = time.perf_counter()
    write_components(near, folder / "components.parquet")
    values = {
        "pairs_s": paired - started,
        "components_s": time.perf_counter() - paired,
        "processor_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    (folder / "report.json").write_text(json.dumps(values))


def recall(folder: Path) -> float:
    """Share of the planted pairs whose hashes are in one component."""
    table = pq.read_table(folder / "components.parquet")
    hashes_H, components_H = table["perceptual_hash"].to_numpy(), table["component"].to_numpy()
    planted_P2 = np.load(folder / "planted.npy")
    places_P2 = np.searchsorted(hashes_H, planted_P2).clip(max=len(hashes_H) - 1)
    is_there_P = (hashes_H[places_P2] == planted_P2).all(axis=1)
    is_joined_P = components_H[places_P2[:, 0]] == components_H[places_P2[:, 1]]
    return float((is_there_P & is_joined_P).mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(f"duckdb {duckdb.__version__}, Python {platform.python_version()}, {options.threads} threads")
    for images in PLANS:
        plan = bands_for(images, DISTANCE)
        keys = f"{len(plan.masks):3} passes, keys of {plan.key_bits} bits or more"
        print(f"plan for {images:>11,} images, distance {DISTANCE}: {keys}, {plan.candidates:.1e} candidates")
    with tempfile.TemporaryDirectory(prefix="wit-bench-near-") as temporary:
        folder = Path(temporary)
        make_hashes(folder, options.hashes)
        child = multiprocessing.get_context("spawn").Process(
            target=find, args=(folder, options.hashes, options.threads)
        )
        child.start()
        child.join()
        if child.exitcode != 0:
            raise SystemExit(f"the search ended with exit code {child.exitcode}")
        report = json.loads((folder / "report.json").read_text())
        found = recall(folder)
    print(f"{options.hashes:,} hashes: " + ", ".join(f"{name} {value:.1f}" for name, value in report.items()))
    print(f"recall of the planted pairs: {found}")
    return 0 if found == 1.0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
