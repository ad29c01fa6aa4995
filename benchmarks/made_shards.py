"""Shards of made pictures and captions, for the benchmarks of the training side.

A picture is noise whose spectrum falls as that of photographs does (amplitude 1 / f^1.5), so that a JPEG of it is about as
large, and as slow to decode, as one of a photograph: some 35 kB at 224 pixels and quality 95. Captions are common words
and made-up ones.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from pipeline.tars import ShardWriter

SPECTRUM = 1.5
COLOUR_SHARE = 0.4  # of the colours' own noise beside the common one
RATIOS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)
DIFFERENT_PICTURES = 96
WORDS = "a the of in on with photo red blue old new stock image house street river man woman dog cat vector design best"
RARE_WORDS = 4_000
SAMPLES_PER_SHARD = 128


def write_shards(folder: Path, samples: int, short_side_px: int, quality: int, words: tuple[int, int]) -> list[str]:
    """A train split of `samples` pairs, whose captions have that many words (from, to); returns the captions."""
    draw = np.random.default_rng(0)
    pictures = [_picture(draw, short_side_px, quality) for _ in range(min(samples, DIFFERENT_PICTURES))]
    captions = [_caption(draw, int(draw.integers(words[0], words[1] + 1))) for _ in range(samples)]
    shards = []
    (folder / "train").mkdir(parents=True)
    for number, first in enumerate(range(0, samples, SAMPLES_PER_SHARD)):
        with ShardWriter(folder, f"train/{number:06d}.tar") as shard:
            for sample in range(first, min(first + SAMPLES_PER_SHARD, samples)):
                shard.add(f"{sample:09d}", pictures[sample % len(pictures)], captions[sample].encode(), b"{}")
        shards.append(shard.entry)
    pq.write_table(pa.table({"caption": captions}), folder / "train" / "samples.parquet")
    digest = hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest()
    splits = {"train": {"samples": samples, "shards": shards}}
    manifest = {"format_version": 1, "name": "made", "digest": digest, "splits": splits}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return captions


def _picture(draw: np.random.Generator, short_side_px: int, quality: int) -> bytes:
    ratio = float(draw.choice(RATIOS))
    height, width = round(short_side_px * max(1, 1 / ratio)), round(short_side_px * max(1, ratio))
    common_HW = _noise(draw, height, width)
    pixels_HWC = np.stack([common_HW + COLOUR_SHARE * _noise(draw, height, width) for _ in range(3)], axis=-1)
    stored_HWC = np.clip(128 + 55 * pixels_HWC / pixels_HWC.std(), 0, 255).astype(np.uint8)
    return bytes(simplejpeg.encode_jpeg(stored_HWC, quality, colorsubsampling="420"))


def _noise(draw: np.random.Generator, height: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    made = np.fft.irfft2(np.fft.rfft2(draw.normal(size=(height, width))) / frequency**SPECTRUM, (height, width))
    return made / made.std()


def _caption(draw: np.random.Generator, words: int) -> str:
    """Mostly common words, some made of syllables, as names and codes are in captions from the web."""
    common = WORDS.split()
    rare = draw.integers(0, RARE_WORDS, words)
    syllables = ("ka", "lor", "ten", "mi", "sor", "val", "ber", "in")
    return " ".join(
        common[number % len(common)]
        if is_common
        else syllables[number % 8] + syllables[number // 8 % 8] + syllables[number // 64 % 8]
        for number, is_common in zip(rare.tolist(), draw.random(words) < 0.7, strict=True)
    )
