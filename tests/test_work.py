"""What a run tells of its pace: arithmetic against hand counts, the share of the peak, and a loader that is too slow."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shards_for_model import write_shards
from small_runs import ALONE, RESNET, TEXT, TRAIN, go, new_run
from test_gradients import contrastive, pairs

from model.config import ClipConfig, VitConfig
from model.data.images import Decoder
from model.data.loader import Batch
from model.metrics import LoaderWatch
from model.objectives.objective import Inputs
from model.work import PEAKS, Work, peak_flop_per_s, peak_memory_gb

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=2, heads=2), text=TEXT)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("work") / "shards", TRAIN))


def block_flop(width: int, tokens: int) -> int:
    """Two operations for each multiplication: four projections, two layers four times as wide, two products of attention."""
    return 2 * tokens * (4 * width**2 + 8 * width**2) + 4 * tokens**2 * width


def as_inputs(batch: Batch) -> Inputs:
    return Inputs(batch.image_BHWC, batch.tokens_BL, torch.empty(len(batch.tokens_BL), 0))


def test_arithmetic_is_that_of_the_products_counted_by_hand() -> None:
    work, image_BHWC, tokens_BL = Work(contrastive(VIT)), *pairs(6)[:2]
    patches = 2 * 4 * 16 * (3 * 16 * 16)
    image = patches + 2 * block_flop(16, 5) + 2 * 16 * 16
    for length in (7, 4):
        text = block_flop(16, length) + 2 * 16 * 16
        batch = Batch(0, np.arange(6), image_BHWC, tokens_BL[:, -length:], captions_cut=0, waited_s=0.0)
        assert work.flop(batch, as_inputs) == 6 * 3 * (image + text)


def test_counting_leaves_the_model_as_it_was() -> None:
    objective = contrastive(RESNET)
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    batch = Batch(0, np.arange(4), *pairs(4)[:2], captions_cut=0, waited_s=0.0)
    assert Work(objective).flop(batch, as_inputs) > 0
    assert objective.training and all(module.training for module in objective.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())


def test_a_cpu_has_no_peak_and_uses_some_memory() -> None:
    assert peak_flop_per_s(CPU, "bf16") is None
    before = peak_memory_gb(CPU)
    block = np.ones(60_000_000)
    assert before > 0.1 and peak_memory_gb(CPU) >= block.nbytes / 1e9


def test_lines_tell_the_share_of_the_peak_where_it_is_known(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(tmp_path / "run", VIT, epochs=1)
    go(ALONE, folder, shards)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert "mfu" not in lines[0] and lines[0]["peak_memory_gb"] > 0.1
    monkeypatch.setitem(PEAKS, "cpu", (1e9, 2e9))
    folder = new_run(tmp_path / "known", VIT, epochs=1)
    go(ALONE, folder, shards)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines[:-1]:
        # All captions are about as long: within a factor of two of a pair of 16 tokens.
        flop = 3 * (2 * 4 * 16 * 768 + 2 * block_flop(16, 5) + block_flop(16, 12) + 2 * 2 * 16 * 16)
        assert line["mfu"] == pytest.approx(line["samples_per_s"] * flop / 2e9, rel=0.5)


def test_a_slow_loader_is_named_with_the_remedy(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slowly(decoder: Decoder, *arguments: Any) -> None:
        time.sleep(0.01)
        fill(decoder, *arguments)

    fill = Decoder.fill
    go(ALONE, new_run(tmp_path / "fast", VIT, epochs=8, loader_threads=4), shards)
    monkeypatch.setattr(Decoder, "fill", slowly)
    go(ALONE, new_run(tmp_path / "slow", VIT, epochs=8), shards)
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "bottleneck" in line)
    assert said.startswith("the loader is the bottleneck: ") and "train.loader_threads" in said


def test_advice_comes_once_after_the_start_and_looks_at_the_cores() -> None:
    watch = LoaderWatch(threads=2, processes=4, cores=16)
    said = [watch.advice(3.0, 1.0) for _ in range(200)]
    assert [number for number, sentence in enumerate(said) if sentence] == [22]
    assert said[22] == (
        "the loader is the bottleneck: 75% of the time the model waits for data; raise train.loader_threads, now 2 (x 4 "
        "processes, 16 cores)"
    )
    full = LoaderWatch(threads=4, processes=4, cores=16)
    assert "already uses all 16 cores" in str([full.advice(3.0, 1.0) for _ in range(30)])
    quick = LoaderWatch(threads=2, processes=4, cores=16)
    assert not any(quick.advice(1.0, 4.0) for _ in range(200))
    starting = LoaderWatch(threads=2, processes=4, cores=16)
    assert not any(starting.advice(9.0 if step < 3 else 0.0, 1.0) for step in range(30))
