"""`evaluate`: measure a run zero-shot and by retrieval, one task per evaluation set, and write the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import publish_figures, publish_results
from flows.conversation import Conversations, Found
from flows.launcher import ProcessError
from flows.pretrain import read_config
from flows.recipes import tiny
from flows.tasks import ALREADY_DONE
from flows.workspace import Workspace, only_writer
from model.config import EvaluateConfig
from pipeline.errors import InputError, WorkError

WORKER = "model.evaluation.worker"
SKIPPED = "Skipped"


@flow(name="evaluate", flow_run_name="evaluate-{config.name}", persist_result=False)
def evaluate(config: EvaluateConfig = tiny().evaluate, workspace: str = "") -> str:
    """Measure a trained model; returns the folder with results/, summary.json and report.html.

    A set that cannot be measured is told, and the others are measured; the next run does what is missing.
    """
    space = Workspace.at(workspace)
    run = space.run(config.run)
    if not (run / "done.json").exists():
        raise InputError(f"{run}: no finished training run; train it first: wit pretrain RECIPE --name {config.run}")
    trained = read_config(run)
    out = space.evaluation(config.name)
    with only_writer(out):
        out.mkdir(parents=True, exist_ok=True)
        sets = tuple(str(space.evaluation_set(name)) for name in config.evaluation_sets)
        resolved = config.model_copy(update={"run": str(run), "evaluation_sets": sets})
        (out / "config.json").write_text(resolved.model_dump_json(indent=2), encoding="utf-8")
        arguments = ["--evaluation", str(out), str(run), str(space.shards(trained.dataset))]
        runner: ThreadPoolTaskRunner[Found] = ThreadPoolTaskRunner(max_workers=config.processes)
        with runner, Conversations(WORKER, arguments, config.processes, out / "evaluation.log") as workers:
            measure(config.name, workers, runner)
    publish_results(config.name, summary_of(out), out / "report.html")
    return str(out)


def measure(evaluation: str, workers: Conversations, runner: ThreadPoolTaskRunner[Found]) -> None:
    """Features of all images, then every set, as many at once as there are workers, then the report.

    Raises InputError if sets were named and none can be measured; WorkError, after the report, if a worker died of one.
    """
    planned = plan(workers)
    if planned["is_done"]:
        return
    for name, reason in planned["skipped"].items():
        get_run_logger().warning(f"{name} skipped: {reason}")
    if planned["missing"]:
        embed(planned["missing"], workers)
    futures = {
        name: runner.submit(measure_set, {"name": name, "evaluation": evaluation, "workers": workers})
        for name in planned["names"]
    }
    failed, died = failures(futures)
    try:
        report(failed, workers)
    except InputError:
        if not died:
            raise
    if died:
        told = "; ".join(f"{name}: {error}" for name, error in died.items())
        raise WorkError(
            f"{len(died)} of {len(futures)} sets ended their process; to try these again, run the same: {told}"
        )


def failures(futures: Mapping[str, PrefectFuture[Found]]) -> tuple[dict[str, str], dict[str, ProcessError]]:
    """Wait for all of them; the reasons of those that failed by name, and which of them ended their process.

    Raises WorkError if one was stopped from without.
    """
    wait(list(futures.values()))
    failed: dict[str, str] = {}
    died: dict[str, ProcessError] = {}
    for name, future in futures.items():
        outcome: object = future.result(raise_on_failure=False)
        if isinstance(outcome, InputError):
            failed[name] = str(outcome)
        elif isinstance(outcome, ProcessError):
            failed[name] = f"the process that measured it ended with status {outcome.status}"
            died[name] = outcome
        elif not isinstance(outcome, dict):
            raise WorkError(f"{name} ended as {future.state}; run the same command again to go on")
    return failed, died


@task(task_run_name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan(workers: Conversations) -> Found:
    """Read run, shards and sets: what is to be measured, and what of it is missing."""
    found = workers.ask({"do": "plan", "evaluation": 0}, get_run_logger().info)
    if found["is_done"]:
        return _ended(ALREADY_DONE, "this very evaluation is done already", found)
    return found


@task(task_run_name="embed", cache_policy=NO_CACHE, persist_result=False)
def embed(missing: list[str], workers: Conversations) -> Found:
    """Features of the images of all sets that are missing, each decoded once."""
    found = workers.ask({"do": "embed", "missing": {"0": missing}}, get_run_logger().info)
    if not found["embedded"]:
        return _ended(ALREADY_DONE, "all features are in the cache", found)
    return found


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def measure_set(name: str, evaluation: str, workers: Conversations) -> Found:
    """Measure one set, or the validation split (retrieval), and show its figures."""
    found = workers.ask({"do": "measure", "evaluation": 0, "name": name}, get_run_logger().info)
    if found["skipped"]:
        return _ended(SKIPPED, found["skipped"], found)
    publish_figures(evaluation, name, found["figures"])
    if found["was_measured"]:
        return _ended(ALREADY_DONE, f"{name}: measured before", found)
    return found


@task(task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(failed: dict[str, str], workers: Conversations) -> None:
    """Put together what was measured; `failed` tells why a set was not."""
    workers.ask({"do": "report", "evaluation": 0, "failed": failed}, get_run_logger().info)


def _ended(name: str, message: str, found: Found) -> Found:
    """A task that returns a state ends in it, and who called the task gets the data."""
    return cast(Found, Completed(name=name, message=message, data=found))


def summary_of(out: Path) -> dict[str, Any]:
    """What a finished evaluation found."""
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary
