"""The moving average of the weights: by hand from the checkpoints of every step, in the finished model, over a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shards_for_model import write_shards
from small_runs import ALONE, TRAIN, VAL, assert_same_run, go, metrics, new_run

from model.checkpoint import read_config
from model.training import prepare

DECAY = 0.4


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("average") / "shards", TRAIN, VAL))


def test_the_finished_model_is_the_average_of_all_steps(shards: str, tmp_path: Path) -> None:
    """Its weights; batch norm's statistics are the last ones. What was learned on the way is as without it."""
    every = {"checkpoint_every_steps": 1, "keep_checkpoints": 99, "epochs": 1}
    run, plain = new_run(tmp_path / "run", ema_decay=DECAY, **every), new_run(tmp_path / "plain", **every)
    start = prepare(run, read_config(run), shards, ALONE)
    assert start is not None
    expected = {name.removeprefix("towers."): weight.detach() for name, weight in start.objective.named_parameters()}
    go(ALONE, run, shards)
    go(ALONE, plain, shards)
    for step in range(1, 5):
        weights = load_file(run / f"checkpoints/step-{step:08d}/model.safetensors")
        same = load_file(plain / f"checkpoints/step-{step:08d}/model.safetensors")
        assert all(torch.equal(weights[name], same[name]) for name in same)
        kept = min(DECAY, step / (9 + step))
        expected = {name: kept * average + (1 - kept) * weights[name] for name, average in expected.items()}
    finished = load_file(run / "model.safetensors")
    assert any(not torch.allclose(finished[name], weights[name], atol=1e-5) for name in expected)
    for name, tensor in finished.items():
        torch.testing.assert_close(tensor, expected.get(name, weights[name]), atol=1e-6, rtol=1e-5)


def test_it_is_what_validation_judges_and_it_outlives_a_stop(shards: str, tmp_path: Path) -> None:
    straight, resumed, plain = (
        new_run(tmp_path / name, ema_decay=0.0 if name == "plain" else 0.9) for name in ("straight", "resumed", "plain")
    )
    go(ALONE, straight, shards)
    go(ALONE, resumed, shards, 6, "stop")
    go(ALONE, resumed, shards)
    assert_same_run(resumed, straight)
    go(ALONE, plain, shards)
    for one, other in zip(metrics(straight), metrics(plain), strict=True):
        assert (one["loss"] == other["loss"]) == (one["kind"] != "validation")
