"""`evaluate`: measure a run zero-shot and by retrieval, and write the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import publish_results
from flows.launcher import LocalPython, ProcessError
from flows.pretrain import read_config
from flows.recipes import tiny
from flows.workspace import Workspace, only_writer
from model.config import EvaluateConfig
from pipeline.errors import InputError


@flow(name="evaluate", flow_run_name="evaluate-{config.name}", persist_result=False)
def evaluate(config: EvaluateConfig = tiny().evaluate, workspace: str = "") -> str:
    """Measure a trained model; returns the folder with results/, summary.json and report.html."""
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
        measure(out, run, str(space.shards(trained.dataset)))
    publish_results(config.name, result_rows(out), out / "report.html")
    return str(out)


@task(task_run_name="measure", cache_policy=NO_CACHE, persist_result=False)
def measure(out: Path, run: Path, shards: str) -> None:
    """Run `model.evaluation`; called, not submitted, for the same reason as training."""
    logger = get_run_logger()
    arguments = [str(out), "--run", str(run), "--shards", shards]
    try:
        LocalPython().run("model.evaluation", arguments, 1, out / "evaluation.log", logger.info)
    except ProcessError as error:
        if error.user_error:
            raise InputError(error.user_error) from error
        raise


def result_rows(out: Path) -> list[dict[str, Any]]:
    """One row per evaluation set of a finished evaluation."""
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = summary["rows"]
    return rows
