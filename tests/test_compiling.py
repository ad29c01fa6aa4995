"""Compiled steps: the same run as without, under the same names, and one compilation for captions of any length.

Every kernel that becomes C++ costs about a second where it was not compiled before, so only what depends on that code is
compiled to it; the rest goes the same way but for the last stage (`aot_eager`: traced and differentiated, then run as it is).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from shards_for_model import write_shards
from small_runs import ALONE, TEXT, TRAIN, VAL, go, metrics, new_run
from test_gradients import assert_same_gradients, by_hand, contrastive, gradients, pairs
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch.nn import functional

from model.compiling import compile_blocks, require_compiler, uncompiled
from model.config import ClipConfig, VitConfig
from model.errors import InputError
from model.gradients import backward
from model.recompute import recompute_blocks
from model.transformer import Block

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=2, heads=2), text=TEXT)
COMPILER = os.environ.get("CXX", "g++")
needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no C++ compiler ({COMPILER}) here")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Nothing compiled is left of another test, and the compiler is not tried out for each kind of vector instructions."""
    torch._dynamo.reset()
    counters.clear()
    with inductor.patch({"cpp.vec_isa_ok": False}):
        yield


def names_in(path: Path) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


def losses(folder: Path, kind: str) -> list[float]:
    return [line["loss"] for line in metrics(folder) if line["kind"] == kind]


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of compiling but for the code that is generated."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def test_a_compiled_run_is_the_run(tmp_path: Path, as_it_is: None) -> None:
    """With activations computed twice, an average of the weights and validation; and one that is not compiled goes on from it."""
    shards = str(write_shards(tmp_path / "shards", TRAIN, VAL))
    plain, compiled = (
        new_run(tmp_path / str(compile), VIT, compile=compile, gradient_checkpointing=True, ema_decay=0.9)
        for compile in (False, True)
    )
    go(ALONE, plain, shards)
    assert not counters["stats"]
    go(ALONE, compiled, shards, 7, "stop")
    # One kind of block for images, one for texts of any length, and what tries the compiler; validation adds none.
    assert counters["stats"]["unique_graphs"] == 3 and not counters["graph_break"]
    new_run(compiled, VIT, gradient_checkpointing=True, ema_decay=0.9)
    go(ALONE, compiled, shards)
    for kind in ("train", "validation"):
        assert losses(compiled, kind) == pytest.approx(losses(plain, kind), rel=1e-4)
    assert names_in(compiled / "model.safetensors") == names_in(plain / "model.safetensors")


def test_longer_captions_are_not_compiled_anew(as_it_is: None) -> None:
    plain, compiled = contrastive(VIT), contrastive(VIT)
    assert compile_blocks(compiled) == 3
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for length in (7, 5, 12):
        tokens_BL = torch.full((12, length), 299)
        tokens_BL[:, :-1] = torch.arange(1, 12 * (length - 1) + 1).view(12, length - 1)
        inputs = pairs(12)._replace(tokens_BL=tokens_BL)
        for objective in (plain, compiled):
            objective.zero_grad()
            backward(objective, objective, inputs, ALONE, 0, precision="fp32")
        assert_same_gradients(gradients(compiled), gradients(plain))
        assert counters["stats"]["unique_graphs"] == 2


class DroppingBlock(Block):
    """Drops, in two shapes, as the blocks of masked_lm do; less of it is to be compiled."""

    def forward(self, x_BLC: Tensor) -> Tensor:
        x_BLC = x_BLC + functional.dropout(self.ln_1(x_BLC), 0.5, self.training)
        return x_BLC + functional.dropout(x_BLC[:, :1], 0.5, self.training)


@needs_compiler
@pytest.mark.slow
def test_compiled_passes_drop_the_same() -> None:
    """Compiled code draws numbers of its own, and is other code where no gradient is needed: both passes of feature caching, and
    those of activations computed twice, must drop the same all the same."""
    objective = contrastive(VIT)
    tower = objective.towers.visual.transformer
    tower.resblocks[0] = DroppingBlock(16, heads=2, causal=False, activation="gelu")
    assert compile_blocks(tower.resblocks[:1]) == 1
    passes: list[Tensor] = []
    objective.register_forward_hook(lambda module, given, outputs: passes.append(outputs.rows[0].detach()))

    def found(seed: int) -> dict[str, Tensor]:
        passes.clear()
        objective.zero_grad()
        torch.manual_seed(seed)
        backward(objective, objective, pairs(12), ALONE, 4, precision="fp32")
        return {name: gradient.clone() for name, gradient in gradients(objective).items()}

    torch.manual_seed(7)
    by_hand(objective, pairs(12), 4)
    expected, in_one_pass = gradients(objective), passes[:]
    assert_same_gradients(found(7), expected)
    assert len(in_one_pass) == 3 and len(passes) == 6
    for once, first, second in zip(in_one_pass, passes[:3], passes[3:], strict=True):
        torch.testing.assert_close(first, once)
        torch.testing.assert_close(second, once)
    found(8)
    assert not torch.allclose(passes[0], in_one_pass[0], atol=1e-2)
    recompute_blocks(objective)
    assert_same_gradients(found(7), expected)
    objective.eval()
    with torch.no_grad():
        compiled = objective(pairs(12)).rows[0]
        with uncompiled():
            torch.testing.assert_close(compiled, objective(pairs(12)).rows[0])


def test_a_machine_without_compiler_is_told_what_to_install() -> None:
    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(InputError, match=r"train\.compile: .*compiler.*install") as told,
    ):
        require_compiler(torch.device("cpu"))
    assert "\n" not in str(told.value)
