"""A folder of shards as docs/shards.md says, written by hand: coloured squares and captions that name the colour."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 50, 210), "yellow": (220, 210, 40)}


def colour_samples(samples: int, px: int = 32, seed: int = 0) -> list[tuple[bytes, str]]:
    """Noisy one-coloured JPEGs, a little wider than high, each with a caption."""
    noise = np.random.default_rng(seed)
    made = []
    for number in range(samples):
        name, rgb = list(COLOURS.items())[number % len(COLOURS)]
        pixels = np.array(rgb) + noise.integers(-25, 25, (px, px + 8, 3))
        jpeg = simplejpeg.encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8), quality=90)
        made.append((jpeg, f"A {name} square, number {number}"))
    return made


def write_shards(
    folder: Path, train: Sequence[tuple[bytes, str]], val: Sequence[tuple[bytes, str]] = (), per_shard: int = 10
) -> Path:
    """Write the shards, their indexes, samples.parquet and manifest.json; return the folder."""
    splits = {}
    digest = hashlib.sha256()
    for split, pairs in (("train", train), ("val", val)):
        (folder / split).mkdir(parents=True)
        shards = []
        for first in range(0, len(pairs), per_shard):
            shard = _write_shard(folder, split, first, pairs[first : first + per_shard])
            digest.update(shard["sha256"].encode())
            shards.append(shard)
        captions = pa.table({"caption": pa.array([caption for _, caption in pairs], pa.string())})
        pq.write_table(captions, folder / split / "samples.parquet")
        splits[split] = {"samples": len(pairs), "shards": shards}
    manifest = {"format_version": 1, "name": "colours", "splits": splits, "digest": digest.hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _write_shard(folder: Path, split: str, first: int, pairs: Sequence[tuple[bytes, str]]) -> dict:
    name = f"{split}/{first:06d}"
    with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (image, caption) in enumerate(pairs, start=first):
            for ending, data in (("jpg", image), ("txt", caption.encode()), ("json", b"{}")):
                member = tarfile.TarInfo(f"{number:09d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    rows = []
    with tarfile.open(folder / f"{name}.tar") as tar:
        members = tar.getmembers()
    data = (folder / f"{name}.tar").read_bytes()

    def bytes_of(member: tarfile.TarInfo) -> bytes:
        return data[member.offset_data : member.offset_data + member.size]

    for image, text, extra in zip(members[0::3], members[1::3], members[2::3], strict=True):
        rows.append(
            {
                "key": image.name.split(".")[0],
                "image_offset": image.offset_data,
                "image_size": image.size,
                "text_offset": text.offset_data,
                "text_size": text.size,
                "json_offset": extra.offset_data,
                "json_size": extra.size,
                "crc32": zlib.crc32(b"".join(map(bytes_of, (image, text, extra)))),
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.index.parquet")
    return {
        "file": f"{name}.tar",
        "index": f"{name}.index.parquet",
        "samples": len(pairs),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
