"""`evaluate`: measure a run, or several in one pass, zero-shot and by retrieval: one task per evaluation set, then the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import publish_comparison, publish_figures, publish_results
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


@dataclass(frozen=True)
class Evaluation:
    """One run that is measured; the worker knows it by its number. `suffix` tells its tasks from those of the others."""

    number: int
    config: EvaluateConfig
    out: Path
    run: Path
    shards: str
    suffix: str


@flow(name="evaluate", flow_run_name="evaluate-{config.name}", persist_result=False)
def evaluate(config: EvaluateConfig = tiny().evaluate, workspace: str = "") -> str:
    """Measure trained models; returns the folder with results/, summary.json and report.html, and compare.html where several are.

    A set that cannot be measured is told, and the others are measured; the next run does what is missing.
    """
    space = Workspace.at(workspace)
    evaluations = evaluations_of(config, space)
    out = evaluations[0].out
    runner: ThreadPoolTaskRunner[Found] = ThreadPoolTaskRunner(max_workers=config.processes)
    with ExitStack() as held:
        arguments: list[str] = []
        for one in evaluations:
            held.enter_context(only_writer(one.out))
            one.out.mkdir(parents=True, exist_ok=True)
            (one.out / "config.json").write_text(one.config.model_dump_json(indent=2), encoding="utf-8")
            arguments += ["--evaluation", str(one.out), str(one.run), one.shards]
        workers = Conversations(WORKER, arguments, config.processes, out / "evaluation.log")
        with runner, workers:
            measure(evaluations, workers, runner)
            if len(evaluations) > 1:
                compare(str(out), workers)
    for one in evaluations:
        publish_results(one.config.name, summary_of(one.out), one.out / "report.html")
    if len(evaluations) > 1:
        publish_comparison(config.name, out / "compare.md")
    return str(out)


def evaluations_of(config: EvaluateConfig, space: Workspace) -> list[Evaluation]:
    """The run that is named first under the evaluation's own name, each further one under NAME-RUN. Raises InputError."""
    sets = tuple(str(space.evaluation_set(name)) for name in config.evaluation_sets)
    found: list[Evaluation] = []
    for number, name in enumerate((config.run, *config.further_runs)):
        run = space.run(name)
        if not (run / "done.json").exists():
            raise InputError(f"{run}: no finished training run; train it first: wit pretrain RECIPE --name {name}")
        own = {"name": f"{config.name}-{space.run_label(run)}" if number else config.name, "run": str(run)}
        # Built anew, not copied: the name is checked like everything else.
        resolved = EvaluateConfig.model_validate(
            {**config.model_dump(), "further_runs": (), "evaluation_sets": sets, **own}
        )
        if resolved.name in [other.config.name for other in found]:
            raise InputError(
                f"further_runs: {name} would be measured as {resolved.name}, as another is; name each once"
            )
        out, shards = space.evaluation(resolved.name), str(space.shards(read_config(run).dataset))
        suffix = f" of {resolved.name}" if config.further_runs else ""
        found.append(Evaluation(number, resolved, out, run, shards, suffix))
    return found


def measure(evaluations: Sequence[Evaluation], workers: Conversations, runner: ThreadPoolTaskRunner[Found]) -> None:
    """Features of all images, then every set, as many at once as there are workers, then the reports.

    Raises InputError if sets were named and of a run none can be measured; WorkError if a worker died of one. Both after the
    reports of all others.
    """
    # Asked for its state: a task that is called, not submitted, gives back the state that it returns.
    planned = [(one, plan(one, workers, return_state=True).result()) for one in evaluations]
    work = [(one, found) for one, found in planned if not found["is_done"]]
    for one, found in work:
        for name, reason in found["skipped"].items():
            get_run_logger().warning(f"{name}{one.suffix} skipped: {reason}")
    missing = {str(one.number): found["missing"] for one, found in work if found["missing"]}
    if missing:
        embed(missing, workers)
    futures = {
        (one.number, name): runner.submit(measure_set, {"name": name, "evaluation": one, "workers": workers})
        for one, found in work
        for name in found["names"]
    }
    failed, died = failures(futures)
    unmeasured: list[InputError] = []
    for one, _ in work:
        try:
            report(one, {name: reason for (number, name), reason in failed.items() if number == one.number}, workers)
        except InputError as error:
            unmeasured.append(error)
    if died:
        told = "; ".join(f"{name}: {error}" for (_, name), error in died.items())
        raise WorkError(
            f"{len(died)} of {len(futures)} sets ended their process; to try these again, run the same: {told}"
        )
    if unmeasured:
        raise unmeasured[0]


def failures(
    futures: Mapping[tuple[int, str], PrefectFuture[Found]],
) -> tuple[dict[tuple[int, str], str], dict[tuple[int, str], ProcessError]]:
    """Wait for all of them; the reasons of those that failed, and which of them ended their process.

    Raises WorkError if one was stopped from without.
    """
    wait(list(futures.values()))
    failed: dict[tuple[int, str], str] = {}
    died: dict[tuple[int, str], ProcessError] = {}
    for key, future in futures.items():
        outcome: object = future.result(raise_on_failure=False)
        if isinstance(outcome, InputError):
            failed[key] = str(outcome)
        elif isinstance(outcome, ProcessError):
            failed[key] = f"the process that measured it ended with status {outcome.status}"
            died[key] = outcome
        elif not isinstance(outcome, dict):
            raise WorkError(f"{key[1]} ended as {future.state}; run the same command again to go on")
    return failed, died


@task(task_run_name="plan{evaluation.suffix}", cache_policy=NO_CACHE, persist_result=False)
def plan(evaluation: Evaluation, workers: Conversations) -> Found:
    """Read run, shards and sets: what is to be measured, and what of it is missing."""
    found = workers.ask({"do": "plan", "evaluation": evaluation.number}, get_run_logger().info)
    return _ended(ALREADY_DONE, "this very evaluation is done already", found) if found["is_done"] else found


@task(task_run_name="embed", cache_policy=NO_CACHE, persist_result=False)
def embed(missing: dict[str, list[str]], workers: Conversations) -> Found:
    """Features of the images of all sets that are missing, each decoded once for all models that want it at one size."""
    found = workers.ask({"do": "embed", "missing": missing}, get_run_logger().info)
    return found if found["embedded"] else _ended(ALREADY_DONE, "all features are in the cache", found)


@task(task_run_name="{name}{evaluation.suffix}", cache_policy=NO_CACHE, persist_result=False)
def measure_set(name: str, evaluation: Evaluation, workers: Conversations) -> Found:
    """Measure one set, or the validation split (retrieval), and show its figures."""
    found = workers.ask({"do": "measure", "evaluation": evaluation.number, "name": name}, get_run_logger().info)
    if found["skipped"]:
        return _ended(SKIPPED, found["skipped"], found)
    publish_figures(evaluation.config.name, name, found["figures"])
    return _ended(ALREADY_DONE, f"{name}: measured before", found) if found["was_measured"] else found


@task(task_run_name="report{evaluation.suffix}", cache_policy=NO_CACHE, persist_result=False)
def report(evaluation: Evaluation, failed: dict[str, str], workers: Conversations) -> None:
    """Put together what was measured; `failed` tells why a set was not."""
    workers.ask({"do": "report", "evaluation": evaluation.number, "failed": failed}, get_run_logger().info)


@task(task_run_name="compare", cache_policy=NO_CACHE, persist_result=False)
def compare(out: str, workers: Conversations) -> None:
    """Set all of them side by side."""
    workers.ask({"do": "compare", "out": out}, get_run_logger().info)


def _ended(name: str, message: str, found: Found) -> Found:
    """A task that returns a state ends in it, and its data is the task's result."""
    return cast(Found, Completed(name=name, message=message, data=found))


def summary_of(out: Path) -> dict[str, Any]:
    """What a finished evaluation found."""
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary
