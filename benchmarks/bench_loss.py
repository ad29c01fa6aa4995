"""The contrastive loss and its gradients: our tiles against open_clip's ClipLoss, in one process.

    python -m benchmarks.bench_loss --batch 8192

Each way runs in a process of its own, on the same random features (float32, D 512) and the scale of the paper's start. Its memory
is the peak over what the process held before, features included; its time is the least of the rounds. `--ours-only` leaves the
peer out, for batches whose matrix does not fit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import psutil
import torch
from torch.nn import functional

from model.objectives.contrastive import contrastive_loss

DIMENSIONS = 512
SCALE = 1 / 0.07
TILES = (256, 512, 1024, 2048, 4096)
WANTED_MEMORY_RATIO, WANTED_TIME_RATIO = 0.1, 1.3
DIFFERENCE_BOUND = 2e-6  # both are in float32


def measure(tile: int, batch: int, rounds: int, report: Path) -> None:
    """Loss and gradients with tiles of this side, 0 = open_clip's; writes seconds and peak memory, and the gradients."""
    torch.manual_seed(0)
    image_GD, text_GD = functional.normalize(torch.randn(2, batch, DIMENSIONS), dim=2)
    inputs = [image_GD.requires_grad_(), text_GD.requires_grad_(), torch.tensor(SCALE, requires_grad=True)]
    if tile:

        def loss() -> torch.Tensor:
            return contrastive_loss(*inputs, tile)

    else:
        from open_clip.loss import ClipLoss

        peer = ClipLoss()

        def loss() -> torch.Tensor:
            return peer(*inputs)

    before = psutil.Process().memory_info().rss
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        gradients = torch.autograd.grad(loss(), inputs)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report.write_text(json.dumps({"seconds": min(seconds), "peak_mb": (peak - before) / 1e6}))
    torch.save(gradients, report.with_suffix(".pt"))


def in_child(tile: int, batch: int, rounds: int, folder: Path) -> dict[str, float]:
    report = folder / f"{tile}.json"
    child = multiprocessing.get_context("spawn").Process(target=measure, args=(tile, batch, rounds, report))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise SystemExit(f"tile {tile} ended with exit code {child.exitcode}")
    values: dict[str, float] = json.loads(report.read_text())
    return values


def difference(folder: Path, tile: int) -> float:
    """The largest difference of a gradient from the peer's, relative to the largest gradient."""
    ours, theirs = (torch.load(folder / f"{way}.pt", weights_only=True) for way in (tile, 0))
    pairs = zip(ours, theirs, strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8_192)
    parser.add_argument("--tiles", type=int, nargs="+", default=TILES)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ours-only", action="store_true")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch:,}, D {DIMENSIONS}")
    print(f"{'way':10} {'s':>7} {'of peer':>8} {'peak MB':>9} {'of peer':>8} {'gradients differ by':>20}")
    reached = False
    with tempfile.TemporaryDirectory(prefix="wit-bench-loss-") as name:
        folder = Path(name)
        peer = None if options.ours_only else in_child(0, options.batch, options.rounds, folder)
        if peer:
            print(f"{'open_clip':10} {peer['seconds']:7.2f} {1:8.2f} {peer['peak_mb']:9.0f} {1:8.3f}")
        for tile in options.tiles:
            ours = in_child(tile, options.batch, options.rounds, folder)
            if peer is None:
                print(f"{f'tile {tile}':10} {ours['seconds']:7.2f} {'':8} {ours['peak_mb']:9.0f}")
                continue
            time_ratio, memory_ratio = (ours[key] / peer[key] for key in ("seconds", "peak_mb"))
            differ = difference(folder, tile)
            print(
                f"{f'tile {tile}':10} {ours['seconds']:7.2f} {time_ratio:8.2f} {ours['peak_mb']:9.0f} {memory_ratio:8.3f} "
                f"{differ:20.1e}"
            )
            reached |= (
                time_ratio <= WANTED_TIME_RATIO and memory_ratio < WANTED_MEMORY_RATIO and differ < DIFFERENCE_BOUND
            )
    if peer is None:
        return 0
    print(
        f"aim: at most {WANTED_TIME_RATIO} of the peer's time in under {WANTED_MEMORY_RATIO} of its memory: "
        f"{'reached' if reached else 'missed'}"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
