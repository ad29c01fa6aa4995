"""`wit classify`, `search`, `embed` and `serve`: what is typed reaches the process that answers, and its status comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_inputs import picture, write_run, write_shards

from flows import cli, use_commands
from model.use.__main__ import _parser, main

CAPTIONS = [["a red thing"], ["a green thing"], ["a blue thing"]]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, a data set and two files; one of them is an image."""
    folder = tmp_path / "workspace"
    monkeypatch.setenv("WIT_WORKSPACE", str(folder))
    write_run(folder / "runs" / "random")
    write_shards(folder / "datasets" / "colours" / "shards", train=CAPTIONS)
    (tmp_path / "red.png").write_bytes(picture("red", 1, "png"))
    (tmp_path / "torn.png").write_bytes(b"no image")
    return folder


def test_answers_errors_and_status_come_through(
    workspace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("red.png", "torn.png")]
    with pytest.raises(SystemExit) as ended:
        cli.run(["classify", *files, "--model", "random", "--labels", "red, green", "--top", "1", "--json"])
    assert ended.value.code == 1
    printed = capfd.readouterr()
    answers = [json.loads(line) for line in printed.out.splitlines()]
    assert [answer["image"] for answer in answers] == files and len(answers[0]["classes"]) == 1
    assert "torn.png: not an image that can be decoded" in printed.err


def test_every_option_is_one_of_the_process(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here the process is this one: a start takes seconds."""
    statuses: list[int] = []
    monkeypatch.setattr(use_commands, "_hand_over", lambda command: statuses.append(main(command)))
    saved, image = str(tmp_path / "classifier.npz"), str(tmp_path / "red.png")
    (tmp_path / "labels.txt").write_text("red\ngreen\n")
    labels = ["--labels-file", str(tmp_path / "labels.txt"), "--templates", "{c}", "a {c} thing"]
    for arguments in (
        ["embed", "colours", "--models", "random", str(workspace / "runs" / "random")],
        ["search", "colours", "a red thing", "--model", "random", "--top", "2", "--splits", "train", "--json"],
        [
            "search",
            "colours",
            "--image",
            image,
            "--model",
            "random",
            "--threshold",
            "-0.5",
            "--save-images",
            f"{tmp_path}/s",
        ],
        ["search", "colours", "--model", "random", "--export-embeddings", str(tmp_path / "out")],
        ["classify", image, "--model", "random", *labels, "--save-classifier", saved],
        ["classify", image, "--model", "random", "--classifier", saved],
    ):
        assert cli.run(arguments) == 0
    assert statuses == [0] * 6
    printed = capsys.readouterr().out
    assert len([line for line in printed.splitlines() if line.startswith("{")]) == 2
    assert (
        len(list((tmp_path / "s").iterdir())) == 3 and (tmp_path / "out" / "metadata" / "metadata_0.parquet").is_file()
    )
    assert len(list((workspace / "cache" / "embeddings").iterdir())) == 1
    commands: list[list[str]] = []
    monkeypatch.setattr(use_commands, "_hand_over", commands.append)
    assert cli.run(["serve", "random", "--labels", "red, green", "--port", "0"]) == 0
    chosen = _parser().parse_args(commands[0])
    assert (chosen.model, chosen.labels, chosen.port) == (workspace / "runs" / "random", "red, green", 0)


def test_a_split_that_is_none_is_told_in_the_words_of_the_command(
    workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(["search", "colours", "red", "--model", "random", "--splits", "test"])
    assert ended.value.code == 2
    assert "wit search" in capfd.readouterr().err


def test_ctrl_c_ends_the_process_too_without_a_traceback(workspace: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "serve", "random", "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "WIT_WORKSPACE": str(workspace)},
        # A shell's job in the background ignores Ctrl-C, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "answers at" in process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all of its processes get it
        told = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in told and "stopping" in told


def test_what_is_missing_is_told(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (["classify"], "give images and a model"),
        (["search", "colours"], "give a data set, a text and a model"),
        (["embed", "colours"], "give a data set and models"),
        (["serve"], "give a model"),
    ):
        assert cli.run(arguments) == 2
        assert says in capsys.readouterr().err
