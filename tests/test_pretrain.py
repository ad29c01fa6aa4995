"""The flow `pretrain`, but for the training: what it freezes, and what it reads of a run."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from flows.artifacts import CURVE_POINTS, _thin, read_metrics
from flows.pretrain import freeze_config, pretrain, read_config
from flows.recipes import tiny
from model.config import DataConfig, PretrainConfig, TrainConfig
from pipeline.errors import InputError

LARGE, SMALL = (
    tiny().pretrain.model_copy(update={"train": tiny().pretrain.train.model_copy(update={"global_batch": batch})})
    for batch in (128, 32)
)


def test_every_data_set_of_a_mix_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "datasets/tiny/shards").mkdir(parents=True)
    (tmp_path / "datasets/tiny/shards/manifest.json").write_text("{}")
    mixed = tiny().pretrain.model_copy(update={"data": DataConfig(mix={"more": 1, "tiny": 2})})
    with pytest.raises(
        InputError, match=r"datasets/more/shards: no manifest\.json.*wit build-dataset RECIPE --name more"
    ):
        pretrain.fn(mixed, str(tmp_path))
    assert not (tmp_path / "runs").exists()


def test_a_run_that_has_learned_nothing_may_be_configured_anew(tmp_path: Path) -> None:
    """As after: the training split has fewer samples than one global batch; lower global_batch."""
    freeze_config(tmp_path / "run", LARGE)
    (tmp_path / "run/checkpoints/.step-00000005.partial").mkdir(parents=True)
    freeze_config(tmp_path / "run", SMALL)
    assert read_config(tmp_path / "run") == SMALL
    (tmp_path / "run/config.json").write_text("{")
    freeze_config(tmp_path / "run", LARGE)
    assert read_config(tmp_path / "run") == LARGE


@pytest.mark.parametrize("learned", ["done.json", "checkpoints/step-00000005"])
def test_a_run_that_has_learned_keeps_its_configuration(learned: str, tmp_path: Path) -> None:
    freeze_config(tmp_path, LARGE)
    (tmp_path / learned).mkdir(parents=True)
    with pytest.raises(InputError, match=r"another configuration \(train\.global_batch: 128 then, 32 now\)"):
        freeze_config(tmp_path, SMALL)
    assert read_config(tmp_path) == LARGE


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"", b'{"name": "tiny"}'])
def test_a_damaged_configuration_is_named_and_can_be_deleted(content: bytes, tmp_path: Path) -> None:
    freeze_config(tmp_path, LARGE)
    (tmp_path / "done.json").write_text("{}")
    (tmp_path / "config.json").write_bytes(content)
    told = rf"{re.escape(str(tmp_path))}/config\.json: .*delete it: the run's wit pretrain command writes it again"
    with pytest.raises(InputError, match=told):
        freeze_config(tmp_path, LARGE)
    (tmp_path / "config.json").unlink()
    freeze_config(tmp_path, LARGE)
    assert read_config(tmp_path) == LARGE


@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
def test_a_number_that_is_not_finite_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match=r"learning_rate\n.*finite number"):
        TrainConfig.model_validate({"learning_rate": number})
    with pytest.raises(ValueError, match=r"train\.weight_decay\n.*finite number"):
        PretrainConfig.model_validate({"name": "a", "dataset": "b", "train": {"weight_decay": float(number)}})


GOOD = b'{"kind": "train", "step": 1, "loss": 2.5}\n'


def test_metrics_but_for_a_line_that_a_kill_cut_off(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(GOOD + GOOD[:20])
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"kind": "train", "step": 1, "loss": 2.5}]


def test_every_kind_of_line_that_a_run_writes_can_be_read(tmp_path: Path) -> None:
    lines = [
        {
            "kind": "train",
            "step": 1,
            "loss": 2.5,
            "learning_rate": 1e-3,
            "logit_scale": 14.3,
            "samples_of": {"a": 3, "b": 5},
        },
        {"kind": "skipped", "step": 2, "samples": ["a.tar: sample 7"]},
        {"kind": "evaluation", "step": 2, "set": "digits", "images": 9, "unreadable": 0, "top1": 0.5, "top5": 1.0},
        {"kind": "validation", "step": 2, "loss": 2.0, "samples": 64},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_metrics(tmp_path / "metrics.jsonl") == lines


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"\xff", b"\0\0", b'{"step": 1}', b'{"kind": "train", "step": 1}', b'{"kind": "end", "step": ""}'],
)
def test_a_bad_line_of_metrics_is_named(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} line 2: not a line of metrics .*remove that line"):
        read_metrics(path)


@pytest.mark.parametrize("count", [1, CURVE_POINTS, 2 * CURVE_POINTS + 2, 1_000])
def test_the_curve_of_a_long_run_keeps_its_last_line(count: int) -> None:
    lines = [{"step": step} for step in range(count)]
    thinned = _thin(lines)
    assert thinned[-1] == lines[-1] and len(thinned) <= 2 * CURVE_POINTS
    assert len({later["step"] - line["step"] for line, later in pairwise(thinned)}) <= 1


def test_metrics_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.jsonl: no such file.*copy it back, or make an empty one"):
        read_metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").touch()
    assert read_metrics(tmp_path / "metrics.jsonl") == []
