"""`wit why`, `wit card`, `wit verify`, `wit takedown`: questions about a data set, and what is taken out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from flows.workspace import Workspace
from pipeline.errors import InputError, WorkError

if TYPE_CHECKING:
    from pipeline.block_entries import ListName


def named(metavar: str) -> Any:
    """How --help names an argument that has no option before it, in the place of STR; its empty default is not told."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


@dataclass
class WorkspaceOption:
    """Where everything is kept."""

    workspace: str = ""
    """Folder or s3:// prefix of the workspace; empty = $WIT_WORKSPACE, else ./workspace."""


@dataclass
class WhyOptions(WorkspaceOption):
    """What became of a pair."""

    dataset: Annotated[tyro.conf.Positional[str], named("DATASET")] = ""
    """Name of the data set."""
    wanted: Annotated[tyro.conf.Positional[str], named("URL-OR-ID")] = ""
    """URL of the image or the page, or a pair_id."""


def why(arguments: list[str]) -> None:
    """`wit why`: one line for each station of a pair."""
    from pipeline.why import explain

    options = tyro.cli(WhyOptions, args=arguments, prog="wit why")
    if not options.dataset or not options.wanted:
        raise InputError("give a data set and a URL or pair_id: wit why tiny http://127.0.0.1:8700/...")
    data = Workspace.at(options.workspace).existing_dataset(options.dataset)
    lines = explain(
        options.wanted,
        pairs=data.parts("pairs"),
        verdicts=data.parts("verdicts"),
        balanced=data.parts("balanced"),
        image_verdicts=data.whole("image_verdicts"),
        shards=data.shards,
    )
    for line in lines:
        print(line)


@dataclass
class CardOptions(WorkspaceOption):
    """What is in a data set: funnel, sources, languages, lengths, samples of what was kept and dropped."""

    dataset: Annotated[tyro.conf.Positional[str], named("DATASET")] = ""
    """Name of the data set."""


def card(arguments: list[str]) -> None:
    """`wit card`: the path of the page."""
    from pipeline.card import HTML_FILE
    from pipeline.stage import read_record

    options = tyro.cli(CardOptions, args=arguments, prog="wit card")
    if not options.dataset:
        raise InputError("give a data set: wit card tiny")
    folder = Workspace.at(options.workspace).existing_dataset(options.dataset).whole("card")
    if read_record(folder) is None:
        raise InputError(f"{folder}: no card yet; wit build-dataset writes one at its end")
    print(folder / HTML_FILE)


@dataclass
class VerifyOptions(WorkspaceOption):
    """Read all shards of a data set again: checksums, indexes, every sample."""

    dataset: Annotated[tyro.conf.Positional[str], named("DATASET")] = ""
    """Name of the data set, or the path of a folder of shards if it holds a slash."""


def verify(arguments: list[str]) -> None:
    """`wit verify`: ends with an error if a checksum or a sample is not as promised."""
    from pipeline.verify import verify as verify_shards

    options = tyro.cli(VerifyOptions, args=arguments, prog="wit verify")
    if not options.dataset:
        raise InputError("give a data set: wit verify tiny")
    folder = Workspace.at(options.workspace).existing_shards(options.dataset)
    found = verify_shards(folder, print)
    if found.problems:
        raise WorkError(f"{folder}: {found.problems:,} problems; delete the folder and build the data set again")
    print(f"{folder}: {found.samples:,} samples in {found.shards:,} shards, all as promised")


@dataclass
class TakedownOptions(WorkspaceOption):
    """Take pairs out of the shards of a data set, and out of all that is built in this workspace from now on.

    The lists are as those of block.*; without one, what is known in the workspace is applied.
    """

    dataset: Annotated[tyro.conf.Positional[str], named("DATASET")] = ""
    """Name of the data set."""
    tombstones: tuple[str, ...] = ()
    """pair_ids or image URLs: text files, or Parquet or CSV with a column pair_id or url."""
    urls: tuple[str, ...] = ()
    """Text files of image URLs."""
    hosts: tuple[str, ...] = ()
    """Text files of hosts of images, with all their subdomains."""
    sha256: tuple[str, ...] = ()
    """Text files of checksums of images, in hex, of the bytes as they were on the web."""


def takedown(arguments: list[str]) -> None:
    """`wit takedown`: what was written anew."""
    from flows.takedown import takedown as take_down
    from pipeline.query import QueryConfig

    options = tyro.cli(TakedownOptions, args=arguments, prog="wit takedown")
    if not options.dataset:
        raise InputError("give a data set and a list: wit takedown tiny --urls urls.txt")
    lists: dict[ListName, tuple[str, ...]] = {
        "tombstones": options.tombstones,
        "urls": options.urls,
        "hosts": options.hosts,
        "sha256": options.sha256,
    }
    print(take_down(Workspace.at(options.workspace), options.dataset, lists, QueryConfig()))
