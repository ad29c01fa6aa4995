"""The flow `evaluate`: a task run per set with its true state, what a failed set leaves, and what the same command does again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluation_inputs import picture, write_config, write_run, write_set, write_shards, write_split
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId

from flows.evaluate import evaluate
from flows.tasks import ALREADY_DONE
from model.config import EvaluateConfig
from model.evaluation.__main__ import main

CAPTIONS = [["a red thing"], ["a green thing", "something green"], ["a blue thing"], ["a yellow thing"]]
NO_IMAGE = [("a.jpg", b"this was an image once"), ("a.cls", b"0")]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, its data set, and sets of which one cannot be read, one is absent and one has captions."""
    space = tmp_path_factory.mktemp("evaluate") / "workspace"
    write_shards(space / "datasets/colours/shards", CAPTIONS * 2, CAPTIONS)
    write_run(space / "runs/random")
    sets = space / "evaluation_sets"
    write_split(write_set(sets / "colours") / "train", per_class=4, first=100)
    write_set(sets / "broken", [NO_IMAGE])
    return space


def config(**fields: Any) -> EvaluateConfig:
    named = {"name": "colours", "run": "random", "evaluation_sets": ("colours", "broken", "absent"), **fields}
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


def test_a_set_that_fails_is_named_and_the_next_run_does_what_is_missing(
    run: Callable[[EvaluateConfig], Any], workspace: Path, tmp_path: Path
) -> None:
    out, sets = workspace / "evals/colours", workspace / "evaluation_sets"
    first = run(config())
    told = states(first, 6)
    assert {name: state for name, (state, _) in told.items()} == {
        "plan": "Completed",
        "embed": "Completed",
        "colours": "Completed",
        "broken": "Failed",
        "retrieval": "Completed",
        "report": "Completed",
    }
    assert "broken: 1 of 1 images cannot be read" in told["broken"][1]
    summary = json.loads((out / "summary.json").read_text())
    assert [lost["name"] for lost in summary["skipped_sets"]] == ["absent", "broken"]
    assert set(results(out)) == {"colours.json", "retrieval.json"} and not (out / "done.json").exists()
    shown = artifacts(first)
    (line,) = [line for line in json.loads(shown["set-colours-colours"]) if line["figure"] == "colours"]
    assert (line["value %"], line["chance %"]) == (summary["rows"][0]["accuracy_percent"], 25.0)
    card = shown["report-colours"]
    assert "broken skipped: broken: 1 of 1 images" in card and "absent skipped: " in card
    assert f"bar [{summary['rows'][0]['accuracy_percent']:g}]\n  line [25]" in card

    (sets / "broken/test/0.tar").unlink()
    write_set(sets / "broken", [[("a.jpg", picture("red", 1)), ("a.cls", b"0")]])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*colours.safetensors")}
    told = states(run(config()), 6)
    assert [told[name][0] for name in ("colours", "retrieval")] == [ALREADY_DONE] * 2
    assert [told[name][0] for name in ("embed", "broken", "report")] == ["Completed"] * 3
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 2
    assert (out / "done.json").exists()

    # What came together in two runs of several processes' making is what one process finds at once.
    names = [sets / name for name in ("colours", "broken", "absent")]
    by_hand = write_config(tmp_path / "out", names, few_shot=[1], few_shot_seeds=1)
    shards = workspace / "datasets/colours/shards"
    assert main([str(by_hand), "--run", str(workspace / "runs/random"), "--shards", str(shards)]) == 0
    assert results(out) == results(by_hand)
    assert (out / "report.html").read_bytes() == (by_hand / "report.html").read_bytes()
