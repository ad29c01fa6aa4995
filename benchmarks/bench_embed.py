"""The embedding pass against the limit that reading, decoding and resizing set, both measured in the same run.

    python -m benchmarks.bench_embed --images 96 --short-px 1024

Photo-like JPEGs (smooth noise from a seed, quality 90, as large as photographs on the web) become squares of 224 pixels. The
limit is a bare thread pool that does only that. The pass does it too, and beside it normalises, and gives each image to a
tower: a very small one, so that decoding is what takes the time, as it is on a GPU. Rounds alternate; as many threads as
processors. On a CPU the tower shares them with the threads, so that what it and normalising cost alone is told as well.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image

from model.clip import CLIP
from model.config import ClipConfig, TextConfig, VitConfig
from model.data import normalise
from model.data.shards import Folder
from model.evaluation.images import ImageRef, pixels
from model.evaluation.passes import Named, Progress, judged_parts

IMAGE_PX = 224
BATCH = 32
AIM = 0.9


def write_photos(folder: Path, images: int, short_px: int) -> list[Named]:
    """So many files; ten contents, because what counts is the work and not what is seen."""
    draw = np.random.default_rng(0)
    contents = []
    for _ in range(10):
        rough = Image.fromarray(draw.integers(0, 256, (64, 86, 3), dtype=np.uint8))
        smooth = np.asarray(rough.resize((short_px * 4 // 3, short_px), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = np.clip(smooth + draw.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
        contents.append(simplejpeg.encode_jpeg(np.ascontiguousarray(noisy), quality=90))
    root = Folder(str(folder))
    for number in range(images):
        (folder / f"{number:05d}.jpg").write_bytes(contents[number % 10])
    return [
        (str(number), ImageRef(root, f"{number:05d}.jpg", 0, len(contents[number % 10]))) for number in range(images)
    ]


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the processor and of the wall."""
    processor, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - wall


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--short-px", type=int, default=1_024, help="short side of the photographs")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vision = VitConfig(image_px=IMAGE_PX, patch_px=56, width=32, layers=1, heads=1)
    text = TextConfig(context_length=8, vocab_size=300, width=32, layers=1, heads=1)
    model = CLIP(ClipConfig(embed_dim=32, vision=vision, text=text)).eval().to(device)
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        images = write_photos(Path(scratch), chosen.images, chosen.short_px)

        def limit() -> None:
            with ThreadPoolExecutor(threads) as pool:
                for square_HWC in pool.map(lambda named: pixels(named[1].read(), IMAGE_PX), images):
                    assert square_HWC.shape == (IMAGE_PX, IMAGE_PX, 3)

        def embed() -> None:
            progress = Progress("", len(images), 0, lambda _: None)
            (judged,) = judged_parts([images], IMAGE_PX, BATCH, device, [model.encode_image_twice], progress)
            assert judged.found[0][-1].shape == (len(images), 32)

        def tower() -> None:
            square_BHWC = torch.zeros(BATCH, IMAGE_PX, IMAGE_PX, 3, dtype=torch.uint8)
            with torch.inference_mode():
                for _ in range(0, len(images), BATCH):
                    model.encode_image_twice(normalise(square_BHWC.to(device)))[1].cpu()

        limit(), embed()
        rounds = [(timed(limit), timed(embed), timed(tower)) for _ in range(chosen.rounds)]
    medians = [[statistics.median(found[which][clock] for found in rounds) for clock in (0, 1)] for which in range(3)]
    print(
        f"{chosen.images} images of {chosen.short_px} pixels, {threads} threads, {device.type}; {chosen.rounds} rounds, medians\n"
    )
    print("| | images per processor second | images/s |\n|---|---|---|")
    for name, (processor_s, wall_s) in zip(
        ("read, decode, resize: the limit", "the pass", "normalise, tower"), medians, strict=True
    ):
        print(f"| {name} | {chosen.images / processor_s:,.0f} | {chosen.images / wall_s:,.0f} |")
    by_clock = statistics.median(one[1] / other[1] for one, other, _ in rounds)
    by_processor = statistics.median(one[0] / other[0] for one, other, _ in rounds)
    print(
        f"\nThe pass reaches {by_clock:.0%} of the limit by the clock, {by_processor:.0%} by the processor (aim {AIM:.0%})."
    )
    return int(max(by_clock, by_processor) < AIM)


if __name__ == "__main__":
    raise SystemExit(main())
