"""`wit`: every mistake of a person gives one clear line and a status that is not 0."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import cli
from flows.recipes import recipe
from flows.stack import ZOMBIE_AFTER_S
from model.config import MocoConfig

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def wit(
    prefect_harness: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Runs a command in a workspace of its own; gives status and the last line of stderr."""
    monkeypatch.setenv("WIT_WORKSPACE", str(tmp_path / "workspace"))
    # Prefect's console handler writes to the stderr of the test that came first.
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def run(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        status = cli.run(arguments)
        said = capfd.readouterr().err
        assert "Traceback" not in said, said
        return status, ([line for line in said.splitlines() if line.startswith("error:")] or [""])[-1]

    return run


def listed(path: Path) -> list[str]:
    return ["build-dataset", "url-list", "--source.url-list.paths", str(path)]


def test_help_and_unknown_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    assert "wit demo" in capsys.readouterr().out
    assert cli.run(["frobnicate"]) == 2
    assert "no command 'frobnicate'; one of demo" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.run(["search", "--help"])
    assert "DATASET TEXT" in capsys.readouterr().out
    assert cli.run(["pretrain", "huge"]) == 2
    assert "no recipe 'huge'; one of tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--train.epoch", "3"], "Unrecognized options"),
        (["--train.epochs", "three"], "--train.epochs"),
        (["--train.epochs", "0"], "greater than or equal to 1"),
        (["--train.global-batch", "129"], "not divisible by 2 processes"),
        (["--model.vision.heads", "7"], "attention heads"),
        (["--data.mix", "tiny", "1", "more", "0"], "mix.more Input should be greater than 0"),
        (["--data.mix", "more", "1"], "data.mix does not name dataset 'tiny'"),
    ],
)
def test_a_wrong_field_is_named(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.run(["pretrain", "tiny", *options])
    assert stopped.value.code == 2
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert told in said


def test_an_objective_is_chosen_by_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--objective.kind", "moco", "--objective.queue", "256", "--train.epochs", "3"]
    config, _ = cli._configured(recipe("tiny").pretrain, options, "pretrain")
    assert config.objective == MocoConfig(queue=256) and config.train.epochs == 3
    assert cli.run(["pretrain", "tiny", "--objective.kind", "moko"]) == 2
    assert "'bag_of_words', 'captioning'" in capsys.readouterr().err


def test_a_mix_is_given_as_names_and_weights() -> None:
    options = ["--data.mix", "tiny", "1", "s3://bucket/more/", "2.5"]
    config, _ = cli._configured(recipe("tiny").pretrain, options, "pretrain")
    assert config.data.mix == {"tiny": 1.0, "s3://bucket/more/": 2.5}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "build-dataset tiny --source.url-list.paths pairs.csv",
            "source.url_list.paths is given, but source.kind is tiny_web",
        ),
        (
            "build-dataset tiny --source.site-crawl.seeds https://a.org/",
            "add --source.kind site_crawl, or leave it out",
        ),
        ("build-dataset coco --source.tiny-web.pairs 70", "source.tiny_web.pairs is given, but source.kind is coco"),
        ("reproduce tiny --dataset.source.coco.paths a.json", "add --dataset.source.kind coco"),
    ],
)
def test_what_the_source_does_not_read_is_refused(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(words.split()) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        "url-list --source.kind site_crawl --source.site-crawl.seeds https://a.org/",
        "tiny --source.kind url_list --source.url-list.paths a.csv",
        "tiny --source.tiny-web.pairs 60 --source.site-crawl.delay-s 1",
    ],
)
def test_what_it_reads_is_not(options: str) -> None:
    name, *rest = options.split()
    cli._configured(recipe(name).dataset, rest, "build-dataset")


def test_every_command_has_help_and_recipes_takes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for command in cli.COMMANDS:
        with suppress(SystemExit):
            assert cli.run([command, "--help"]) == 0
        assert f"wit {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        cli.run(["recipes", "nonsense"])
    assert "wit recipes: error: unrecognized arguments: nonsense" in capsys.readouterr().err


def test_lists_that_cannot_be_read(wit: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"link": ["http://h/1.jpg"], "caption": ["A red circle"]}), tmp_path / "columns.parquet")
    pq.write_table(
        pa.table({"url": pa.array([], pa.string()), "caption": pa.array([], pa.string())}), tmp_path / "empty.parquet"
    )
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "pairs.txt").write_text("http://h/1.jpg\tA red circle\n")
    for name, told in {
        "columns.parquet": "has no column 'url', it has 'link', 'caption'; set source.url_list.url_column",
        "empty.parquet": "holds no rows",
        "torn.parquet": "torn.parquet",
        "absent.parquet": "absent.parquet",
        "pairs.txt": "source.url_list.format",
    }.items():
        status, said = wit(*listed(tmp_path / name))
        assert status == 2 and told in said and name in said, (name, said)


def test_a_caption_of_a_megabyte_is_one_dropped_row(
    wit: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    captions = ["x y " * 250_000, "A photograph of a red house"]
    pq.write_table(
        pa.table({"url": ["http://h/1.jpg", "http://h/2.jpg"], "caption": captions}), tmp_path / "pairs.parquet"
    )
    assert wit(*listed(tmp_path / "pairs.parquet"), "--until", "selection") == (0, "")
    verdicts = pq.read_table(tmp_path / "workspace/datasets/url-list/verdicts/part-00000/verdicts.parquet")
    assert sorted(verdicts["drop_reason"].to_pylist(), key=str) == [None, "long_caption"]


def test_training_without_data_says_what_to_run_first(wit: Any) -> None:
    status, said = wit("pretrain", "tiny")
    assert status == 2 and "wit build-dataset RECIPE --name tiny" in said
    status, said = wit("evaluate", "tiny")
    assert status == 2 and "wit pretrain RECIPE --name tiny" in said


def test_a_port_in_use_is_named(wit: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = wit(
            "build-dataset", "tiny", "--source.tiny-web.base-port", str(port), "--source.tiny-web.pairs", "60"
        )
    assert status == 2 and str(port) in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def write(_arguments: list[str]) -> None:
        Path("/dev/full").write_text("anything")

    monkeypatch.setitem(cli.COMMANDS, "recipes", write)
    assert cli.run(["recipes"]) == 1
    assert "No space left" in capsys.readouterr().err


def test_a_flow_at_the_command_line_lives_for_the_automation_of_make_up() -> None:
    """That one marks a run as crashed whose heartbeats stop; at Prefect's own pace they would be too rare."""
    program = "import flows.cli; from prefect.settings import get_current_settings as now; print(now().flows.heartbeat_frequency)"
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"}
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True)
    assert 2 * float(told.stdout) < ZOMBIE_AFTER_S


@pytest.mark.parametrize("arguments", [["recipes"], ["pretrain", "--help"]])
def test_a_reader_that_has_enough_is_no_error(arguments: list[str]) -> None:
    """`wit recipes | head -1`: no traceback, neither while it prints nor at the end of Python."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    reading, writing = os.pipe()
    os.close(reading)
    told = subprocess.run(command, cwd=CHECKOUT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (told.returncode, told.stderr) == (141, "")


def test_a_pipe_that_breaks_elsewhere_is_an_error() -> None:
    program = """
from flows import cli

def work(arguments):
    raise BrokenPipeError("that of another process")

cli.COMMANDS["recipes"] = work
cli.main()
"""
    command = [sys.executable, "-c", program, "recipes"]
    told = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert told.returncode == 1 and "that of another process" in told.stderr


def test_a_page_that_was_served_until_ctrl_c_has_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "serve", interrupted)
    monkeypatch.setitem(cli.COMMANDS, "pretrain", interrupted)
    assert cli.run(["serve", "tiny"]) == 130 and capsys.readouterr().err == ""
    assert cli.run(["pretrain", "tiny"]) == 130
    assert "go on with the same command: wit pretrain tiny" in capsys.readouterr().err


def test_ctrl_c_is_heard_while_modules_are_still_imported() -> None:
    command = [sys.executable, "-v", "-m", "flows.cli", "pretrain", "tiny", "--help"]
    with subprocess.Popen(command, cwd=CHECKOUT, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stderr is not None and process.stdout is not None
        for line in process.stderr:
            if line.startswith("import 'pydantic"):
                break
        process.send_signal(signal.SIGINT)
        told = [line for line in process.stderr if not line.startswith(("#", "import "))]
        # Where the interrupt passes through an `exec`, Python itself ends by the signal in the end; a shell calls both 130.
        assert process.wait(30) in (130, -signal.SIGINT) and process.stdout.read() == ""
    assert [line.partition(";")[0].rstrip() for line in told] == ["stopping", "error: stopped"], told


def test_a_second_ctrl_c_waits_for_nothing() -> None:
    program = """
import time
from flows import cli

def work(arguments):
    try:
        print("at work", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("tidying", flush=True)
        time.sleep(600)

cli.COMMANDS["recipes"] = work
cli.main()
"""
    command = [sys.executable, "-c", program, "recipes"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=CHECKOUT, text=True, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            for line in ("at work\n", "tidying\n"):
                assert process.stdout.readline() == line
                process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert process.stderr.read().startswith("stopping; ")
        finally:
            process.kill()
