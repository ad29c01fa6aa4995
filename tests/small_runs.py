"""Runs of a very small model, to be trained, stopped and killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from shards_for_model import colour_samples

from model.config import ClipConfig, PretrainConfig, ResNetConfig, TextConfig, TrainConfig
from model.distributed import Processes
from model.train import run

TRAIN, VAL = colour_samples(52), colour_samples(14, seed=1)
TEXT = TextConfig(context_length=16, vocab_size=300, width=16, layers=1, heads=2)
RESNET = ClipConfig(embed_dim=16, vision=ResNetConfig(image_px=32, width=8, blocks=(1, 1, 1, 1), heads=4), text=TEXT)
SETTINGS = TrainConfig(
    epochs=3,
    global_batch=12,
    warmup_steps=2,
    learning_rate=1e-3,
    log_every_steps=1,
    checkpoint_every_steps=5,
    loader_threads=1,
)
STEPS = 12
TIMING = ("samples_per_s", "data_wait_share", "mfu", "peak_memory_gb", "eta_s")
ALONE = Processes(0, 1, torch.device("cpu"))


def new_run(folder: Path, model: ClipConfig = RESNET, objective: dict[str, Any] | None = None, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    train = SETTINGS.model_copy(update=changes)
    given = {"objective": objective} if objective else {}
    config = PretrainConfig(name="test", dataset="colours", model=model, train=train, **given)
    (folder / "config.json").write_text(config.model_dump_json())
    return folder


def go(processes: Processes, folder: Path, shards: str, at: int = 0, action: str = "") -> bool:
    """Train until the end, or be killed or stopped when `at` steps are taken in this process's life."""
    asked = 0

    def stop_requested() -> bool:
        nonlocal asked
        asked += 1
        if action == "kill" and asked > at:
            os.kill(os.getpid(), signal.SIGKILL)
        return action == "stop" and asked > at

    run(folder, shards, processes, stop_requested)
    return True


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "done.json").read_bytes() == (other / "done.json").read_bytes()
