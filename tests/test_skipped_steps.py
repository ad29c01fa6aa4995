"""Steps whose loss or gradient is not finite: left out by all processes, counted, and not too many of them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ranks import run_ranks
from safetensors.torch import load_file
from shards_for_model import write_shards
from small_runs import ALONE, RESNET, SETTINGS, TEXT, TRAIN, assert_same_run, go, metrics, new_run
from torch import Tensor

from model import training
from model.config import ClipConfig, VitConfig
from model.data import Order
from model.distributed import Processes
from model.objectives.contrastive import Contrastive
from model.objectives.objective import Inputs, Outputs
from model.step import DivergedError

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2), text=TEXT)
BLACK = 20  # the number of the sample that cannot be learned from


def black_square() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


class NeverBlack(Contrastive):
    """CLIP whose first convolution of a black image is not a number."""

    def forward(self, inputs: Inputs) -> Outputs:
        is_black_B = inputs.image_BHWC.flatten(1).amax(dim=1) == 0
        hook = self.towers.visual.conv1.register_forward_hook(lambda module, given, out: _spoilt(out, is_black_B))
        outputs = super().forward(inputs)
        hook.remove()
        return outputs


class BadGradient(Contrastive):
    """CLIP whose gradient at a black image is not a number, while its loss is one."""

    def forward(self, inputs: Inputs) -> Outputs:
        outputs = super().forward(inputs)
        is_black_B1 = inputs.image_BHWC.flatten(1).amax(dim=1, keepdim=True) == 0
        outputs.rows[0].register_hook(lambda gradient_BD: torch.where(is_black_B1, torch.nan, gradient_BD))
        return outputs


def _spoilt(out: Tensor, is_black_B: Tensor) -> Tensor:
    return torch.where(is_black_B.view(-1, 1, 1, 1), torch.nan, out)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    pairs = [*TRAIN[:BLACK], (black_square(), "nothing"), *TRAIN[BLACK + 1 :]]
    return str(write_shards(tmp_path_factory.mktemp("black") / "shards", pairs))


def train(
    processes: Processes, folder: Path, shards: str, objective: type[Contrastive], at: int = 0, action: str = ""
) -> bool:
    before, training.build_objective = training.build_objective, objective
    try:
        return go(processes, folder, shards, at, action)
    finally:
        training.build_objective = before


def black_steps() -> list[int]:
    """The steps, from 1, that have the black image in their batch."""
    order = Order(len(TRAIN), SETTINGS.global_batch, SETTINGS.seed)
    steps = range(SETTINGS.epochs * order.steps_per_epoch)
    return [step + 1 for step in steps if BLACK in order.sample_ids(step)]


@pytest.mark.parametrize("objective", [NeverBlack, BadGradient])
def test_a_step_left_out_changes_nothing(objective: type[Contrastive], shards: str, tmp_path: Path) -> None:
    """Neither weights, nor batch norm's running statistics, nor the optimiser."""
    folder = new_run(tmp_path / "run", RESNET, checkpoint_every_steps=1, keep_checkpoints=99)
    train(ALONE, folder, shards, objective)
    first, *_ = steps = black_steps()
    lines = metrics(folder)
    assert [(line["step"], line["skipped_steps"]) for line in lines if line["kind"] == "skipped"] == [
        (step, number) for number, step in enumerate(steps, 1)
    ]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 13))
    assert lines[-2]["skipped_steps"] == len(steps) > 1
    before, after, later = (folder / f"checkpoints/step-{step:08d}" for step in (first - 1, first, first + 1))
    assert (before / "model.safetensors").read_bytes() == (after / "model.safetensors").read_bytes()
    states = [torch.load(path / "training_state.pt", weights_only=True)["optimizer"] for path in (before, after, later)]
    assert str(states[0]["state"]) == str(states[1]["state"]) != str(states[2]["state"])
    assert all(tensor.isfinite().all() for tensor in load_file(folder / "model.safetensors").values())


def test_resumed_at_a_step_left_out_it_gives_the_same_bits(shards: str, tmp_path: Path) -> None:
    straight, resumed = (new_run(tmp_path / name, VIT) for name in ("straight", "resumed"))
    assert run_ranks(2, train, straight, shards, NeverBlack) == [True, True]
    at = black_steps()[0]
    assert run_ranks(2, train, resumed, shards, NeverBlack, at, "stop") == [True, True]
    assert run_ranks(2, train, resumed, shards, NeverBlack) == [True, True]
    assert_same_run(resumed, straight)
    assert [line["step"] for line in metrics(resumed) if line["kind"] == "skipped"] == black_steps()


def test_too_many_in_a_row_end_the_run_and_name_the_sample(shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", VIT, max_skipped_steps=0)
    where = r"train/000020.tar: sample 000000020"
    says = rf"step {black_steps()[0]}: the loss is nan; 1 of the batch's samples .* \[20\] \(.*{where}\)"
    with pytest.raises(DivergedError, match=says):
        train(ALONE, folder, shards, NeverBlack)


class Never(Contrastive):
    def forward(self, inputs: Inputs) -> Outputs:
        outputs = super().forward(inputs)
        return outputs._replace(rows=tuple(torch.nan * row for row in outputs.rows))


def test_the_row_goes_on_over_a_resume(shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", VIT, max_skipped_steps=4)
    train(ALONE, folder, shards, Never, 3, "stop")
    with pytest.raises(DivergedError, match=re.escape("step 5: the loss is nan; the batch begins with samples [")):
        train(ALONE, folder, shards, Never)
    assert [line["step"] for line in metrics(folder)] == [1, 2, 3, 4]
