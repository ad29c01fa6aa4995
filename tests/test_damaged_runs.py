"""A run's files damaged on the disk, or a disk that is full: told in one line, mended where it can be, never learned from."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from ranks import run_ranks
from shards_for_model import write_shards
from small_runs import ALONE, TRAIN, VAL, assert_same_run, go, metrics, new_run

from model.checkpoint import load_run, newest_checkpoint
from model.distributed import PeerError, Processes
from model.errors import InputError
from model.train import run

Damage = Callable[[Path], object]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)


def garble(path: Path) -> None:
    path.write_bytes(b"\xff{")


DAMAGES = [cut, flip_a_bit, garble, Path.unlink]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("damaged") / "shards", TRAIN, VAL))


@pytest.fixture(scope="module")
def done_before(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, never written to."""
    folder = new_run(tmp_path_factory.mktemp("done") / "run")
    go(ALONE, folder, shards)
    return folder


@pytest.fixture(scope="module")
def stopped_before(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped at step 7, with checkpoints of steps 5 and 7, never written to."""
    folder = new_run(tmp_path_factory.mktemp("stopped") / "run")
    go(ALONE, folder, shards, 7, "stop")
    return folder


@pytest.fixture
def finished(done_before: Path, tmp_path: Path) -> Path:
    return shutil.copytree(done_before, tmp_path / "finished")


@pytest.fixture
def stopped(stopped_before: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped_before, tmp_path / "stopped")


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.safetensors", "training_state.pt", "checkpoint.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_and_the_older_one_is_used(
    file: str, damage: Damage, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(stopped / "checkpoints/step-00000007" / file)
    newest = newest_checkpoint(stopped)
    said = capsys.readouterr().err
    if (file, damage) == ("checkpoint.json", flip_a_bit) and newest is not None and newest[1].step == 7:
        return  # a bit of a number that only tells
    assert newest is not None and newest[0].name == "step-00000005" and newest[1].step == 5
    assert (
        said.startswith("left aside the damaged checkpoint step-00000007: ") and file in said and said.count("\n") == 1
    )


def test_from_the_older_checkpoint_it_learns_the_same_bits(
    stopped: Path, done_before: Path, shards: str, capfd: pytest.CaptureFixture[str]
) -> None:
    flip_a_bit(stopped / "checkpoints/step-00000007/model.safetensors")
    go(ALONE, stopped, shards)
    said = capfd.readouterr().err
    assert "left aside the damaged checkpoint step-00000007" in said and "resumed at step 5" in said
    assert_same_run(stopped, done_before)


def test_a_damaged_checkpoint_does_not_outlive_a_whole_one(stopped: Path, shards: str) -> None:
    cut(stopped / "checkpoints/step-00000007/training_state.pt")
    new_run(stopped, keep_checkpoints=1)
    go(ALONE, stopped, shards, 1, "stop")
    assert [folder.name for folder in (stopped / "checkpoints").iterdir()] == ["step-00000006"]


def test_no_whole_checkpoint_is_an_error_with_a_remedy(stopped: Path, shards: str) -> None:
    for folder in (stopped / "checkpoints").iterdir():
        cut(folder / "training_state.pt")
    told = f"{stopped}/checkpoints: none of its 2 checkpoints is whole; delete that folder"
    with pytest.raises(InputError, match=re.escape(told)):
        run(stopped, shards, ALONE, lambda: False)


# --- the other files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tokenizer_is_learned_again(
    damage: Damage, stopped: Path, done_before: Path, shards: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(stopped / "tokenizer.json")
    with pytest.raises(InputError, match=r"tokenizer\.json is (damaged|missing).*train .* once more"):
        load_run(stopped)
    go(ALONE, stopped, shards)
    assert "tokenizer.json is missing or damaged; it is learned again from the same captions" in capfd.readouterr().err
    assert_same_run(stopped, done_before)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_finished_model_is_written_again(
    damage: Damage, finished: Path, done_before: Path, shards: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(finished / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors is (damaged|missing).*train .* once more"):
        load_run(finished)
    go(ALONE, finished, shards)
    said = capfd.readouterr().err
    assert "it is written again from the last checkpoint" in said and "already finished" not in said
    assert_same_run(finished, done_before)


def test_a_damaged_finished_model_without_checkpoints_is_not_trained_anew_unasked(finished: Path, shards: str) -> None:
    shutil.rmtree(finished / "checkpoints")
    cut(finished / "model.safetensors")
    with pytest.raises(
        InputError, match=r"model\.safetensors is damaged and there is no checkpoint.*copy the run again"
    ):
        run(finished, shards, ALONE, lambda: False)


def test_a_damaged_done_json_names_the_remedy_and_the_remedy_works(
    finished: Path, done_before: Path, shards: str
) -> None:
    garble(finished / "done.json")
    for use in (load_run, lambda folder: run(folder, shards, ALONE, lambda: False)):
        with pytest.raises(InputError, match=r"done\.json is damaged.*delete it and train"):
            use(finished)
    (finished / "done.json").unlink()
    go(ALONE, finished, shards)
    assert_same_run(finished, done_before)


@pytest.mark.parametrize("line", ["{", "[]", '{"kind": "train", "step": 3}', '{"kind": "rest"}', "\0\0\0"])
def test_a_bad_line_of_metrics_is_named(line: str, stopped: Path, done_before: Path, shards: str) -> None:
    path = stopped / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], line + "\n", *lines[2:]]))
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} line 3: not a line of metrics .*remove that line"):
        run(stopped, shards, ALONE, lambda: False)
    path.write_text("".join(lines))
    go(ALONE, stopped, shards)
    assert_same_run(stopped, done_before)


def test_metrics_that_are_missing_are_told(stopped: Path, shards: str, capfd: pytest.CaptureFixture[str]) -> None:
    (stopped / "metrics.jsonl").unlink()
    go(ALONE, stopped, shards)
    assert "metrics.jsonl is missing; it begins anew at step 7" in capfd.readouterr().err
    assert metrics(stopped)[0]["step"] == 8


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b""])
def test_a_damaged_configuration_is_named(content: bytes, stopped: Path, shards: str) -> None:
    (stopped / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{stopped}/config.json: ")):
        run(stopped, shards, ALONE, lambda: False)


# --- a full disk ------------------------------------------------------------------------------------------------------


def told_when_files_may_not_grow(processes: Processes, folder: Path, shards: str, file_bytes: int) -> str:
    """Train where the kernel refuses to write past `file_bytes` of any file; what each process raises."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    return told_by(processes, folder, shards, lambda: False)


def told_when_metrics_cannot_grow(processes: Processes, folder: Path, shards: str) -> str:
    """Train with a metrics.jsonl that turns into Linux's full device."""

    def stop_requested() -> bool:
        path = folder / "metrics.jsonl"
        if processes.is_first and path.exists() and not path.is_symlink():
            path.unlink()
            path.symlink_to("/dev/full")
        return False

    return told_by(processes, folder, shards, stop_requested)


def told_when_some_fail(processes: Processes) -> str:
    """What a process is told where process 0 fails, where only process 1 does, and where both do."""
    told = []
    for failing in ((0,), (1,), (0, 1)):

        def work(failing: tuple[int, ...] = failing) -> None:
            if processes.rank in failing:
                raise InputError(f"process {processes.rank}")

        try:
            processes.together(work)
        except (ValueError, PeerError) as error:
            told.append(f"{type(error).__name__}: {error}")
    return "; ".join(told)


def told_by(processes: Processes, folder: Path, shards: str, stop_requested: Callable[[], bool]) -> str:
    try:
        run(folder, shards, processes, stop_requested)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


@pytest.mark.parametrize("share", [0.5, 1.5])  # of model.safetensors; training_state.pt is twice as large
def test_a_checkpoint_that_does_not_fit_ends_all_processes_with_one_line(
    share: float, shards: str, done_before: Path, tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run")
    limit = int(share * (done_before / "model.safetensors").stat().st_size)
    told = sorted(run_ranks(2, told_when_files_may_not_grow, folder, shards, limit))
    path = folder / "checkpoints/step-00000005"
    assert told[0].startswith(f"InputError: {path}: cannot be written (") and "File too large" in told[0], told
    assert told[0].endswith("free space there, then run the same command to go on")
    assert told[1] == "PeerError: process 0 failed"
    assert newest_checkpoint(folder) is None
    go(ALONE, folder, shards)  # there is space again
    assert [entry.name[0] for entry in (folder / "checkpoints").iterdir()] == ["s", "s"], "nothing half-written is left"


def test_who_alone_has_an_error_tells_it() -> None:
    assert run_ranks(2, told_when_some_fail) == [
        "InputError: process 0; PeerError: another process failed; InputError: process 0",
        "PeerError: another process failed; LoneError: process 1; PeerError: another process failed",
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_metrics_that_cannot_be_written_end_all_processes_with_one_line(shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    told = sorted(run_ranks(2, told_when_metrics_cannot_grow, folder, shards))
    assert re.match(r"InputError: .*/metrics\.jsonl: cannot be written \(.*No space left.*\); free space", told[0]), (
        told
    )
    assert told[1] == "PeerError: process 0 failed"


def test_records_vouch_for_every_file_of_a_run(done_before: Path) -> None:
    done = json.loads((done_before / "done.json").read_text())
    (checkpoint, last) = sorted((done_before / "checkpoints").iterdir())
    record = json.loads((last / "checkpoint.json").read_text())
    assert checkpoint.name == "step-00000010" and record["tokenizer_sha256"] == done["tokenizer_sha256"]
    assert record["model_sha256"] == done["model_sha256"] and len(record["state_sha256"]) == 64
