"""Compiled steps: the same run as without, under the same names, and one compilation for captions of any length."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from shards_for_model import write_shards
from small_runs import ALONE, TEXT, TRAIN, VAL, go, metrics, new_run
from test_gradients import assert_same_gradients, contrastive, gradients, pairs
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from model.compiling import compile_blocks, require_compiler
from model.config import ClipConfig, VitConfig
from model.errors import InputError
from model.gradients import backward

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=2, heads=2), text=TEXT)
COMPILER = os.environ.get("CXX", "g++")
needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no C++ compiler ({COMPILER}) here")
pytestmark = pytest.mark.timeout(600)


def names_in(path: Path) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


def losses(folder: Path, kind: str) -> list[float]:
    return [line["loss"] for line in metrics(folder) if line["kind"] == kind]


@needs_compiler
@pytest.mark.slow
def test_a_compiled_run_is_the_run(tmp_path: Path) -> None:
    """With activations computed twice, an average of the weights and validation; and one that is not compiled goes on from it."""
    shards = str(write_shards(tmp_path / "shards", TRAIN, VAL))
    plain, compiled = (
        new_run(tmp_path / str(compile), VIT, compile=compile, gradient_checkpointing=True, ema_decay=0.9)
        for compile in (False, True)
    )
    go(ALONE, plain, shards)
    torch._dynamo.reset()
    counters.clear()
    go(ALONE, compiled, shards, 7, "stop")
    # One kind of block for images, one for texts of any length, and what tries the compiler; validation adds none.
    assert counters["stats"]["unique_graphs"] == 3 and not counters["graph_break"]
    new_run(compiled, VIT, gradient_checkpointing=True, ema_decay=0.9)
    go(ALONE, compiled, shards)
    for kind in ("train", "validation"):
        assert losses(compiled, kind) == pytest.approx(losses(plain, kind), rel=1e-4)
    assert names_in(compiled / "model.safetensors") == names_in(plain / "model.safetensors")


@needs_compiler
@pytest.mark.slow
def test_longer_captions_are_not_compiled_anew() -> None:
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
        if length == 7:
            graphs = counters["stats"]["unique_graphs"]
    assert counters["stats"]["unique_graphs"] == graphs


def test_a_machine_without_compiler_is_told_what_to_install() -> None:
    torch._dynamo.reset()  # what was compiled before needs no compiler
    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(InputError, match=r"train\.compile: .*compiler.*install") as told,
    ):
        require_compiler(torch.device("cpu"))
    assert "\n" not in str(told.value)
