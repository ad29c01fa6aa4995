"""Adam in half precision: rounding without bias, against numpy's fp16, torch's AdamW and an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from shards_for_model import write_shards
from small_runs import ALONE, TEXT, TRAIN, assert_same_run, go, new_run
from torch import Tensor, nn

from model.checkpoint import newest_checkpoint
from model.config import ClipConfig, PretrainConfig, TrainConfig, VitConfig, objective_named
from model.errors import InputError
from model.half_adam import HalfAdamW, round_stochastically
from model.objectives.build import build_objective
from model.optim import build_optimizer

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2), text=TEXT)


# --- rounding ---------------------------------------------------------------------------------------------------------


def neighbours(exact: float) -> tuple[float, float]:
    """The two numbers of fp16 around one, by numpy."""
    nearest = np.float16(exact)
    if float(nearest) == exact:
        return exact, exact
    other = np.nextafter(nearest, np.float16(np.inf if float(nearest) < exact else -np.inf))
    low, high = sorted((float(nearest), float(other)))
    return low, high


@pytest.mark.parametrize("exact", [1.0003, -1.0003, 0.33333, 1.99999, 3e-5, -4.1e-8, 7e-9, 1234.567, 65503.9])
def test_the_mean_of_many_roundings_is_the_number(exact: float) -> None:
    """Within five standard deviations of a binomial distribution, and never another number than the two neighbours."""
    draws = 40_000
    given = torch.full((draws,), exact)
    exact = float(given[0])  # as fp32 has it
    rounded = round_stochastically(given, torch.Generator().manual_seed(1))
    low, high = neighbours(exact)
    assert set(rounded.tolist()) <= {low, high}
    share = (exact - low) / (high - low)
    ups = int((rounded == high).sum())
    assert abs(ups - draws * share) <= 5 * (draws * share * (1 - share)) ** 0.5 + draws * 2**-13


def test_numbers_of_fp16_stay_what_they_are() -> None:
    every = torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32))
    every = every[every.isfinite()]
    assert torch.equal(round_stochastically(every, torch.Generator().manual_seed(0)), every)
    beyond = torch.tensor([1e6, -1e6])
    assert round_stochastically(beyond, torch.Generator()).tolist() == [65504.0, -65504.0]


# --- the optimiser ----------------------------------------------------------------------------------------------------


def trajectory(make: object, steps: int, beta2: float = 0.98) -> tuple[list[Tensor], torch.optim.Optimizer]:
    """Weights after `steps` noisy steps with gradients of very different sizes, from the same start."""
    noise = torch.Generator().manual_seed(3)
    weights = [nn.Parameter(torch.randn(shape, generator=noise)) for shape in ((30, 20), (50,))]
    sizes = [10.0 ** (-8 * torch.rand(weight.shape, generator=noise)) for weight in weights]
    groups = [{"params": weights[:1], "weight_decay": 0.2}, {"params": weights[1:], "weight_decay": 0.0}]
    optimizer = make(groups, lr=1e-3, betas=(0.9, beta2), eps=1e-8)  # type: ignore[operator]
    for _ in range(steps):
        for weight, size in zip(weights, sizes, strict=True):
            weight.grad = size * (torch.randn(weight.shape, generator=noise) + 0.3)
        optimizer.step()
    return [weight.detach() for weight in weights], optimizer


def half(groups: list[dict[str, object]], half_statistics: bool = True, **options: object) -> HalfAdamW:
    return HalfAdamW(groups, seed=0, half_statistics=half_statistics, **options)  # type: ignore[arg-type]


def test_in_fp32_it_is_torchs_adamw() -> None:
    expected, _ = trajectory(torch.optim.AdamW, 50)
    found, _ = trajectory(lambda *given, **options: half(*given, half_statistics=False, **options), 50)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("beta2", [0.98, 0.999])
def test_half_statistics_take_nearly_the_same_way(beta2: float) -> None:
    """Gradients that differ by eight powers of ten in one tensor included."""
    (before, _), _ = trajectory(torch.optim.AdamW, 0)
    expected, _ = trajectory(torch.optim.AdamW, 300, beta2)
    found, optimizer = trajectory(half, 300, beta2)
    moved = float((expected[0] - before).abs().mean())
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) < 0.02 * moved
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    assert {value.dtype for value in states if value.ndim} == {torch.float16}


def test_the_default_is_torchs_own() -> None:
    torch.manual_seed(0)
    objective = build_objective(PretrainConfig(name="a", dataset="b", model=VIT))
    assert type(build_optimizer(objective, TrainConfig())) is torch.optim.AdamW
    assert type(build_optimizer(objective, TrainConfig(adam_statistics="fp16"))) is HalfAdamW


def test_weights_of_the_text_encoder_alone_are_of_fp16() -> None:
    torch.manual_seed(0)
    objective = build_objective(PretrainConfig(name="a", dataset="b", model=VIT))
    optimizer = build_optimizer(objective, TrainConfig(text_weights="fp16_stochastic"))
    for weight in objective.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    rounded = {
        name.removeprefix("towers.")
        for name, weight in objective.named_parameters()
        if torch.equal(weight, weight.half().float())
    }
    block = "transformer.resblocks.0"
    assert rounded == {
        "positional_embedding",
        "token_embedding.weight",
        "text_projection",
        *(f"{block}.{name}" for name in ("attn.in_proj_weight", "attn.out_proj.weight")),
        *(f"{block}.{name}" for name in ("mlp.c_fc.weight", "mlp.c_proj.weight")),
    }


def test_small_updates_of_fp16_weights_add_up() -> None:
    """A thousand updates, each a twentieth of the distance between two numbers: to the nearest, none would be left."""
    weight = nn.Parameter(torch.full((500,), 1.0))
    rate = 2.0**-10 / 20
    optimizer = HalfAdamW([{"params": [weight]}], rate, (0.0, 0.0), 1e-12, 0, False, half_weights=[weight])
    for _ in range(1000):
        weight.grad = torch.full((500,), -1.0)
        optimizer.step()
    assert float(weight.detach().mean()) == pytest.approx(1 + 1000 * rate, rel=2e-3)
    assert torch.equal(weight, weight.half().float())


def test_without_a_text_encoder_it_is_refused() -> None:
    config = PretrainConfig(name="a", dataset="b", model=VIT, objective=objective_named("bag_of_words"))
    with pytest.raises(InputError, match="no text encoder; set it to fp32"):
        build_optimizer(build_objective(config), TrainConfig(text_weights="fp16_stochastic"))


def test_stopped_and_started_again_gives_the_same_bits(tmp_path: Path) -> None:
    shards = str(write_shards(tmp_path / "shards", TRAIN))
    halves = {"adam_statistics": "fp16", "text_weights": "fp16_stochastic"}
    straight, resumed = (new_run(tmp_path / name, VIT, **halves) for name in ("straight", "resumed"))
    go(ALONE, straight, shards)
    go(ALONE, resumed, shards, 7, "stop")
    newest = newest_checkpoint(resumed)
    assert newest is not None
    state = torch.load(newest[0] / "training_state.pt", weights_only=True)["optimizer"]["state"]
    assert {state[number]["first"].dtype for number in state} == {torch.float16}
    go(ALONE, resumed, shards)
    assert_same_run(resumed, straight)
