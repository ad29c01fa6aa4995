"""Checkpoints written while the training goes on: nothing waits for the disk, and nothing half-written is ever read."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Exited, run_ranks
from safetensors.torch import load_file
from shards_for_model import write_shards
from small_runs import ALONE, TEXT, TRAIN, VAL, assert_same_run, go, metrics, new_run
from torch import nn

from model.checkpoint import Position, load_run, newest_checkpoint, read_done
from model.config import ClipConfig, VitConfig
from model.distributed import Processes
from model.errors import InputError
from model.saving import Writer, take_snapshot

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2), text=TEXT)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("saving") / "shards", TRAIN, VAL))


@pytest.fixture(scope="module")
def undisturbed(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = new_run(tmp_path_factory.mktemp("undisturbed") / "run", VIT)
    assert run_ranks(1, go, folder, shards) == [True]
    return folder


def test_work_goes_on_meanwhile_and_one_piece_follows_the_other() -> None:
    writer, disk_is_ready, order = Writer(), threading.Event(), []
    writer.begin(lambda: (disk_is_ready.wait(60), order.append("first")))
    writer.check()  # neither waits nor raises
    assert not order
    second = threading.Thread(target=writer.begin, args=(lambda: order.append("second"),))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "at most one is in flight"
    disk_is_ready.set()
    second.join()
    writer.wait()
    assert order == ["first", "second"]
    writer.close()


@pytest.mark.parametrize("asked_by", ["check", "wait", "begin"])
def test_an_error_is_raised_once_by_what_is_called_next(asked_by: str) -> None:
    def full() -> None:
        raise InputError("the disk is full")

    writer = Writer()
    writer.begin(full)
    writer._pool.shutdown()  # it has ended
    ask: Callable[[], Any] = {"check": writer.check, "wait": writer.wait, "begin": lambda: writer.begin(full)}[asked_by]
    with pytest.raises(InputError, match="the disk is full"):
        ask()
    writer.check()
    writer.wait()


def test_a_snapshot_is_not_what_is_learned_later() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "scaler": {}}
    weight, moment = model.weight.detach().clone(), state["optimizer"]["state"][0]["exp_avg"].clone()
    snapshot = take_snapshot(Position(1, 1, 0.5, 1.0, 0, 0), model, state)
    for group in optimizer.param_groups:
        group["lr"] = 7.0
    optimizer.step()
    assert torch.equal(snapshot.weights["weight"], weight) and not torch.equal(model.weight, weight)
    kept = snapshot.state["optimizer"]
    assert torch.equal(kept["state"][0]["exp_avg"], moment) and kept["param_groups"][0]["lr"] == 1e-3
    assert not torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], moment)


def go_and_die_while_writing(processes: Processes, folder: Path, shards: str, event: str, file: str) -> bool:
    """Train, and be killed as `kill -9` does when the thread that writes the second checkpoint comes to a file."""

    def watch(found: str, given: tuple[Any, ...]) -> None:
        if found == event and "step-00000010" in str(given[0]) and str(given[0]).endswith(file):
            assert threading.current_thread() is not threading.main_thread()
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return go(processes, folder, shards)


@pytest.mark.parametrize(("event", "file"), [("open", "training_state.pt"), ("os.rename", ".partial")])
def test_killed_while_a_checkpoint_is_written_it_goes_on_from_the_former(
    event: str, file: str, shards: str, undisturbed: Path, tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", VIT, keep_checkpoints=1)
    (ended,) = run_ranks(1, go_and_die_while_writing, folder, shards, event, file)
    assert isinstance(ended, Exited) and ended.code == -signal.SIGKILL
    newest = newest_checkpoint(folder)
    assert newest is not None and newest[1].step == 5
    assert run_ranks(1, go, folder, shards) == [True]
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize("by", ["loss", "image_to_text_recall_at_1"])
def test_the_best_weights_are_kept_as_a_run_of_their_own(by: str, tmp_path: Path) -> None:
    # Each image with the text of another colour: the better it learns, the worse it does there.
    wrong = [(image, caption) for (image, _), (_, caption) in zip(VAL, VAL[1:] + VAL[:1], strict=True)]
    shards = str(write_shards(tmp_path / "shards", TRAIN, wrong))
    settings = {"learning_rate": 5e-3, "keep_checkpoints": 99, "checkpoint_every_steps": 1, "epochs": 5}
    folder = new_run(tmp_path / "run", VIT, keep_best=by, **settings)
    go(ALONE, folder, shards, 7, "stop")
    go(ALONE, folder, shards)
    lines = [line for line in metrics(folder) if line["kind"] == "validation"]
    best = min(lines, key=lambda line: (line["loss"] if by == "loss" else -line[by], line["step"]))
    assert best["step"] < lines[-1]["step"], "else the last one would do"
    assert {entry.name for entry in folder.glob("*best*")} == {"best", f"best-{best['step']:08d}"}
    kept = load_file(folder / "best" / "model.safetensors")
    then = load_file(folder / f"checkpoints/step-{best['step']:08d}/model.safetensors")
    assert all(torch.equal(kept[name], then[name]) for name in then)
    found = load_run(folder / "best")
    assert found.config.train.keep_best == by and read_done(folder / "best").final_loss == best["loss"]  # type: ignore[union-attr]


def test_the_best_of_nothing_is_refused(tmp_path: Path) -> None:
    shards = str(write_shards(tmp_path / "shards", TRAIN))
    folder = new_run(tmp_path / "run", VIT, keep_best="loss")
    with pytest.raises(
        InputError, match=r"train\.keep_best is loss, but nothing is validated; build the data set with"
    ):
        go(ALONE, folder, shards)


def test_the_best_by_a_figure_that_the_objective_lacks_is_refused(shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", VIT, {"kind": "simclr"}, keep_best="image_to_text_recall_at_1")
    with pytest.raises(InputError, match="which the objective simclr does not have; set it to loss"):
        go(ALONE, folder, shards)
