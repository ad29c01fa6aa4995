"""The loader: images per second of one core, ours against that of open_clip 3.3.0, on the same shards.

    python -m benchmarks.bench_loader --samples 1024 --rounds 3

The peer is `open_clip_train.data.get_wds_dataset` with open_clip's own training transform (Pillow, RandomResizedCrop of scale 0.9
to 1, float32, normalised) and its SimpleTokenizer. Ours hands over uint8, which the device normalises; a second row of ours
normalises too, so that it ends where the peer ends. Both read the same tars and CLIP's vocabulary, from the page cache.
Each way runs in a process of its own, round after round, and what counts is the time of the processor, all threads and
workers together: what else runs on the machine disturbs it least. Stated is the median of the rounds.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch

from benchmarks.made_shards import write_shards
from model.clip_vocabulary import official_backend
from model.data import Loader, Order, normalise, open_dataset
from model.tokenizer import Tokenizer

IMAGE_PX, CONTEXT = 224, 77
AIM = 4.0
WEB_WORDS = (5, 14)  # about 12 to 20 tokens with start and end
Report = dict[str, float]


def ours(folder: Path, batch: int, threads: int, normalised: bool) -> Iterator[int]:
    """Sizes of the batches of one epoch."""
    split = open_dataset(str(folder)).train
    order = Order(len(split), batch, seed=0)
    tokenizer = Tokenizer(official_backend(), CONTEXT, cleans_as_official=True)
    tokenizer.encode(["warm"])
    yield 0
    for read in Loader(split, tokenizer, order, IMAGE_PX, threads).batches(0, order.steps_per_epoch):
        images = normalise(read.image_BHWC) if normalised else read.image_BHWC
        yield len(images)


def peers(folder: Path, batch: int, workers: int) -> Iterator[int]:
    """The same of open_clip's training loader."""
    import open_clip
    from open_clip.transform import image_transform
    from open_clip_train import data
    from webdataset import tariterators

    # open_clip 3.3.0 asks for webdataset <= 0.2.86, which did not mark the end of a shard yet.
    data.tar_file_expander = functools.partial(tariterators.tar_file_expander, eof_value=None)
    manifest = json.loads((folder / "manifest.json").read_text())["splits"]["train"]
    arguments = Namespace(
        train_data=f"{folder}/train/{{000000..{len(manifest['shards']) - 1:06d}}}.tar",
        train_num_samples=manifest["samples"],
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        batch_size=batch,
        workers=workers,
        world_size=1,
        seed=0,
    )
    multiprocessing.set_start_method("fork", force=True)  # its workers' own way; they cannot be pickled
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    tokenizer(list(open_dataset(str(folder)).train.captions()))  # it keeps words that it has seen
    transform = image_transform(IMAGE_PX, is_train=True)
    read = data.get_wds_dataset(arguments, transform, is_train=True, tokenizer=tokenizer)
    yield 0
    for images, _ in read.dataloader:
        yield len(images)


WAYS: dict[str, Callable[[Path, int], Iterator[int]]] = {
    "open_clip, in process": functools.partial(peers, workers=0),
    "open_clip, 1 worker": functools.partial(peers, workers=1),
    "ours, 1 thread": functools.partial(ours, threads=1, normalised=False),
    "ours, 2 threads": functools.partial(ours, threads=2, normalised=False),
    "ours, 1 thread, normalised": functools.partial(ours, threads=1, normalised=True),
}


def measure(way: str, folder: Path, batch: int, report: Path) -> None:
    """One epoch; what comes before the first batch is asked for is not counted."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    sizes = WAYS[way](folder, batch)
    next(sizes)
    began_s, began_cpu_s = time.perf_counter(), _processor_s()
    images = 0
    cpu_s = 0.0
    for size in sizes:
        images += size
        cpu_s = _processor_s() - began_cpu_s  # while its workers live
    report.write_text(json.dumps({"images": images, "cpu_s": cpu_s, "wall_s": time.perf_counter() - began_s}))


def _processor_s() -> float:
    """Of this process and its workers."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(used.user + used.system for used in times)


def in_child(way: str, folder: Path, batch: int) -> Report:
    report = folder / "report.json"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["model.data", "open_clip_train.data"])  # torch is imported once
    child = context.Process(target=measure, args=(way, folder, batch, report))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise SystemExit(f"{way} ended with exit code {child.exitcode}")
    found: Report = json.loads(report.read_text())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stored-px", type=int, default=IMAGE_PX, help="short side of the stored images")
    parser.add_argument("--quality", type=int, default=95, help="of the stored JPEGs; the default is our shards'")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    found: dict[str, list[Report]] = {way: [] for way in options.ways}
    with tempfile.TemporaryDirectory(prefix="wit-bench-loader-") as name:
        folder = Path(name) / "shards"
        write_shards(folder, options.samples, options.stored_px, options.quality, WEB_WORDS)
        size_kb = sum(tar.stat().st_size for tar in folder.glob("train/*.tar")) / options.samples / 1e3
        print(f"{options.samples:,} images, short side {options.stored_px}, {size_kb:.0f} kB a sample", flush=True)
        for _ in range(options.rounds):
            for way in options.ways:
                found[way].append(in_child(way, folder, options.batch))
    rates = {
        way: statistics.median(report["images"] / report["cpu_s"] for report in reports)
        for way, reports in found.items()
    }
    peer = max((rate for way, rate in rates.items() if way.startswith("open_clip")), default=float("nan"))
    print(f"{'':28} {'images / processor s':>21} {'of the faster peer':>19} {'images / s by the clock':>24}")
    for way, reports in found.items():
        wall = statistics.median(report["images"] / report["wall_s"] for report in reports)
        print(f"{way:28} {rates[way]:21,.0f} {rates[way] / peer:19.2f} {wall:24,.0f}")
    best = max((rate for way, rate in rates.items() if way.startswith("ours")), default=0.0) / peer
    print(f"aim: {AIM:g} times open_clip's: {'reached' if best >= AIM else 'missed'}")
    return 0 if best >= AIM else 1


if __name__ == "__main__":
    raise SystemExit(main())
