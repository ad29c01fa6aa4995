"""`wit import-weights` and `wit export-weights`: the learning side's command for models of other programs, in a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from flows.data_commands import WorkspaceOption, named
from flows.launcher import LocalPython
from flows.workspace import Workspace, only_writer
from pipeline.errors import InputError


@dataclass
class ImportOptions(WorkspaceOption):
    """Make a finished run, which can be evaluated, of a model in the format of OpenAI, open_clip or Hugging Face."""

    source: Annotated[tyro.conf.Positional[str], named("FOLDER")] = ""
    """Folder of the model, or OpenAI's state dict (.pt)."""
    name: Annotated[tyro.conf.Positional[str], named("NAME")] = ""
    """Name of the run."""
    dataset: str = "tiny"
    """Data set whose captions and validation split its evaluations use."""


def import_command(arguments: list[str]) -> None:
    """`wit import-weights`."""
    options = tyro.cli(ImportOptions, args=arguments, prog="wit import-weights")
    if not options.source or not options.name:
        raise InputError("give a model and a name for the run: wit import-weights FOLDER NAME --dataset DATASET")
    import_weights(options.source, options.name, options.dataset, options.workspace)


@dataclass
class ExportOptions(WorkspaceOption):
    """Write the model of a run in the format of another program."""

    run: Annotated[tyro.conf.Positional[str], named("RUN")] = ""
    """Name of the run."""
    folder: Annotated[tyro.conf.Positional[str], named("FOLDER")] = ""
    """Folder to be made."""
    format: Literal["openai", "open_clip", "hugging_face", "onnx"] = "open_clip"
    """Format of the folder."""
    dtype: Literal["fp32", "fp16"] = "fp32"
    """Precision of the weights; ONNX is written in fp32."""


def export_command(arguments: list[str]) -> None:
    """`wit export-weights`."""
    options = tyro.cli(ExportOptions, args=arguments, prog="wit export-weights")
    if not options.run or not options.folder:
        raise InputError("give a run and a new folder: wit export-weights tiny FOLDER --format open_clip")
    export_weights(options.run, options.folder, options.format, options.dtype, options.workspace)


def import_weights(source: str, name: str, dataset: str, workspace: str) -> None:
    """Make a finished run of a model in another format; prints its folder. Raises InputError."""
    run = Workspace.at(workspace).run(name)
    with only_writer(run):
        command = ["import", source, str(run), "--dataset", dataset]
        LocalPython().run("model.weights", command, 1, run.with_name(f"{run.name}.import.log"), print)


def export_weights(run: str, folder: str, to: str, dtype: str, workspace: str) -> None:
    """Write the model of a run in another format; prints the new folder. Raises InputError."""
    run_dir = Workspace.at(workspace).run(run)
    if not (run_dir / "config.json").exists():
        raise InputError(f"{run_dir}: no run; name one that wit pretrain or wit import-weights made")
    command = ["export", str(run_dir), folder, "--format", to, "--dtype", dtype]
    LocalPython().run("model.weights", command, 1, run_dir / "export.log", print)
