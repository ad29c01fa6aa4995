"""The evaluation sets of the tiny web, in the folder layout that CLIP_benchmark reads (`wds/...`)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field
from upath import UPath

from pipeline.settings import Settings
from pipeline.stage import Counts, Stage
from pipeline.tiny_web.config import TinyWebConfig
from pipeline.tiny_web.painting import render_jpeg
from pipeline.tiny_web.scenes import (
    ALL_COMBINATIONS,
    HELD_OUT_COMBINATIONS,
    TRAINING_COMBINATIONS,
    Combination,
    Scene,
    draw_scene,
)

EVALUATION_COMBINATIONS: dict[str, tuple[Combination, ...]] = {
    "tiny-web-unseen": HELD_OUT_COMBINATIONS,
    "tiny-web-seen": TRAINING_COMBINATIONS,
}
"""The sets, and which combinations their images show. The candidates are all 64 in both, so chance is 1 in 64."""

TEMPLATES = (
    "this is a photo of a {c}",
    "Photo of a {c} from our album",
    "a picture of a {c} for you",
    "This is a {c}.",
    "There is a {c}.",
    "Here you can see a {c}.",
    "Look at this {c}!",
    "an image of a {c}",
    "a simple drawing of a {c}",
    "All you see is a {c}.",
)


def evaluation_scene(seed: int, name: str, index: int) -> Scene:
    """Image `index` of an evaluation set: one thing, classes in turn, everything else drawn."""
    return _scene(seed, f"{name}/{index}", EVALUATION_COMBINATIONS[name], index)


def training_scene(seed: int, name: str, index: int) -> Scene:
    """Image `index` of the set's training split: of all classes, so that a probe has as many to choose from as zero-shot."""
    return _scene(seed, f"{name}/train/{index}", ALL_COMBINATIONS, index)


def _scene(seed: int, key: str, combinations: Sequence[Combination], index: int) -> Scene:
    return draw_scene(seed, key, combinations=(combinations[index % len(combinations)],), second_share=0.0)


class EvaluationSetConfig(Settings):
    """All that one of the sets depends on."""

    name: str = Field(description="One of EVALUATION_COMBINATIONS")
    seed: int = Field(0, ge=0, description="Seed of the embedded web")
    images: int = Field(600, ge=24, description="Images of the set")
    train_images: int = Field(0, ge=0, description="Images of its training split; 0 = none")


def evaluation_sets(config: TinyWebConfig) -> list[EvaluationSetConfig]:
    """The sets that belong to an embedded web."""
    return [
        EvaluationSetConfig(
            name=name,
            seed=config.seed,
            images=config.evaluation_images,
            train_images=config.evaluation_train_images,
        )
        for name in EVALUATION_COMBINATIONS
    ]


def _evaluation_set(sources: Sequence[UPath], out: Path, config: EvaluationSetConfig) -> Counts:
    """classnames.txt, zeroshot_classification_templates.txt, test/nshards.txt and test/0.tar, and train/ with the same.

    The members of a tar are KEY.jpg and KEY.cls (the class number as text). The same configuration gives the same bytes.
    """
    _write_lines(out / "classnames.txt", [combination.name for combination in ALL_COMBINATIONS])
    _write_lines(out / "zeroshot_classification_templates.txt", TEMPLATES)
    _write_split(out / "test", config, evaluation_scene, config.images)
    if config.train_images:
        _write_split(out / "train", config, training_scene, config.train_images)
    images = config.images + config.train_images
    return Counts(rows_in=images, rows_kept=images)


EVALUATION_SET = Stage("evaluation_set", _evaluation_set)
"""Needs no sources: everything follows from the configuration."""


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_split(
    folder: Path, config: EvaluationSetConfig, scene_of: Callable[[int, str, int], Scene], images: int
) -> None:
    numbers = {combination: number for number, combination in enumerate(ALL_COMBINATIONS)}
    folder.mkdir()
    _write_lines(folder / "nshards.txt", ["1"])
    with tarfile.open(folder / "0.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(images):
            scene = scene_of(config.seed, config.name, index)
            _add(tar, f"{index:06d}.jpg", render_jpeg(config.seed, scene))
            _add(tar, f"{index:06d}.cls", str(numbers[scene.main.combination]).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))
