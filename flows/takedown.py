"""`wit takedown`: tombstones into the workspace, and out of one data set's shards what they hit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.workspace import DatasetFolders, Workspace, only_writer
from pipeline.block_entries import ListName
from pipeline.card import CARD, CardConfig
from pipeline.errors import InputError
from pipeline.pictures import PICTURES, PicturesConfig
from pipeline.query import QueryConfig
from pipeline.stage import read_record
from pipeline.takedown import TakenDown, finish, take_down
from pipeline.tombstones import TAKEN_DOWN, TakenDownConfig, add_tombstones, tombstone_files


def takedown(space: Workspace, dataset: str, lists: Mapping[ListName, Sequence[str]], query: QueryConfig) -> str:
    """Add the lists to the workspace's tombstones and apply all of these to a data set; without a list, those that are there.

    Returns what was done, in one line. Run again after a kill, it goes on.
    """
    data = space.dataset(dataset)
    files = tombstone_files(lists)
    with only_writer(space.tombstones):
        new = add_tombstones(files, space.tombstones, query) if files else 0
    if not space.tombstones.exists():
        raise InputError("give at least one list of what to take down: --tombstones, --urls, --hosts or --sha256")
    with only_writer(data.root):
        done = _take_down(space, data, query)
        _tell_card(data, query)
    return (
        f"{data.shards}: {done.samples:,} samples taken down, {done.shards:,} shards written anew; tombstones new to the "
        f"workspace: {new:,}. The downloads still hold the images: {data.whole('downloads')}"
    )


def _take_down(space: Workspace, data: DatasetFolders, query: QueryConfig) -> TakenDown:
    finish(data.shards)
    verdicts, selected, shards = data.whole("image_verdicts"), data.whole("selected"), data.shards
    if any(read_record(folder) is None for folder in (verdicts, selected, shards)):
        raise InputError(
            f"{data.root}: no finished data set of that name, so nothing is taken out of one. The tombstones are in "
            f"{space.tombstones}, and every wit build-dataset in this workspace obeys them"
        )
    sources = [verdicts, selected, space.tombstones]
    taken_down = TAKEN_DOWN.run(sources, data.whole("taken_down"), TakenDownConfig(query=query))
    return take_down(shards, verdicts, taken_down.out, query)


def _tell_card(data: DatasetFolders, query: QueryConfig) -> None:
    """Write the card again, if there is one: it must not show what is gone."""
    card = read_record(data.whole("card"))
    if card is not None:
        shown = [data.shards, data.whole("image_verdicts"), data.whole("taken_down"), *data.all_downloads()]
        told_before = CardConfig.model_validate(card.config)
        PICTURES.run(shown, data.whole("pictures"), PicturesConfig.of(told_before.config, query))
        # In the order of the build, so that it finds the card done.
        audits = [data.whole(stage) for stage in ("audit", "query_audit")]
        told = [*audits, data.whole("taken_down"), data.shards, data.whole("pictures")]
        sources = [folder for folder in told if read_record(folder) is not None]
        CARD.run(sources, data.whole("card"), told_before)
