"""The steps of `build-dataset` from the selected pairs to the shards: download, judge the images, leave out, pack, draw."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from upath import UPath

from flows.funnel import Funnel
from flows.tasks import folders, run_stage, run_whole
from flows.workspace import DatasetFolders, Workspace
from pipeline.config import BuildDatasetConfig
from pipeline.settings import Settings
from pipeline.stage import StageResult, prune_parts

if TYPE_CHECKING:
    from pipeline.evaluation_images import EvaluationSet
    from pipeline.face_boxes import FaceBoxesConfig
    from pipeline.image_scores import ImageScoresConfig


def cut_parts(config: BuildDatasetConfig, selected: StageResult, data: DatasetFolders) -> list[StageResult]:
    """The selection in parts for download."""
    from pipeline.selection import SELECTED_PART, PartConfig

    rows = config.download.rows_per_part
    numbers = range(-(-selected.counts.rows_kept // rows))
    work = [([selected.out], PartConfig(number=number, rows_per_part=rows)) for number in numbers]
    return run_stage("cut", SELECTED_PART, work, data, "parts")


def download_parts(
    config: BuildDatasetConfig, parts: Sequence[StageResult], funnel: Funnel, space: Workspace, data: DatasetFolders
) -> list[StageResult]:
    """The images of each part; then, part by part again, those of each later pass over the rows that failed."""
    from pipeline.config import MOST_RETRY_PASSES
    from pipeline.download import download_stage
    from pipeline.retry import RetryConfig, final_counts, retry_stage

    hashes = block_hashes(config, data)
    first = [([part.out, *hashes], config.download) for part in parts]
    passes = [run_stage("download", download_stage(space.image_cache), first, data, data.download_pass(0))]
    for number in range(1, config.download.retry_passes + 1):
        again = RetryConfig(download=config.download, number=number)
        both = zip(parts, passes[-1], strict=True)
        work = [([part.out, earlier.out, *hashes], again) for part, earlier in both]
        passes.append(
            run_stage(f"retry {number}", retry_stage(space.image_cache), work, data, data.download_pass(number))
        )
    for number in range(config.download.retry_passes + 1, MOST_RETRY_PASSES + 1):
        prune_parts(data.whole(data.download_pass(number)), [])
    downloads = [part for parts_of_pass in passes for part in parts_of_pass]
    counts = final_counts([[part.counts for part in parts_of_pass] for parts_of_pass in passes])
    funnel.tell("download", counts, " (done before)" if all(part.was_done for part in downloads) else "")
    return downloads


def block_hashes(config: BuildDatasetConfig, data: DatasetFolders) -> list[UPath]:
    """The hashes of images that must not be kept, in one folder; none without a list."""
    from pipeline.blocked_hashes import BLOCK_HASHES, plan_hashes

    if not config.download.block_hashes:
        return []
    wanted = plan_hashes(config.download.block_hashes, config.query)
    return [run_whole("block hashes", partial(BLOCK_HASHES.run, (), data.whole("block_hashes"), wanted)).out]


def judge_images(
    config: BuildDatasetConfig,
    parts: Sequence[StageResult],
    downloads: Sequence[StageResult],
    space: Workspace,
    data: DatasetFolders,
) -> StageResult:
    """One verdict per selected pair, now that its image is known."""
    from pipeline.evaluation_images import EVALUATION_HASHES, EvaluationSetFiles
    from pipeline.image_facts import IMAGE_FACTS
    from pipeline.image_scores import IMAGE_SCORES
    from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources

    work = [([part.out], Settings()) for part in downloads]
    facts = run_stage("image facts", IMAGE_FACTS, work, data, "image_facts")
    sets = require_evaluation_sets(config, space)
    hashed = [(found.files, EvaluationSetFiles.of(found)) for found in sets]
    hashes = run_stage("evaluation hashes", EVALUATION_HASHES, hashed, data, "evaluation_hashes")
    plans = require_scores(config)
    scores = [run_whole("scores", partial(IMAGE_SCORES.run, (), data.whole("image_scores"), plan)) for plan in plans]
    sources = image_sources(folders(parts), folders(downloads), folders(facts), folders(hashes), folders(scores))
    rules = ImageVerdictsConfig(
        preset=config.curate.preset,
        images=config.images,
        obey_opt_out=config.curate.obey_opt_out,
        retry_passes=config.download.retry_passes,
        query=config.query,
    )
    return run_whole("images", partial(IMAGE_VERDICTS.run, sources, data.whole("image_verdicts"), rules))


def require_evaluation_sets(config: BuildDatasetConfig, space: Workspace) -> list[EvaluationSet]:
    """The evaluation sets to keep out; asked before the work that ends in a need for them."""
    from pipeline.evaluation_images import find_evaluation_sets

    return find_evaluation_sets([str(space.evaluation_set(name)) for name in config.images.evaluation_sets])


def require_scores(config: BuildDatasetConfig) -> list[ImageScoresConfig]:
    """What to do with the scores of images, if there are any; asked before the work that ends in a need for them."""
    if not config.images.scores:
        return []
    from pipeline.image_scores import plan

    return [plan(config.images, config.query)]


def require_face_boxes(config: BuildDatasetConfig) -> list[FaceBoxesConfig]:
    """The files of boxes to blur, if there are any; asked before the work that ends in a need for them."""
    if not config.images.face_boxes:
        return []
    from pipeline.face_boxes import plan

    return [plan(config.images)]


def find_taken_down(
    config: BuildDatasetConfig, images: StageResult, selected: StageResult, space: Workspace, data: DatasetFolders
) -> StageResult:
    """Which of the pairs `wit takedown` was asked to keep out, for whatever data set."""
    from pipeline.tombstones import TAKEN_DOWN, TakenDownConfig

    tombstones = [space.tombstones] if space.tombstones.exists() else []
    sources, query = [images.out, selected.out, *tombstones], TakenDownConfig(query=config.query)
    return run_whole("take-downs", partial(TAKEN_DOWN.run, sources, data.whole("taken_down"), query))


def pack_shards(
    config: BuildDatasetConfig,
    images: StageResult,
    taken_down: StageResult,
    downloads: Sequence[StageResult],
    funnel: Funnel,
    data: DatasetFolders,
) -> StageResult:
    """The kept images as WebDataset shards."""
    from pipeline.face_boxes import FACE_BOXES
    from pipeline.shards import SHARDS, ShardsConfig

    settings = ShardsConfig(config=config, funnel=funnel.told())
    plans = require_face_boxes(config)
    boxes = [run_whole("face boxes", partial(FACE_BOXES.run, (), data.whole("face_boxes"), plan)) for plan in plans]
    sources = [images.out, taken_down.out, *folders(downloads), *folders(boxes)]
    return run_whole("shards", partial(SHARDS.run, sources, data.shards, settings))


def draw_pictures(
    config: BuildDatasetConfig,
    shards: StageResult,
    images: StageResult,
    taken_down: StageResult,
    downloads: Sequence[StageResult],
    data: DatasetFolders,
) -> StageResult:
    """Some images of the shards, and some duplicates beside what stands for them, for the card."""
    from pipeline.pictures import PICTURES, PicturesConfig

    sources, chosen = (
        [shards.out, images.out, taken_down.out, *folders(downloads)],
        PicturesConfig.of(config, config.query),
    )
    return run_whole("pictures", partial(PICTURES.run, sources, data.whole("pictures"), chosen))
