"""The truth about the tiny web as a stage: what a correct pipeline must say, and what a crawl of it depends on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from upath import UPath

from pipeline.stage import Counts, Stage
from pipeline.tiny_web.config import TinyWebConfig
from pipeline.tiny_web.world import World

TRUTH_FILE = "truth.json"


def _truth(sources: Sequence[UPath], out: Path, config: TinyWebConfig) -> Counts:
    world = World(config)
    told = {"config": config.model_dump(mode="json"), "expected_counts": world.expected_counts()}
    (out / TRUTH_FILE).write_text(json.dumps(told, indent=2, sort_keys=True), encoding="utf-8")
    pairs = len(world.truth())
    return Counts(rows_in=pairs, rows_kept=pairs)


TRUTH = Stage("tiny_web_truth", _truth)
"""Needs no sources. A crawl of the tiny web takes it as its source, for its pages change with the configuration alone."""
