"""`wit import-weights` and `wit export-weights`: the learning side's command for models of other programs, in a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.launcher import LocalPython, ProcessError
from flows.workspace import Workspace, only_writer
from pipeline.errors import InputError


def import_weights(source: str, name: str, dataset: str, workspace: str) -> None:
    """Make a finished run of a model in another format; prints its folder. Raises InputError."""
    run = Workspace.at(workspace).run(name)
    with only_writer(run):
        _run(["import", source, str(run), "--dataset", dataset], run.with_name(f"{run.name}.import.log"))


def export_weights(run: str, folder: str, to: str, dtype: str, workspace: str) -> None:
    """Write the model of a run in another format; prints the new folder. Raises InputError."""
    run_dir = Workspace.at(workspace).run(run)
    if not (run_dir / "config.json").exists():
        raise InputError(f"{run_dir}: no run; name one that wit pretrain or wit import-weights made")
    _run(["export", str(run_dir), folder, "--format", to, "--dtype", dtype], run_dir / "export.log")


def _run(arguments: Sequence[str], log: Path) -> None:
    try:
        LocalPython().run("model.weights", arguments, 1, log, print)
    except ProcessError as error:
        if error.user_error:
            raise InputError(error.user_error) from error
        raise
