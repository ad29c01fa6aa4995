"""The evaluation sets of the tiny web, in the folder layout that CLIP_benchmark reads (`wds/...`)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from upath import UPath

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


def evaluation_scene(config: TinyWebConfig, name: str, index: int) -> Scene:
    """Image `index` of an evaluation set: one thing, classes in turn, everything else drawn."""
    combinations = EVALUATION_COMBINATIONS[name]
    return draw_scene(
        config.seed, f"{name}/{index}", combinations=(combinations[index % len(combinations)],), second_share=0.0
    )


def write_evaluation_sets(config: TinyWebConfig, out: Path) -> int:
    """Write one folder for each set into `out`; return the number of images.

    NAME/classnames.txt, NAME/zeroshot_classification_templates.txt, NAME/test/nshards.txt and NAME/test/0.tar, whose
    members are KEY.jpg and KEY.cls (the class number as text). The same configuration gives the same bytes.
    """
    for name in EVALUATION_COMBINATIONS:
        folder = out / name / "test"
        folder.mkdir(parents=True)
        _write_lines(out / name / "classnames.txt", [combination.name for combination in ALL_COMBINATIONS])
        _write_lines(out / name / "zeroshot_classification_templates.txt", TEMPLATES)
        _write_lines(folder / "nshards.txt", ["1"])
        _write_tar(config, name, folder / "0.tar")
    return config.evaluation_images * len(EVALUATION_COMBINATIONS)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_tar(config: TinyWebConfig, name: str, path: Path) -> None:
    numbers = {combination: number for number, combination in enumerate(ALL_COMBINATIONS)}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(config.evaluation_images):
            scene = evaluation_scene(config, name, index)
            _add(tar, f"{index:06d}.jpg", render_jpeg(config.seed, scene))
            _add(tar, f"{index:06d}.cls", str(numbers[scene.main.combination]).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def _evaluation_sets(sources: Sequence[UPath], out: Path, config: TinyWebConfig) -> Counts:
    images = write_evaluation_sets(config, out)
    return Counts(rows_in=images, rows_kept=images)


EVALUATION_SETS = Stage("evaluation_sets", _evaluation_sets)
"""Needs no sources: everything follows from the configuration."""
