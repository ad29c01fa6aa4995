"""The paper's global batch of 32,768 in one process: what `train.micro_batch` holds in memory, and whose gradients it gives.

    python -m benchmarks.bench_large_batch
    python -m benchmarks.bench_large_batch --batches 2048 8192 --micro-batch 128

One real step each (model.step.train_step) of two towers of 2 layers and width 64 that see 32 pixels, from shards through the
loader, each in a process of its own: the smallest batch whole, then every batch by pieces of `--micro-batch` pairs (feature
caching, Gao et al. 2021, arXiv:2101.06983; model/gradients.py). Memory is the peak of the step over what the process held
before it, the batch's images and captions included in that. By pieces it may grow by no more than COPIES times the features
of both towers (B x D each); the gradients of the smallest batch must be those of the whole one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from benchmarks.made_shards import write_shards
from model.config import ClipConfig, PretrainConfig, TextConfig, TrainConfig, VitConfig
from model.distributed import Processes
from model.step import train_step
from model.training import prepare

DIMENSIONS = 64
MODEL = ClipConfig(
    embed_dim=DIMENSIONS,
    vision=VitConfig(image_px=32, patch_px=16, width=64, layers=2, heads=1),
    text=TextConfig(context_length=16, vocab_size=1_000, width=64, layers=2, heads=1),
)
COPIES = 4  # of each piece, put together, their gradients, what the loss multiplies them by
SMALL_THINGS = 1.1  # of that: two numbers of each row, states of random numbers
DIFFERENCE_BOUND = 1e-5  # of the largest gradient; both are in float32


def measure(batch: int, micro_batch: int, shards: Path, report: Path) -> None:
    """One step; writes the processor's seconds, the peak of memory, the loss, and the gradients."""
    torch.set_num_threads(1)
    train = TrainConfig(epochs=1, global_batch=batch, micro_batch=micro_batch, warmup_steps=0)
    config = PretrainConfig(name="bench", dataset="made", model=MODEL, train=train)
    report.mkdir()
    training = prepare(report, config, str(shards), Processes(0, 1, torch.device("cpu")))
    assert training is not None
    given = next(training.loader().batches(0, 1))
    before = psutil.Process().memory_info().rss
    began = time.process_time()
    skipped = train_step(training, given)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert skipped is None
    figures = {"seconds": seconds, "peak_mb": (peak - before) / 1e6, "loss": training.loss}
    (report / "figures.json").write_text(json.dumps(figures))
    torch.save([weight.grad for weight in training.objective.parameters()], report / "gradients.pt")


def in_child(batch: int, micro_batch: int, shards: Path, report: Path) -> dict[str, float]:
    child = multiprocessing.get_context("spawn").Process(target=measure, args=(batch, micro_batch, shards, report))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise SystemExit(f"the step of {batch:,} pairs ended with exit code {child.exitcode}")
    figures: dict[str, float] = json.loads((report / "figures.json").read_text())
    return figures


def difference(one: Path, other: Path) -> float:
    """The largest difference of a gradient, relative to the largest gradient."""
    found, expected = (torch.load(folder / "gradients.pt", weights_only=True) for folder in (one, other))
    largest = max(float(gradient.abs().max()) for gradient in expected)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / largest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[2_048, 8_192, 32_768])
    parser.add_argument("--micro-batch", type=int, default=256)
    options = parser.parse_args()
    batches = sorted(options.batches)
    print(f"torch {torch.__version__}, one thread, D {DIMENSIONS}, pieces of {options.micro_batch}")
    print(f"{'pairs':>7} {'':8} {'processor s':>12} {'peak MB':>9} {'grown by':>9} {'may by':>8} {'loss':>8}")
    with tempfile.TemporaryDirectory(prefix="wit-bench-large-batch-") as name:
        folder = Path(name)
        write_shards(folder / "shards", batches[-1], 32, 90, (2, 6))
        whole = in_child(batches[0], 0, folder / "shards", folder / "whole")
        print(
            f"{batches[0]:7,} {'whole':8} {whole['seconds']:12.1f} {whole['peak_mb']:9.0f} {'':18} {whole['loss']:8.4f}"
        )
        reached, smallest = True, 0.0
        for batch in batches:
            found = in_child(batch, options.micro_batch, folder / "shards", folder / str(batch))
            smallest = smallest or found["peak_mb"]
            grown = found["peak_mb"] - smallest
            allowed = SMALL_THINGS * COPIES * 2 * (batch - batches[0]) * DIMENSIONS * 4 / 1e6
            print(f"{batch:7,} {'pieces':8} {found['seconds']:12.1f} {found['peak_mb']:9.0f}", end=" ")
            print(f"{grown:9.0f} {allowed:8.0f} {found['loss']:8.4f}")
            reached &= grown <= allowed
        differ = difference(folder / str(batches[0]), folder / "whole")
    print(f"gradients of {batches[0]:,} pairs by pieces and whole differ by {differ:.1e} of the largest")
    reached &= differ < DIFFERENCE_BOUND
    print(f"aims: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
