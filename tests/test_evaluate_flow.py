"""The flow `evaluate`: a task run per set with its true state, what a failed set leaves, and what the next run does again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import CHECKOUT, PrefectServer
from evaluation_inputs import picture, write_config, write_run, write_set, write_shards, write_split
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId

from flows import cli
from flows.evaluate import evaluate, evaluations_of
from flows.tasks import ALREADY_DONE
from flows.workspace import Workspace
from model.config import EvaluateConfig
from model.evaluation.measure import measure_name, subject_of
from model.evaluation.prepare import prepare
from pipeline.errors import InputError, WorkError

CAPTIONS = [["a red thing"], ["a green thing", "something green"], ["a blue thing"], ["a yellow thing"]]
NO_IMAGE = [("a.jpg", b"this was an image once"), ("a.cls", b"0")]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, its data set, and sets of which one cannot be read, one is absent and one has several labels an image."""
    space = tmp_path_factory.mktemp("evaluate") / "workspace"
    write_shards(space / "datasets/colours/shards", CAPTIONS * 2, CAPTIONS)
    write_run(space / "runs/random")
    write_run(space / "runs/random/best", seed=1)
    sets = space / "evaluation_sets"
    write_split(write_set(sets / "colours") / "train", per_class=4, first=100)
    write_set(sets / "broken", [NO_IMAGE])
    (sets / "several").mkdir()
    for number, colour in enumerate(("red", "green")):
        (sets / f"several/{colour}.jpg").write_bytes(picture(colour, number))
    (sets / "several/test.csv").write_text("path,labels\nred.jpg,red|blue\ngreen.jpg,green\n")
    return space


def config(**fields: Any) -> EvaluateConfig:
    named = {
        "name": "colours",
        "run": "random",
        "evaluation_sets": ("colours", "broken", "several", "absent"),
        **fields,
    }
    return EvaluateConfig(batch=4, few_shot=(1,), few_shot_seeds=1, **named)


def states(flow_run: Any, tasks: int) -> dict[str, tuple[str, str]]:
    """Name of each task run of a flow run -> name and message of its state; they come in by and by."""
    own = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=own)
            if len(runs) >= tasks and all(run.state and run.state.is_final() for run in runs):
                return {run.name: (run.state.name, run.state.message or "") for run in runs}
            assert time.monotonic() < deadline, runs
            time.sleep(0.1)


def artifacts(flow_run: Any) -> dict[str, Any]:
    """Key of each artifact of a flow run -> what it shows."""
    own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        return {artifact.key: artifact.data for artifact in client.read_artifacts(artifact_filter=own)}


@pytest.fixture
def run(prefect_harness: None, workspace: Path) -> Callable[[EvaluateConfig], Any]:
    """Run the flow; returns the id of its run."""

    def run_flow(configured: EvaluateConfig) -> Any:
        state = evaluate(configured, str(workspace), return_state=True)
        assert state.is_completed(), state
        return state.state_details.flow_run_id

    return run_flow


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "results").iterdir()}


class ThisProcess:
    """Runs a module here: a start takes seconds."""

    def run(self, module: str, arguments: list[str], processes: int, log: Path, on_line: Callable[[str], None]) -> None:
        assert import_module(module).main(arguments) == 0


def test_a_set_that_fails_is_named_and_the_next_run_does_what_is_missing(
    run: Callable[[EvaluateConfig], Any], workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sets = workspace / "evals/colours", workspace / "evaluation_sets"
    best = workspace / "evals/colours-random-best"
    first = run(config(further_runs=(f"{workspace}/runs/random/best",)))
    told = states(first, 14)
    expected = {"plan": "Completed", "colours": "Completed", "broken": "Failed"}
    expected |= dict.fromkeys(("several", "retrieval", "report"), "Completed")
    names = ("colours", "colours-random-best")
    assert {name: state for name, (state, _) in told.items()} == {
        **{f"{task} of {name}": state for name in names for task, state in expected.items()},
        "embed": "Completed",
        "compare": "Completed",
    }
    assert "broken: 1 of 1 images cannot be read" in told["broken of colours"][1]
    summary = json.loads((out / "summary.json").read_text())
    assert [lost["name"] for lost in summary["skipped_sets"]] == ["absent", "broken"]
    assert set(results(out)) == {"colours.json", "several.json", "retrieval.json"} == set(results(best))
    assert not (out / "done.json").exists() and results(out) != results(best)
    log = (out / "evaluation.log").read_text()
    assert log.count("embedding colours 12/12") == log.count("embedding colours/train 16/16") == 1
    shown = artifacts(first)
    (line,) = [line for line in json.loads(shown["set-colours-colours"]) if line["figure"] == "colours"]
    assert (line["value %"], line["chance %"]) == (summary["rows"][0]["accuracy_percent"], 25.0)
    (line,) = json.loads(shown["set-colours-several"])
    assert line["figure"] == "several, mean average precision"
    card = shown["report-colours"]
    assert f"bar [{line['value %']:g}]\n  line [{line['chance %']:g}]" in card
    assert "broken skipped: broken: 1 of 1 images" in card and "absent skipped: " in card
    assert f"bar [{summary['rows'][0]['accuracy_percent']:g}]\n  line [25]" in card
    assert "colours-random-best: zero-shot" in shown["compare-colours"] and (out / "compare.html").exists()

    (sets / "broken/test/0.tar").unlink()
    write_set(sets / "broken", [[("a.jpg", picture("red", 1)), ("a.cls", b"0")]])
    features = {path: path.stat().st_mtime_ns for path in out.rglob("*colours.safetensors")}
    told = states(run(config()), 7)
    assert [told[name][0] for name in ("colours", "several", "retrieval")] == [ALREADY_DONE] * 3
    assert [told[name][0] for name in ("plan", "embed", "broken", "report")] == ["Completed"] * 4
    assert features == {path: path.stat().st_mtime_ns for path in features} and len(features) == 2
    assert (out / "done.json").exists()

    # What processes found in two runs of the flow, one of them beside another model, is what this one finds at once.
    measured = [sets / name for name in ("colours", "broken", "several")]
    here = write_config(tmp_path / "out", measured, few_shot=[1], few_shot_seeds=1)
    shards = str(workspace / "datasets/colours/shards")
    prepared = prepare(here, workspace / "runs/random", shards, EvaluateConfig.read(here / "config.json"))
    subject = subject_of(prepared)
    for name in prepared.names:
        measure_name(name, prepared, subject, lambda _line: None)
    assert results(out) == results(here)

    monkeypatch.setattr("flows.compare.LocalPython", ThisProcess)
    words = ["compare", "colours", f"{workspace}/evals/colours-random-best", "--name", "both"]
    assert cli.run([*words, "--workspace", str(workspace)]) == 0
    rows = (workspace / "evals/both/compare.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:3] for row in rows] == [
        ["colours", "random", "colours"],
        ["colours", "random", "broken"],
        ["colours", "random", "several"],
        ["colours-random-best", "random", "colours"],
        ["colours-random-best", "random", "several"],
    ]


def test_a_run_is_measured_once(workspace: Path) -> None:
    twice = config(further_runs=("random", f"{workspace}/runs/random"))
    with pytest.raises(InputError, match="would be measured as colours-random, as another is"):
        evaluations_of(twice, Workspace.at(str(workspace)))
    with pytest.raises(InputError, match=r"runs/none: no finished training run.*--name none"):
        evaluations_of(config(further_runs=("none",)), Workspace.at(str(workspace)))


WORKER = """
import json, os, sys, time
folder, *names = sys.argv[1:]
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "report":
        open(f"{folder}/failed.json", "w").write(json.dumps(asked["failed"]))
    if asked.get("name") == "fatal":
        os._exit(3)
    if asked.get("name") == "slow":
        print("slow:", os.getpid(), flush=True)
        time.sleep(600)
    figure = {"figure": "good", "value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1}
    found = {"is_done": False, "names": names, "missing": names, "embedded": 1, "was_measured": False}
    found |= {"skipped": {} if asked["do"] == "plan" else "", "figures": [figure, {**figure, "figure": "gap", "chance": None}]}
    print("answer: " + json.dumps({"found": found}), flush=True)
"""


WALK = """
import signal
import sys
from pathlib import Path
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from flows.conversation import Conversations
from flows.evaluate import Evaluation, measure
from model.config import EvaluateConfig

@flow
def walk(folder: str, names: list[str], processes: int) -> None:
    one = Evaluation(0, EvaluateConfig(name="colours", run="random"), Path(folder), Path(folder), "", "")
    runner = ThreadPoolTaskRunner(max_workers=processes)
    with runner, Conversations("acting", [folder, *names], processes, Path(folder) / "log") as workers:
        measure([one], workers, runner)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # `wit` sets its own too: jobs in a shell's background ignore it
    walk(sys.argv[1], sys.argv[2:], 1)
"""


@pytest.fixture
def walk(prefect_harness: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A flow that measures sets of these names with workers that end, or take long, as the real ones do of large sets."""
    (tmp_path / "acting.py").write_text(WORKER)
    (tmp_path / "walk.py").write_text(WALK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found: dict[str, Any] = {"__name__": "walk"}
    exec(compile(WALK, str(tmp_path / "walk.py"), "exec"), found)
    return partial(found["walk"], str(tmp_path))


def test_a_set_that_ends_its_process_fails_the_flow_after_the_report(walk: Callable[..., Any], tmp_path: Path) -> None:
    state = walk(["fatal", "good"], 2, return_state=True)
    assert json.loads((tmp_path / "failed.json").read_text()) == {
        "fatal": "the process that measured it ended with status 3"
    }
    with pytest.raises(
        WorkError, match=r"1 of 2 sets ended their process.* fatal: python -m acting ended with status 3"
    ):
        state.result()
    told = states(state.state_details.flow_run_id, 5)
    assert {name: state for name, (state, _) in told.items()} == {
        **dict.fromkeys(("plan", "embed", "good", "report"), "Completed"),
        "fatal": "Failed",
    }
    lines = json.loads(artifacts(state.state_details.flow_run_id)["set-colours-good"])
    assert [(line["figure"], line["value %"], line["chance %"]) for line in lines] == [
        ("good", 50.0, 10.0),
        ("gap", 50.0, None),
    ]


def test_an_interrupted_flow_leaves_no_process_and_begins_no_other_set(
    walk: Callable[..., Any], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    environment = {**prefect_server.env, "PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
    command = [sys.executable, str(tmp_path / "walk.py"), str(tmp_path), "slow", "good", "fatal"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (log.exists() and log.read_text().endswith("\n")):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)  # so that the flow waits for the set
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    (line,) = log.read_text().splitlines()
    assert not psutil.pid_exists(int(line.removeprefix("slow: "))) and not (tmp_path / "failed.json").exists()
