"""Judging the downloaded images: too small, too long, blank, seen before, or one that a model will be tested on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator
from upath import UPath

from pipeline import near_duplicates
from pipeline.config import IMAGE_RULES, ImageConfig, PresetName, refuse_unread
from pipeline.curate import counts_of, rows_of
from pipeline.download import RESULTS_FILE
from pipeline.errors import InputError
from pipeline.evaluation_images import EVALUATION_HASHES_FILE, HASHES_SCHEMA, set_totals
from pipeline.fetch_error import passing_reasons
from pipeline.image_facts import FACTS_FILE
from pipeline.image_scores import SCORES_FILE
from pipeline.near_duplicates import find_near_duplicates, find_near_evaluation_images
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.rules import PRESETS
from pipeline.selection import SELECTED_FILE
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

IMAGE_VERDICTS_FILE = "image_verdicts.parquet"
OVERLAP_FILE = "overlap.parquet"
OVERLAP_COUNTS_FILE = "overlap.json"
MATCHES_SCHEMA = pa.schema(
    {
        "evaluation_set": pa.string(),
        "evaluation_image": pa.string(),
        "sha256": pa.string(),
        "distance": pa.int32(),
    }
)


class ImageVerdictsConfig(Settings):
    """What the verdicts depend on. The preset's rules on one image are `sql/post_<preset>.sql`."""

    preset: PresetName = "webimagetext"
    images: ImageConfig
    obey_opt_out: bool = Field(True, description="Drop images whose file opts out (pipeline/file_opt_out.py)")
    retry_passes: int = Field(0, ge=0, description="Passes of the download beside the first")
    query: QueryConfig

    @model_validator(mode="after")
    def _numbers_of_one_preset(self) -> Self:
        refuse_unread(self.preset, "images", self.images, IMAGE_RULES)
        return self

    def parameters(self, facts: Sequence[Path | UPath]) -> dict[str, object]:
        """The values that `sql/post_<preset>.sql` takes; the presets of others hold their own and read no facts."""
        if self.preset != "webimagetext":
            return {}
        return {"facts": list(facts)} | {name: getattr(self.images, name) for name in IMAGE_RULES}


def image_sources(
    selected: Sequence[UPath],
    downloads: Sequence[UPath],
    facts: Sequence[UPath],
    evaluation_hashes: Sequence[UPath],
    scores: Sequence[UPath] = (),
) -> list[UPath]:
    """The sources of IMAGE_VERDICTS: the parts, their downloads and IMAGE_FACTS, the sets of EVALUATION_HASHES, IMAGE_SCORES.

    `downloads` are the parts of the first pass, then those of each retry; `facts` are in the same order. `scores` is one
    folder if the configuration names scores, else none.
    """
    passes = max(len(downloads) // max(len(selected), 1), 1)
    if not len(selected) * passes == len(downloads) == len(facts):
        raise InputError(
            f"{len(selected)} selected parts, but {len(downloads)} downloads and {len(facts)} tables of their images; "
            "run the download to its end"
        )
    return [*selected, *downloads, *facts, *evaluation_hashes, *scores]


def _image_verdicts(sources: Sequence[UPath], out: Path, config: ImageVerdictsConfig) -> Counts:
    """`sources` is what `image_sources` makes; `out` gets one row per selected pair, in the order of pair_id.

    Beside it lies what the evaluation sets share with the images: `overlap.parquet`, counted in `overlap.json`. One blocking
    step per statement, so that each has the memory to itself.
    """
    first_scores = len(sources) - (1 if config.images.scores else 0)
    first_set = first_scores - len(config.images.evaluation_sets)
    parts, evaluation, scores = sources[:first_set], sources[first_set:first_scores], sources[first_scores:]
    if not parts:
        raise InputError("no image to judge: no pair was selected; look at the funnel, its rules may be too strict")
    passes = 1 + config.retry_passes
    count = len(parts) // (1 + 2 * passes)
    selected = [part / SELECTED_FILE for part in parts[:count]]
    results = [part / RESULTS_FILE for part in parts[count : count * (1 + passes)]]
    facts = [part / FACTS_FILE for part in parts[count * (1 + passes) :]]
    verdicts, query = out / IMAGE_VERDICTS_FILE, config.query
    with tempfile.TemporaryDirectory(dir=out, prefix="exceptions-") as folder:
        images, copies, near = (Path(folder) / f"{name}.parquet" for name in ("images", "copies", "near_duplicates"))
        dropped = _dropped(results, facts, scores, Path(folder), config)
        found = query_to_parquet("distinct_images", images, query, results=results, facts=facts, dropped=dropped)
        matches = _evaluation_matches(images, found, evaluation, Path(folder), config)
        query_to_parquet("evaluation_copies", copies, query, **matches, distance=config.images.evaluation_distance)
        find_near_duplicates(images, copies, near, config.images.near_duplicate_distance, query)
        query_to_parquet(
            "image_verdicts",
            verdicts,
            query,
            selected=selected,
            results=results,
            retried_files=count * config.retry_passes,
            passing_reasons=passing_reasons(),
            dropped=dropped,
            images=images,
            copies=copies,
            near_duplicates=near,
        )
        _tell_overlap(matches, images, evaluation, out, config)
    judged = counts_of([verdicts])
    return Counts(rows_in=sum(map(rows_of, selected)), rows_kept=judged.rows_kept, dropped=judged.dropped)


IMAGE_VERDICTS = Stage(
    "image_verdicts",
    _image_verdicts,
    sql=(
        *(f"post_{preset}" for preset in PRESETS),
        "opted_out_files",
        "scored_images",
        "distinct_images",
        "equal_evaluation_images",
        "evaluation_copies",
        *near_duplicates.SQL,
        "image_verdicts",
        "evaluation_overlap",
        "overlap_counts",
        "drop_counts",
    ),
    version=4,
)


def _dropped(
    results: Sequence[UPath], facts: Sequence[UPath], scores: Sequence[UPath], folder: Path, config: ImageVerdictsConfig
) -> list[Path]:
    """Files with what the preset drops, of the others what their own files say, and of the others what their scores drop."""
    ruled, opted_out, scored = (folder / f"{name}.parquet" for name in ("ruled", "opted_out", "scored"))
    query_to_parquet(f"post_{config.preset}", ruled, config.query, results=results, **config.parameters(facts))
    dropped = [ruled]
    if config.obey_opt_out:
        query_to_parquet("opted_out_files", opted_out, config.query, results=results, dropped=ruled)
        dropped.append(opted_out)
    for score_folder in scores:
        query_to_parquet(
            "scored_images",
            scored,
            config.query,
            results=results,
            dropped=dropped,
            scores=score_folder / SCORES_FILE,
            is_required=config.images.scores_required,
        )
    return [*dropped, scored] if scores else dropped


def _evaluation_matches(
    images: Path, image_count: int, evaluation: Sequence[UPath], folder: Path, config: ImageVerdictsConfig
) -> dict[str, Any]:
    """Which evaluation images are, or look like, an image: parameters of evaluation_copies.sql and evaluation_overlap.sql."""
    # DuckDB reads no empty list of files, so each list starts with an empty file.
    none, equal, near = (folder / f"{name}.parquet" for name in ("no_hashes", "equal", "no_matches"))
    pq.write_table(HASHES_SCHEMA.empty_table(), none)
    pq.write_table(MATCHES_SCHEMA.empty_table(), near)
    hashes = [set_folder / EVALUATION_HASHES_FILE for set_folder in evaluation]
    query_to_parquet("equal_evaluation_images", equal, config.query, images=images, evaluation_hashes=[none, *hashes])
    distance = config.images.overlap_distance
    if distance is None or not hashes:
        return {"equal": equal, "near": [near]}
    count = sum(map(rows_of, hashes))
    found = find_near_evaluation_images(images, image_count, hashes, count, near, distance, config.query)
    return {"equal": equal, "near": [near, *found]}


def _tell_overlap(
    matches: dict[str, Any], images: Path, evaluation: Sequence[UPath], out: Path, config: ImageVerdictsConfig
) -> None:
    overlap = out / OVERLAP_FILE
    verdicts = out / IMAGE_VERDICTS_FILE
    query_to_parquet("evaluation_overlap", overlap, config.query, **matches, images=images, verdicts=verdicts)
    counts = {row.pop("evaluation_set"): row for row in query_rows("overlap_counts", overlap=overlap)}
    nothing = {"overlapping_images": 0, "removed_images": 0}
    told = {
        "removed_up_to_distance": config.images.evaluation_distance,
        "reported_up_to_distance": config.images.overlap_distance,
        "sets": {name: totals | counts.get(name, nothing) for name, totals in set_totals(evaluation).items()},
    }
    (out / OVERLAP_COUNTS_FILE).write_text(
        json.dumps(told, sort_keys=True, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
