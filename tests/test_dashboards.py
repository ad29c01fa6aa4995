"""What TensorBoard and W&B show is what metrics.jsonl says, also after a resume."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from shards_for_model import write_shards
from small_runs import ALONE, TEXT, TRAIN, VAL, go, metrics, new_run

from model.config import ClipConfig, VitConfig
from model.errors import InputError
from model.metrics import MetricsFile, read_metrics

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2), text=TEXT)
HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("dashboards") / "shards", TRAIN, VAL))


@pytest.mark.skipif(not HAS_TENSORBOARD, reason="the extra tensorboard is not installed")
def test_tensorboard_reads_what_the_file_says(shards: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = new_run(tmp_path / "run", VIT, dashboards=("tensorboard",))
    go(ALONE, folder, shards, 7, "stop")
    go(ALONE, folder, shards)
    shown = EventAccumulator(str(folder / "tensorboard"))
    shown.Reload()
    for kind in ("train", "validation"):
        expected = [(line["step"], pytest.approx(line["loss"])) for line in metrics(folder) if line["kind"] == kind]
        assert [(event.step, event.value) for event in shown.Scalars(f"{kind}/loss")] == expected


@pytest.mark.skipif(HAS_TENSORBOARD, reason="tensorboard is installed here, so nothing is missing")
def test_a_missing_extra_is_named(shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", VIT, dashboards=("tensorboard",))
    with pytest.raises(InputError, match=r"tensorboard, which is not installed; install the extra: .*\[tensorboard\]"):
        go(ALONE, folder, shards)


class Broken:
    """A dashboard whose service is gone."""

    def __init__(self) -> None:
        self.asked = 0

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.asked += 1
        raise ConnectionError("nobody answers")

    def close(self) -> None:
        """Nothing is open."""


def test_a_dashboard_that_breaks_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Broken()
    file = MetricsFile(tmp_path / "metrics.jsonl", 0, [broken])
    for step in (1, 2):
        file.write("train", step=step, loss=1.0, learning_rate=0.1, logit_scale=1.0)
    assert broken.asked == 1 and len(read_metrics(tmp_path / "metrics.jsonl")) == 2
    assert capsys.readouterr().err == "warning: Broken is left out from now on: nobody answers\n"


def test_wandb_keeps_what_the_file_says_without_a_network(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "200")
    folder = new_run(tmp_path / "run", VIT, epochs=1, dashboards=("wandb",))
    go(ALONE, folder, shards)
    (kept,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    lines = [line for line in metrics(folder) if line["kind"] in ("train", "validation")]
    wanted = {text.encode() for line in lines for text in (repr(line["loss"]), f"{line['kind']}/loss")}
    deadline = time.monotonic() + 60
    while not all(text in kept.read_bytes() for text in wanted):  # its own process writes, when it comes to it
        assert time.monotonic() < deadline, kept.read_bytes()
        time.sleep(0.1)
