"""The trainer: killed or stopped anywhere and started again, it ends with the bits of an undisturbed run."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ranks import Exited, run_ranks
from safetensors.torch import load_file
from shards_for_model import colour_samples, write_shards
from small_runs import ALONE, STEPS, TEXT, TRAIN, VAL, assert_same_run, go, metrics, new_run

from model.checkpoint import load_run, newest_checkpoint, read_done
from model.config import ClipConfig, VitConfig
from model.data import normalise, preprocess
from model.distributed import Processes
from model.errors import InputError
from model.metrics import MetricsFile, Pace, Progress, clock
from model.step import DivergedError
from model.train import main, run


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("train") / "shards", TRAIN, VAL))


@pytest.fixture(scope="module")
def undisturbed(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The folder of an undisturbed run of so many processes."""
    made: dict[int, Path] = {}

    def folder(world_size: int) -> Path:
        if world_size not in made:
            made[world_size] = new_run(tmp_path_factory.mktemp(f"ranks{world_size}") / "run")
            assert run_ranks(world_size, go, made[world_size], shards) == [True] * world_size
        return made[world_size]

    return folder


# --- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world_size", "at"), [(1, 2), (1, 5), (1, 9), (1, 12), (2, 7), (3, 7)])
def test_killed_and_started_again_gives_the_same_bits(
    world_size: int, at: int, shards: str, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run")
    ended = run_ranks(world_size, go, folder, shards, at, "kill")
    if at < STEPS:
        assert all(isinstance(result, Exited) and result.code for result in ended)
        assert read_done(folder) is None
        assert run_ranks(world_size, go, folder, shards) == [True] * world_size
    assert_same_run(folder, undisturbed(world_size))


@pytest.mark.parametrize(("world_size", "at"), [(1, 3), (2, 6)])
def test_stopped_and_started_again_gives_the_same_bits(
    world_size: int, at: int, shards: str, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run")
    assert run_ranks(world_size, go, folder, shards, at, "stop") == [True] * world_size
    newest = newest_checkpoint(folder)
    assert newest is not None and newest[1].step == at and read_done(folder) is None
    assert run_ranks(world_size, go, folder, shards) == [True] * world_size
    assert_same_run(folder, undisturbed(world_size))


def test_a_kill_between_the_last_files_is_mended(
    shards: str, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed(1), folder)
    (folder / "done.json").unlink()
    (folder / "model.safetensors").unlink()
    assert run_ranks(1, go, folder, shards) == [True]
    assert_same_run(folder, undisturbed(1))


def test_half_written_files_of_a_killed_run_are_ignored(
    shards: str, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run")
    run_ranks(1, go, folder, shards, 6, "kill")
    (folder / "checkpoints/.step-00000010.partial").mkdir()
    (folder / "checkpoints/.step-00000010.partial/model.safetensors").write_bytes(b"half")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert run_ranks(1, go, folder, shards) == [True]
    assert_same_run(folder, undisturbed(1))


def test_a_finished_run_says_so_and_is_left_alone(
    shards: str, undisturbed: Callable[[int], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = undisturbed(1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run(folder, shards, ALONE, lambda: False)
    assert "already finished after 12 steps" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("finished", [False, True])
def test_checkpoints_of_another_configuration_are_refused(finished: bool, shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    go(ALONE, folder, shards, 5, "" if finished else "stop")
    new_run(folder, learning_rate=2e-3)
    what = "a finished run" if finished else "checkpoints"
    with pytest.raises(ValueError, match=f"holds {what} of another configuration or data set; choose another name"):
        run(folder, shards, ALONE, lambda: False)


def test_another_data_set_is_refused(shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    go(ALONE, folder, shards, 2, "stop")
    other = write_shards(tmp_path / "other", TRAIN[1:], VAL)
    with pytest.raises(ValueError, match="another configuration or data set"):
        run(folder, str(other), ALONE, lambda: False)


def test_settings_that_do_not_change_the_result_may_change(
    shards: str, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run")
    assert run_ranks(1, go, folder, shards, 4, "stop") == [True]
    new_run(folder, loader_threads=3, checkpoint_every_steps=4, keep_checkpoints=1)
    assert run_ranks(1, go, folder, shards) == [True]
    assert_same_run(folder, undisturbed(1))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000012"]


# --- what a run learns ------------------------------------------------------------------------------------------------


def test_several_processes_learn_what_one_does(shards: str, tmp_path: Path) -> None:
    """Without batch norm, whose statistics are each process's own, only the order of sums differs."""
    vit = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=8, width=16, layers=1, heads=2), text=TEXT)
    weights = []
    for world_size in (1, 2):
        folder = new_run(tmp_path / str(world_size), model=vit, adam_eps=1e-3)
        assert run_ranks(world_size, go, folder, shards) == [True] * world_size
        weights.append(load_file(folder / "model.safetensors"))
    for one, other in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        assert one.keys() == other.keys() and one["kind"] == other["kind"]
        assert one.get("loss") == pytest.approx(other.get("loss"), rel=1e-4)
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-5, rtol=1e-4)


def test_a_run_learns_colours_and_evaluation_reads_it(tmp_path: Path) -> None:
    pairs = [(image, f"{caption.split(',')[0]}") for image, caption in colour_samples(80)]
    shards = str(write_shards(tmp_path / "shards", pairs, pairs[:8]))
    folder = new_run(tmp_path / "run", epochs=8, global_batch=16, learning_rate=5e-3)
    go(ALONE, folder, shards)
    finished = load_run(folder)
    assert not finished.model.training and finished.config.name == "test"
    captions = [f"a {colour} square" for colour in ("red", "green", "blue", "yellow")]
    images = [torch.from_numpy(preprocess(image, 32).copy()) for image, _ in colour_samples(20, seed=3)]
    with torch.no_grad():
        image_BD = finished.model.encode_image(normalise(torch.stack(images)))
        text_BD = torch.nn.functional.normalize(finished.model.encode_text(finished.tokenizer.encode(captions)))
    hits = ((image_BD @ text_BD.T).argmax(dim=1) == torch.arange(20) % 4).float().mean()
    assert hits >= 0.9


def test_metrics_say_what_happened(shards: str, undisturbed: Callable[[int], Path]) -> None:
    lines = metrics(undisturbed(2))
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 13))
    validations = [line for line in lines if line["kind"] == "validation"]
    assert [(line["step"], line["epoch"], line["samples"]) for line in validations] == [
        (4, 1, 14),
        (8, 2, 14),
        (12, 3, 14),
    ]
    last = lines[-3]
    assert (last["epoch"], last["steps"], last["samples_seen"]) == (3, 12, 144)
    assert last["learning_rate"] < lines[3]["learning_rate"] <= 1e-3
    done = read_done(undisturbed(2))
    assert done is not None and done.final_loss == last["loss"] == lines[-1]["loss"]
    assert lines[-1]["kind"] == "end" and (done.steps, done.samples_seen) == (12, 144)
    assert [path.name for path in sorted((undisturbed(2) / "checkpoints").iterdir())] == [
        "step-00000010",
        "step-00000012",
    ]


def test_validation_is_the_same_for_any_number_of_processes(shards: str, tmp_path: Path) -> None:
    results = []
    for world_size in (1, 2, 3):
        folder = new_run(tmp_path / str(world_size), epochs=1, learning_rate=1e-12, validation_samples=13)
        assert run_ranks(world_size, go, folder, shards) == [True] * world_size
        (line,) = (line for line in metrics(folder) if line["kind"] == "validation")
        results.append({name: line[name] for name in line if "recall" in name or name == "samples"})
    assert results[0] == results[1] == results[2] and results[0]["samples"] == 13


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_before_the_step(shards: str, tmp_path: Path) -> None:
    folder = new_run(
        tmp_path / "run", learning_rate=1e30, warmup_steps=0, max_skipped_steps=0, checkpoint_every_steps=1
    )
    with pytest.raises(DivergedError, match=r"step \d+: the loss is (nan|inf); the batch begins with samples \[\d+, "):
        run(folder, shards, ALONE, lambda: False)
    newest = newest_checkpoint(folder)
    assert newest is not None and newest[1].loss < 100
    assert read_done(folder) is None


def test_one_process_with_damaged_data_ends_all_of_them(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [*TRAIN[:20], (b"\xff\xd8 no image", "A red square"), *TRAIN[20:]])
    folder = new_run(tmp_path / "run")
    results = run_ranks(2, message_of_error, folder, str(shards))
    assert sorted(result.split(":")[0] for result in results) == ["PeerError", "SampleError"]
    assert any("train/000020.tar: sample 000000020: the image cannot be decoded" in result for result in results)


def message_of_error(processes: Processes, folder: Path, shards: str) -> str:
    try:
        run(folder, shards, processes, lambda: False)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "config.json: no such file; write the PretrainConfig there"),
        ("{}", "name: Field required"),
        ('{"name": "x", "dataset": "y", "epochs": 3}', "epochs: Extra inputs are not permitted"),
    ],
)
def test_a_bad_configuration_is_named(text: str | None, says: str, shards: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=re.escape(says)):
        run(tmp_path, shards, ALONE, lambda: False)


def test_a_run_without_any_weights_cannot_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a finished model nor a checkpoint; train it first"):
        load_run(new_run(tmp_path / "run"))


# --- the command ------------------------------------------------------------------------------------------------------


def command(folder: Path, shards: str) -> list[str]:
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    return [sys.executable, "-m", *torchrun, "model.train", str(folder), "--shards", shards]


def test_torchrun_stopped_by_a_signal_goes_on_by_the_same_command(shards: str, tmp_path: Path) -> None:
    settings = {"epochs": 20, "log_every_steps": 10, "validate_every_epochs": 20}
    folder = new_run(tmp_path / "run", checkpoint_every_steps=10_000, **settings)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command(folder, shards), stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if re.match(
                r"step \d+/80 loss \d+\.\d+ [\d,]+ samples/s eta \d+:\d\d, \d+% waiting for data, \d+\.\d GB\n", line
            ):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    match = re.search(r"stopped at step (\d+); run the same command to go on", rest)
    assert match, rest
    assert read_done(folder) is None and newest_checkpoint(folder)[1].step == int(match[1])  # type: ignore[index]
    again = subprocess.run(command(folder, shards), stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert again.returncode == 0 and f"resumed at step {match[1]}" in again.stderr
    straight = new_run(tmp_path / "straight", **settings)
    assert run_ranks(2, go, straight, shards) == [True, True]
    assert_same_run(folder, straight)


def test_an_error_is_one_line_and_exit_code_2(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = new_run(tmp_path / "run", global_batch=1000)
    monkeypatch.setattr(sys, "argv", ["model.train", str(folder), "--shards", shards])
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == 2
    told = capfd.readouterr().err
    assert told.startswith("error: the training split has 52 samples, fewer than one global batch of 1000; ")
    assert told.count("\n") == 1


# --- metrics and progress ---------------------------------------------------------------------------------------------


def test_lines_past_the_checkpoint_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for step in (1, 2, 3):
        file.write("train", step=step, loss=1.5, learning_rate=0.1, logit_scale=14)
    file.write("end", step=3)
    MetricsFile(path, 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_rare_lines_elsewhere() -> None:
    plain, terminal, hidden = io.StringIO(), Terminal(), Terminal()
    for stream, visible in ((plain, True), (terminal, True), (hidden, False)):
        progress = Progress(0, 4000, visible, stream)
        for step in range(1, 4001):
            progress.show(step, 3.214, Pace(1234.4, 0.031, 0.412 if step > 1 else None, 12.34, 42.0))
        progress.say("done")
        progress.close()
    lines = plain.getvalue().splitlines()
    assert (
        lines[0] == "step 1/4000 loss 3.214 1,234 samples/s eta 0:42, 3% waiting for data, 12.3 GB"
        and lines[-1] == "done"
    )
    assert (
        lines[-2].startswith("step 4000/4000 ") and lines[-2].endswith(" data, MFU 41%, 12.3 GB") and len(lines) < 100
    )
    assert "4000/4000" in terminal.getvalue() and "1,234 samples/s" in terminal.getvalue() and not hidden.getvalue()


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 42, 61.6, 3700)] == ["0:00", "0:42", "1:02", "1:01:40"]
