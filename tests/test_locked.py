"""Locked towers: what is locked stays as it was to the bit, what is not learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from shards_for_model import write_shards
from small_runs import ALONE, RESNET, SETTINGS, TRAIN, VAL, assert_same_run, go
from test_gradients import pairs

from model.config import PretrainConfig, objective_named
from model.data import normalise
from model.errors import InputError
from model.objectives.build import build_objective
from model.training import prepare


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("locked") / "shards", TRAIN, VAL))


def configured(folder: Path, start_from: str = "", **changes: Any) -> Path:
    folder.mkdir(parents=True)
    train = SETTINGS.model_copy(update={"epochs": 1, "learning_rate": 1e-2, **changes})
    config = PretrainConfig(name="test", dataset="colours", model=RESNET, train=train, start_from=start_from)
    (folder / "config.json").write_text(config.model_dump_json())
    return folder


@pytest.fixture(scope="module")
def first(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to start from, whose batch norm has learned statistics."""
    folder = configured(tmp_path_factory.mktemp("first") / "run")
    go(ALONE, folder, shards)
    return folder


@pytest.mark.parametrize("locked", ["image", "text"])
def test_the_locked_tower_stays_to_the_bit(locked: str, first: Path, shards: str, tmp_path: Path) -> None:
    straight, resumed = (
        configured(tmp_path / name, start_from=str(first), locked=locked, validate_every_epochs=1, epochs=2)
        for name in ("straight", "resumed")
    )
    go(ALONE, straight, shards)
    before, after = (load_file(folder / "model.safetensors") for folder in (first, straight))
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    of_image = {name for name in after if name.startswith("visual.")}
    learning = set(after) - of_image if locked == "image" else of_image | {"logit_scale"}
    assert changed == learning
    state = torch.load(straight / "checkpoints/step-00000008/training_state.pt", weights_only=True)["optimizer"]
    assert len(state["state"]) == len([name for name in learning if "running" not in name and "tracked" not in name])
    go(ALONE, resumed, shards, 6, "stop")
    go(ALONE, resumed, shards)
    assert_same_run(resumed, straight)


def test_a_locked_image_tower_trains_with_the_features_it_is_judged_by(
    first: Path, shards: str, tmp_path: Path
) -> None:
    folder = configured(tmp_path / "run", start_from=str(first), locked="image")
    training = prepare(folder, PretrainConfig.read(folder / "config.json"), shards, ALONE)
    assert training is not None and training.objective.training
    image_BCHW = normalise(pairs(6).image_BHWC)
    with torch.no_grad():
        in_training = training.objective.encode_image(image_BCHW)
        judged = training.objective.eval().encode_image(image_BCHW)
    assert torch.equal(in_training, judged)


def test_without_a_run_to_start_from_there_is_nothing_to_lock() -> None:
    train = SETTINGS.model_copy(update={"locked": "image"})
    with pytest.raises(
        ValidationError, match=r"train\.locked image keeps a tower that has learned nothing; name a run in"
    ):
        PretrainConfig(name="a", dataset="b", train=train)


def test_an_objective_without_a_text_tower_cannot_lock_it() -> None:
    config = PretrainConfig(name="a", dataset="b", model=RESNET, objective=objective_named("bag_of_words"))
    with pytest.raises(InputError, match="this objective has no text tower"):
        build_objective(config).lock("text")
