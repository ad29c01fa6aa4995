"""Half precision, clipped gradients and activations computed twice: what they change of a step, and what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shards_for_model import write_shards
from small_runs import ALONE, RESNET, TEXT, TRAIN, assert_same_run, go, metrics, new_run
from test_gradients import assert_same_gradients, gradients, pairs, statistics
from torch import nn

from model.checkpoint import read_config
from model.config import ClipConfig, PretrainConfig, TorchvisionConfig, VitConfig, objective_named
from model.gradients import backward
from model.objectives.build import build_objective
from model.objectives.objective import Objective
from model.recompute import recompute_blocks
from model.step import batches, train_step
from model.training import Training, prepare

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=2, heads=2), text=TEXT)
PLAIN = ClipConfig(embed_dim=16, vision=TorchvisionConfig(image_px=32, name="resnet18"), text=TEXT)
EFFICIENT = ClipConfig(embed_dim=16, vision=TorchvisionConfig(image_px=32, name="efficientnet_b0"), text=TEXT)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("precision") / "shards", TRAIN))


def prepared(folder: Path, shards: str) -> Training:
    training = prepare(folder, read_config(folder), shards, ALONE)
    assert training is not None
    return training


def norm_by_hand(module: nn.Module) -> float:
    return sum(float(gradient.double().square().sum()) for gradient in gradients(module).values()) ** 0.5


def one_step(training: Training) -> bool:
    """Take the first step; whether it was taken."""
    batch = next(batches(training, lambda: False))
    assert batch is not None
    return train_step(training, batch) is None


# --- clipping ---------------------------------------------------------------------------------------------------------


def test_long_gradients_are_scaled_down_and_short_ones_left_alone(shards: str, tmp_path: Path) -> None:
    free, clipped, roomy = (
        prepared(new_run(tmp_path / str(longest), VIT, clip_gradient_norm=longest), shards)
        for longest in (0.0, 0.01, 1e3)
    )
    assert one_step(free) and one_step(clipped) and one_step(roomy)
    assert free.gradient_norm == clipped.gradient_norm == pytest.approx(norm_by_hand(free.objective), rel=1e-5)
    assert norm_by_hand(clipped.objective) == pytest.approx(0.01, rel=1e-3)
    factor = 0.01 / free.gradient_norm
    scaled = {name: gradient * factor for name, gradient in gradients(free.objective).items()}
    for name, gradient in gradients(clipped.objective).items():
        torch.testing.assert_close(gradient, scaled[name], rtol=1e-3, atol=1e-9)
        assert torch.equal(gradients(roomy.objective)[name], gradients(free.objective)[name])


# --- fp16 -------------------------------------------------------------------------------------------------------------


def test_fp16_learns_what_fp32_does_and_resumes_to_the_bit(shards: str, tmp_path: Path) -> None:
    """Bar the first steps, which find the scale: this model's gradients are long."""
    runs = {name: new_run(tmp_path / name, VIT, precision=name[:4]) for name in ("fp32", "fp16", "fp16 resumed")}
    go(ALONE, runs["fp32"], shards)
    go(ALONE, runs["fp16"], shards)
    lines = metrics(runs["fp16"])
    assert [line["step"] for line in lines if line["kind"] == "skipped"] == [1, 2]
    ends = [[line["loss"] for line in told if line["kind"] == "train"][-1] for told in (metrics(runs["fp32"]), lines)]
    assert ends[1] == pytest.approx(ends[0], rel=0.1) and ends[1] != ends[0] and ends[1] < 0.75 * lines[2]["loss"]
    go(ALONE, runs["fp16 resumed"], shards, 7, "stop")
    go(ALONE, runs["fp16 resumed"], shards)
    assert_same_run(runs["fp16 resumed"], runs["fp16"])


def test_gradients_too_long_for_fp16_halve_the_scale_which_a_checkpoint_keeps(shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", VIT, precision="fp16", epochs=1)
    training = prepared(folder, shards)
    assert training.scaler.get_scale() == 2.0**16
    training.scaler.load_state_dict({**training.scaler.state_dict(), "scale": 2.0**60})
    before = {name: weight.clone() for name, weight in training.objective.named_parameters()}
    assert not one_step(training)
    assert training.scaler.get_scale() == 2.0**59
    assert all(torch.equal(weight, before[name]) for name, weight in training.objective.named_parameters())
    other = prepared(new_run(tmp_path / "other", VIT, precision="fp16", epochs=1), shards)
    other.scaler.load_state_dict(training.state()["scaler"])
    assert other.scaler.get_scale() == 2.0**59


def test_the_scale_leaves_the_gradients_as_they_are(shards: str, tmp_path: Path) -> None:
    full, half = (prepared(new_run(tmp_path / name, VIT, precision=name), shards) for name in ("fp32", "fp16"))
    half.scaler.load_state_dict({**half.scaler.state_dict(), "scale": 2.0**8})
    assert one_step(full) and one_step(half)
    assert half.gradient_norm == pytest.approx(full.gradient_norm, rel=2e-2)
    assert norm_by_hand(half.objective) == pytest.approx(half.gradient_norm, rel=1e-4)


# --- activations computed twice ---------------------------------------------------------------------------------------


def built(model: ClipConfig, kind: str) -> Objective:
    torch.manual_seed(0)
    objective = build_objective(PretrainConfig(name="a", dataset="b", model=model, objective=objective_named(kind)))
    for norm in (part for part in objective.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)  # else the blocks' last norms, which begin at zero, would hide the others
    return objective.train()


@pytest.mark.parametrize(
    ("model", "kind", "blocks"),
    [
        (VIT, "contrastive", 3),
        (RESNET, "contrastive", 5),
        (PLAIN, "contrastive", 9),
        (EFFICIENT, "contrastive", 17),
        (VIT, "captioning", 4),
        (VIT, "masked_lm", 3),
    ],
)
def test_activations_computed_twice_give_the_same_gradients(model: ClipConfig, kind: str, blocks: int) -> None:
    """Dropout (captioning, masked_lm) and batch norm's running statistics included."""
    kept, twice = built(model, kind), built(model, kind)
    assert recompute_blocks(twice) == blocks
    assert kept.state_dict().keys() == twice.state_dict().keys()
    saved = []
    for objective in (kept, twice):
        inputs = pairs(8)._replace(draws_BK=torch.full((8, objective.draws), 0.5))
        torch.manual_seed(5)
        held: dict[int, int] = {}

        def hold(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            outputs = objective(inputs)
        saved.append(sum(held.values()))
        objective.loss(outputs, ALONE).backward()
    assert_same_gradients(gradients(twice), gradients(kept))
    assert saved[1] < saved[0]
    for name, buffer in statistics(kept).items():
        assert torch.equal(statistics(twice)[name], buffer), name


def test_by_pieces_and_twice_is_still_the_whole() -> None:
    whole, pieces = built(VIT, "contrastive"), built(VIT, "contrastive")
    recompute_blocks(pieces)
    backward(whole, whole, pairs(12), ALONE, 0, precision="fp32")
    backward(pieces, pieces, pairs(12), ALONE, 5, precision="fp32")
    assert_same_gradients(gradients(pieces), gradients(whole))


def test_a_run_that_computes_twice_goes_on_from_one_that_does_not(shards: str, tmp_path: Path) -> None:
    straight, changed = (new_run(tmp_path / name, VIT) for name in ("straight", "changed"))
    go(ALONE, straight, shards)
    go(ALONE, changed, shards, 5, "stop")
    new_run(changed, VIT, gradient_checkpointing=True)
    go(ALONE, changed, shards)
    assert_same_run(changed, straight)
