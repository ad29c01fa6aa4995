"""`pretrain`: train CLIP on a folder of shards, in processes of its own, from the last checkpoint on."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import Progress, key_of, publish_curves
from flows.launcher import Launcher, LocalTorchrun
from flows.recipes import tiny
from flows.workspace import Workspace, only_writer
from model.config import PretrainConfig, deciding_settings
from pipeline.errors import InputError, WorkError

STEP_LINE = re.compile(r"step (\d+)/(\d+)")
SAY_EVERY_S = 5.0
CPU_PROCESSES = 2


@flow(name="pretrain", flow_run_name="pretrain-{config.name}", persist_result=False)
def pretrain(config: PretrainConfig = tiny().pretrain, workspace: str = "") -> str:
    """Train a CLIP model; resumes from the newest checkpoint of the run, refuses another configuration under the same name.

    Returns the folder of the run.
    """
    space = Workspace.at(workspace)
    shards = finished_shards(space, config.dataset)
    mixed = [finished_shards(space, name) for name in config.data.mix if name != config.dataset]
    run = space.run(config.name)
    sets = tuple(str(space.evaluation_set(name)) for name in config.train.evaluation_sets)
    config = config.model_copy(update={"train": config.train.model_copy(update={"evaluation_sets": sets})})
    with only_writer(run):
        freeze_config(run, config)
        train(run, shards, mixed, config.train.processes or default_processes(), LocalTorchrun())
    publish_curves(config.name, run / "metrics.jsonl")
    return str(run)


def finished_shards(space: Workspace, dataset: str) -> str:
    """The folder of shards of a data set. Raises InputError if it is not finished."""
    shards = space.shards(dataset)
    if not (shards / "manifest.json").exists():
        remedy = "check the path" if "/" in dataset else f"build it first: wit build-dataset RECIPE --name {dataset}"
        raise InputError(f"{shards}: no manifest.json, so no finished data set; {remedy}")
    return str(shards)


def freeze_config(run: Path, config: PretrainConfig) -> None:
    """Write the configuration beside what it will produce, before work begins.

    Raises InputError if the folder holds a run that learns something else; how it is computed and watched may change, and
    all may change as long as nothing was learned.
    """
    frozen = run / "config.json"
    if frozen.exists() and _has_learned(run):
        before = read_config(run)
        differences = _differences(deciding_settings(before), deciding_settings(config))
        # The trainer knows a mix by the digests of its data sets, so that they may move; the weights are known here too.
        differences += _differences(sorted(before.data.mix.values()), sorted(config.data.mix.values()), "data.mix")
        if differences:
            raise InputError(
                f"{frozen}: this run was started with another configuration ({', '.join(differences)}); "
                f"give the new one another --name, or delete {run}"
            )
    run.mkdir(parents=True, exist_ok=True)
    partial = frozen.with_suffix(".partial")
    partial.write_text(config.model_dump_json(indent=2), encoding="utf-8")
    partial.replace(frozen)


def read_config(run: Path) -> PretrainConfig:
    """The configuration of a run. Raises InputError that names the file and the remedy."""
    try:
        return PretrainConfig.read(run / "config.json")
    except ValueError as error:
        raise InputError(
            f"{error}; where it is damaged, delete it: the run's wit pretrain command writes it again"
        ) from error


def _has_learned(run: Path) -> bool:
    return (run / "done.json").exists() or any((run / "checkpoints").glob("step-*"))


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            difference
            for name in sorted(before.keys() | now.keys())
            for difference in _differences(before.get(name), now.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if before == now else [f"{path}: {before} then, {now} now"]


@task(task_run_name="train-{processes}-processes", cache_policy=NO_CACHE, persist_result=False)
def train(run: Path, shards: str, mixed: list[str], processes: int, launcher: Launcher) -> None:
    """Launch `model.train` and watch it. Called, not submitted: the launcher needs the main thread."""
    logger = get_run_logger()
    progress = Progress(key_of("training", run.name), f"Training {run.name}")
    said_at = 0.0

    def on_line(line: str) -> None:
        nonlocal said_at
        step = STEP_LINE.search(line)
        if step:
            progress.update(int(step[1]) / int(step[2]), line)
        if not step or time.monotonic() - said_at >= SAY_EVERY_S:
            said_at = time.monotonic() if step else said_at
            logger.info(line)

    arguments = [str(run), "--shards", shards, *(["--mixed", *mixed] if mixed else [])]
    launcher.run("model.train", arguments, processes, run / "train.log", on_line)
    if not (run / "done.json").exists():
        raise WorkError(f"{run}: training was stopped before its end; run the same command again to go on")


def default_processes() -> int:
    """One process per GPU, else two on the CPU."""
    # Asked of a child: this process stays free of torch.
    count = "import torch; print(torch.cuda.device_count())"
    answer = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
    return int(answer.stdout) or CPU_PROCESSES
