"""Judging the downloaded images: too small, too long, seen before, or one that a model will be tested on."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import model_validator
from upath import UPath

from pipeline.config import IMAGE_RULES, ImageConfig, PresetName, refuse_unread
from pipeline.curate import counts_of, rows_of
from pipeline.download import RESULTS_FILE
from pipeline.errors import InputError
from pipeline.query import QueryConfig, query_to_parquet
from pipeline.rules import PRESETS
from pipeline.selection import SELECTED_FILE
from pipeline.settings import Settings
from pipeline.sources.files import readable
from pipeline.stage import Counts, Stage

EVALUATION_SETS_FIELD = "images.evaluation_sets"
EVALUATION_HASHES_FILE = "evaluation_hashes.parquet"
IMAGE_VERDICTS_FILE = "image_verdicts.parquet"
IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
HASHES_SCHEMA = pa.schema({"sha256": pa.string(), "tar": pa.string(), "member": pa.string()})


class ImageVerdictsConfig(Settings):
    """What the verdicts depend on. The preset's rules on one image are `sql/post_<preset>.sql`."""

    preset: PresetName = "webimagetext"
    images: ImageConfig
    query: QueryConfig

    @model_validator(mode="after")
    def _numbers_of_one_preset(self) -> Self:
        refuse_unread(self.preset, "images", self.images, IMAGE_RULES)
        return self

    @property
    def parameters(self) -> dict[str, object]:
        """The values that `sql/post_<preset>.sql` takes; the presets of others hold their own."""
        return {name: getattr(self.images, name) for name in IMAGE_RULES} if self.preset == "webimagetext" else {}


def evaluation_tars(sets: Sequence[str]) -> list[UPath]:
    """The test tars of evaluation sets in the WebDataset layout, `SET/test/*.tar`: the sources of EVALUATION_HASHES.

    Raises InputError that names all folders which have none.
    """
    tars = {folder: _test_tars(folder) for folder in sets}
    if empty := [folder for folder, found in tars.items() if not found]:
        raise InputError(
            f"{EVALUATION_SETS_FIELD}: no test/*.tar in {', '.join(empty)}; name folders of evaluation sets, or put them there"
        )
    return [tar for folder in sets for tar in tars[folder]]


def require_evaluation_sets(sets: Sequence[str]) -> None:
    """Raise InputError if a folder holds no evaluation set: to be asked before the work that ends in a need for it."""
    evaluation_tars(sets)


def _test_tars(folder: str) -> list[UPath]:
    with readable(folder, EVALUATION_SETS_FIELD):
        return sorted((UPath(folder) / "test").glob("*.tar"), key=lambda tar: tar.name)


def _evaluation_hashes(sources: Sequence[UPath], out: Path, config: Settings) -> Counts:
    """`sources` is any number of tars, also none; `out` gets one row per image in them."""
    rows = [row for tar in sources for row in _hashed_images(tar)]
    pq.write_table(pa.Table.from_pylist(rows, schema=HASHES_SCHEMA), out / EVALUATION_HASHES_FILE)
    return Counts(rows_in=len(rows), rows_kept=len(rows))


def _hashed_images(tar: UPath) -> Iterator[dict[str, str]]:
    try:
        with tar.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                if PurePosixPath(member.name).suffix.lower() not in IMAGE_ENDINGS:
                    continue
                data = archive.extractfile(member)
                if data is not None:  # a file, not a folder or a link
                    yield {
                        "sha256": hashlib.sha256(data.read()).hexdigest(),
                        "tar": tar.name,
                        "member": member.name,
                    }
    except tarfile.TarError as error:
        raise InputError(f"{tar}: not a whole tar ({error}); fetch the evaluation set again") from error


def image_sources(selected: Sequence[UPath], downloads: Sequence[UPath], evaluation_hashes: UPath) -> list[UPath]:
    """The sources of IMAGE_VERDICTS: the parts, each beside its download, then the folder of EVALUATION_HASHES."""
    if len(selected) != len(downloads):
        raise InputError(f"{len(selected)} selected parts, but {len(downloads)} downloads; run the download to its end")
    return [*selected, *downloads, evaluation_hashes]


def _image_verdicts(sources: Sequence[UPath], out: Path, config: ImageVerdictsConfig) -> Counts:
    """`sources` is what `image_sources` makes; `out` gets one row per selected pair, in the order of pair_id."""
    *parts, evaluation_hashes = sources
    if not parts:
        raise InputError("no image to judge: no pair was selected; look at the funnel, its rules may be too strict")
    selected, downloads = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    results = [part / RESULTS_FILE for part in downloads]
    verdicts, dropped = out / IMAGE_VERDICTS_FILE, out / "dropped.parquet"
    query_to_parquet(f"post_{config.preset}", dropped, config.query, results=results, **config.parameters)
    query_to_parquet(
        "image_verdicts",
        verdicts,
        config.query,
        selected=[part / SELECTED_FILE for part in selected],
        results=results,
        dropped=dropped,
        evaluation_hashes=evaluation_hashes / EVALUATION_HASHES_FILE,
    )
    dropped.unlink()
    judged = counts_of([verdicts])
    return Counts(
        rows_in=sum(rows_of(part / SELECTED_FILE) for part in selected),
        rows_kept=judged.rows_kept,
        dropped=judged.dropped,
    )


EVALUATION_HASHES = Stage("evaluation_hashes", _evaluation_hashes)
IMAGE_VERDICTS = Stage(
    "image_verdicts", _image_verdicts, sql=(*(f"post_{preset}" for preset in PRESETS), "image_verdicts", "drop_counts")
)
