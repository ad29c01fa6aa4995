"""Several models in one pass over the images of all sets: what is decoded how often, and that each sees what it sees alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation_inputs import write_config, write_run, write_set, write_shards, write_split
from safetensors.torch import load_file

from model.config import EvaluateConfig
from model.evaluation import passes
from model.evaluation.embed_sets import ToEmbed, embed_sets
from model.evaluation.measure import subject_of
from model.evaluation.prepare import prepare

FILES = ("colours", "train/colours", "retrieval")


def test_images_are_decoded_once_for_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_split(write_set(tmp_path / "colours") / "train", per_class=2, first=100)
    shards = str(write_shards(tmp_path / "shards", [["a red thing"]] * 4, [["a red thing"], ["a blue thing"]]))
    work = []
    for number, image_px in enumerate((32, 48, 32)):
        run = write_run(tmp_path / f"run{number}", seed=number, image_px=image_px)
        out = write_config(tmp_path / f"out{number}", [tmp_path / "colours"])
        prepared = prepare(out, run, shards, EvaluateConfig.read(out / "config.json"))
        work.append(ToEmbed(prepared, subject_of(prepared), prepared.names))
    sizes: list[int] = []
    look = passes._pixels
    monkeypatch.setattr(passes, "_pixels", lambda image, px, by: (sizes.append(px), look(image, px, by))[1])
    assert embed_sets(work, lambda _line: None) == 6  # three splits, in two sizes
    images = 12 + 8 + 2
    assert (sizes.count(32), sizes.count(48)) == (images, images)
    together = [load_file(each.evaluation.features / f"{name}.safetensors") for each in work for name in FILES]
    assert embed_sets(work, lambda _line: None) == 0 and len(sizes) == 2 * images

    for each in work:
        for name in FILES:
            (each.evaluation.features / f"{name}.safetensors").unlink()
        assert embed_sets([each], lambda _line: None) == 3
    alone = [load_file(each.evaluation.features / f"{name}.safetensors") for each in work for name in FILES]
    for one, other in zip(together, alone, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(together[0]["features"], together[6]["features"])
