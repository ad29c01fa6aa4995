"""`wit compare`: finished evaluations side by side, by the learning side's command, in a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from flows.data_commands import WorkspaceOption, named
from flows.launcher import LocalPython
from flows.workspace import Workspace, only_writer
from pipeline.errors import InputError


@dataclass
class CompareOptions(WorkspaceOption):
    """Set finished evaluations side by side: compare.html, compare.md and compare.csv."""

    evaluations: Annotated[tyro.conf.Positional[tuple[str, ...]], named("EVALUATION ...")] = ()
    """Names of evaluations, or paths of their folders if they hold a slash; columns are in this order."""
    name: str = "compare"
    """Name of the folder among the evaluations that the comparison is written to."""


def compare(arguments: list[str]) -> None:
    """`wit compare`; prints where the page is."""
    options = tyro.cli(CompareOptions, args=arguments, prog="wit compare")
    if not options.evaluations:
        raise InputError("give evaluations: wit compare tiny tiny-longer --name both")
    space = Workspace.at(options.workspace)
    out = space.evaluation(options.name)
    folders = [str(space.evaluation(name)) for name in options.evaluations]
    with only_writer(out):
        LocalPython().run("model.evaluation.compare", [str(out), *folders], 1, out / "compare.log", print)
