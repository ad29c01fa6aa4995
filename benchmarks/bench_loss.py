"""The contrastive loss and its gradients: our tiles against open_clip's ClipLoss.

    python -m benchmarks.bench_loss --batch 8192
    python -m benchmarks.bench_loss --batch 32768 --shares 8

Each way runs in a process of its own, on the same random features (float32, D 512) and the scale of the paper's start. Its memory
is the peak over what the process held before, outputs included; its time is the least of the rounds. With
`--shares` it is what one process of so many does, communication left out: the peer's local loss, which computes the logits of its
own images with all texts and of its own texts with all images. Gradients are compared where one process has them all.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.nn import functional

from model.objectives.contrastive import contrastive_loss

DIMENSIONS = 512
SCALE = 1 / 0.07
TILES = (256, 512, 1024, 2048, 4096)
WANTED_MEMORY_RATIO, WANTED_TIME_RATIO = 0.1, 1.3
DIFFERENCE_BOUND = 2e-6  # both are in float32


def measure(tile: int, batch: int, shares: int, rounds: int, report: Path) -> None:
    """Loss and gradients with tiles of this side, 0 = open_clip's; writes seconds and peak memory, and the gradients."""
    torch.manual_seed(0)
    image_GD, text_GD = functional.normalize(torch.randn(2, batch, DIMENSIONS), dim=2)
    inputs = [image_GD.requires_grad_(), text_GD.requires_grad_(), torch.tensor(SCALE, requires_grad=True)]
    loss = partial(ours, tile=tile, share=batch // shares) if tile else partial(peers, share=batch // shares)
    before = psutil.Process().memory_info().rss
    seconds = []
    gradients: tuple[Tensor, ...] = ()
    for _ in range(rounds):
        gradients = ()  # before the next are made
        began = time.perf_counter()
        gradients = torch.autograd.grad(loss(*inputs), inputs)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report.write_text(json.dumps({"seconds": min(seconds), "peak_mb": (peak - before) / 1e6}))
    torch.save(gradients, report.with_suffix(".pt"))


def ours(image_GD: Tensor, text_GD: Tensor, scale: Tensor, tile: int, share: int) -> Tensor:
    return contrastive_loss(image_GD[:share], text_GD, scale, tile)


def peers(image_GD: Tensor, text_GD: Tensor, scale: Tensor, share: int) -> Tensor:
    from open_clip.loss import ClipLoss

    class LocalLoss(ClipLoss):  # type: ignore[misc]
        """With local_loss it gathers the features of all processes; here they are at hand."""

        def get_logits(self, image_BD: Tensor, text_BD: Tensor, scale: Tensor, **_: None) -> tuple[Tensor, Tensor]:
            return scale * image_BD @ text_GD.T, scale * text_BD @ image_GD.T

    loss: Tensor = LocalLoss(local_loss=True)(image_GD[:share], text_GD[:share], scale)
    return loss


def in_child(tile: int, batch: int, shares: int, rounds: int, folder: Path) -> dict[str, float]:
    report = folder / f"{tile}.json"
    child = multiprocessing.get_context("spawn").Process(target=measure, args=(tile, batch, shares, rounds, report))
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
    parser.add_argument("--shares", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, D {DIMENSIONS}", end=", ")
    print(f"1/{options.shares} of a batch of {options.batch:,}")
    print(f"{'way':10} {'s':>7} {'of peer':>8} {'peak MB':>9} {'of peer':>8} {'gradients differ by':>20}")
    reached = False
    with tempfile.TemporaryDirectory(prefix="wit-bench-loss-") as name:
        folder = Path(name)
        peer = in_child(0, options.batch, options.shares, options.rounds, folder)
        print(f"{'open_clip':10} {peer['seconds']:7.2f} {1:8.2f} {peer['peak_mb']:9.0f} {1:8.3f}")
        for tile in options.tiles:
            found = in_child(tile, options.batch, options.shares, options.rounds, folder)
            time_ratio, memory_ratio = (found[key] / peer[key] for key in ("seconds", "peak_mb"))
            differ = difference(folder, tile) if options.shares == 1 else 0.0
            told = f"{differ:20.1e}" if options.shares == 1 else ""
            print(f"{f'tile {tile}':10} {found['seconds']:7.2f} {time_ratio:8.2f}", end=" ")
            print(f"{found['peak_mb']:9.0f} {memory_ratio:8.3f} {told}")
            reached |= (
                time_ratio <= WANTED_TIME_RATIO and memory_ratio < WANTED_MEMORY_RATIO and differ < DIFFERENCE_BOUND
            )
    print(
        f"aim: at most {WANTED_TIME_RATIO} of the peer's time in under {WANTED_MEMORY_RATIO} of its memory: "
        f"{'reached' if reached else 'missed'}"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
