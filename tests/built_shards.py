"""A small finished data set in its workspace, lists of what is to be taken out of it, and what is to be left."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from downloaded_parts import Pair, write_facts, write_part, write_taken_down
from upath import UPath

from flows.workspace import Workspace
from pipeline.config import BuildDatasetConfig, ImageConfig, ShardConfig
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.query import QueryConfig
from pipeline.shards import SHARDS, ShardsConfig
from pipeline.stage import StageResult
from pipeline.tombstones import TAKEN_DOWN, TakenDownConfig

QUERY = QueryConfig(threads=1)
IMAGES = ImageConfig(min_bytes=0, min_side_px=1)
CONFIG = ShardsConfig(
    config=BuildDatasetConfig(name="small", images=IMAGES, shards=ShardConfig(samples_per_shard=6, val_share=0.15))
)
NAMES = [hashlib.md5(str(number).encode()).hexdigest() for number in range(40)]


def picture(number: int) -> bytes:
    pixels_HWC = np.random.default_rng(number).integers(0, 255, (16, 24, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels_HWC))


PAIRS = [
    *(
        Pair(
            name,
            f"caption {number}",
            picture(number),
            size_px=(24, 16),
            host="b.example" if number == 9 else "a.example",
        )
        for number, name in enumerate(NAMES)
    ),
    Pair("0" * 32, "shown twice", picture(100), original="shared", size_px=(24, 16)),
    Pair("f" * 32, "the second page of it", picture(100), original="shared", size_px=(24, 16), host="c.example"),
]
BY_ID = {pair.pair_id: pair for pair in PAIRS}
LISTS = {
    "urls": f"HTTP://A.example:80/{NAMES[3]}.jpg#top\nhttp://a.example/nobody.jpg\n",
    "tombstones": f"{NAMES[5].upper()}\n{'f' * 32}  # the pair that is not in the shards itself\n",
    "hosts": "# all of it\n*.example.org\nb.example\n",
    "sha256": f"{BY_ID[NAMES[11]].sha256}\n",
}
GONE = {NAMES[3], NAMES[5], NAMES[9], NAMES[11], "0" * 32}


class Built:
    """A data set in its workspace, and the shards that a build without the pairs in GONE packs."""

    def __init__(self, root: Path) -> None:
        self.space = Workspace(UPath(root))
        self.data = self.space.dataset("small")
        folder = Path(self.data.root.path)
        parts = [write_part(folder, number, PAIRS[number::2]) for number in range(2)]
        selected, self.downloads = [part for part, _ in parts], [download for _, download in parts]
        facts = [write_facts(folder, number, PAIRS[number::2]) for number in range(2)]
        rules = ImageVerdictsConfig(images=IMAGES, query=QUERY)
        self.verdicts = IMAGE_VERDICTS.run(
            image_sources(selected, self.downloads, facts, []), self.data.whole("image_verdicts"), rules
        ).out
        write_taken_down(folder, self.verdicts, selected)
        shutil.rmtree(folder / "selected")
        (folder / "selection").rename(folder / "selected")
        self.packed(self.data.shards)

    def taken_down(self, tombstones: UPath | None) -> UPath:
        sources = [self.verdicts, self.data.whole("selected"), *([tombstones] if tombstones else [])]
        return TAKEN_DOWN.run(sources, self.data.whole("taken_down"), TakenDownConfig(query=QUERY)).out

    def packed(self, out: UPath, tombstones: UPath | None = None) -> StageResult:
        return SHARDS.run([self.verdicts, self.taken_down(tombstones), *self.downloads], out, CONFIG)


def opened(root: Path) -> Built:
    """A copy of a built workspace."""
    built = Built.__new__(Built)
    built.space = Workspace(UPath(root))
    built.data = built.space.dataset("small")
    built.downloads = built.data.parts("downloads")
    built.verdicts = built.data.whole("image_verdicts")
    return built


def listed(folder: Path) -> dict[Any, list[str]]:
    files = {}
    for name, text in LISTS.items():
        (folder / f"{name}.txt").write_text(text)
        files[name] = [str(folder / f"{name}.txt")]
    return files


def files_of(shards: Path) -> dict[str, bytes]:
    """All files, of the marker what does not change from run to run."""
    files = {str(path.relative_to(shards)): path.read_bytes() for path in shards.rglob("*") if path.is_file()}
    marker = json.loads(files["stage.json"])
    del marker["seconds"]
    return files | {"stage.json": json.dumps(marker).encode()}
