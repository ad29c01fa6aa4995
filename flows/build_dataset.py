"""`build-dataset`: from the web, or a list of URLs, to shards. The body of the flow is the plan.

Every stage is a function from files to files that is skipped when its `stage.json` says it is done (pipeline/stage.py); parts
run on the flow's task runner. A failed part fails the flow once all others have ended, and the same command goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar, cast

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import BaseModel
from upath import UPath

from flows.artifacts import by_size, publish_funnel
from flows.recipes import tiny
from flows.tasks import run_parts, run_whole
from flows.tiny_web import serving
from flows.workspace import DatasetFolders, Workspace, only_writer
from pipeline.config import BuildDatasetConfig
from pipeline.settings import Settings
from pipeline.sources.config import SourceConfig
from pipeline.stage import Counts, Stage, StageResult, prune_parts, total

PARTS_AT_ONCE = 4
ConfigT = TypeVar("ConfigT", bound=BaseModel)
StageRun = Callable[[], StageResult]


class Funnel:
    """The counts of the stages so far, told as they come."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, Counts]] = []

    def add(self, stage: str, results: Sequence[StageResult]) -> None:
        """Add a stage, whole or in parts."""
        counts = total(result.counts for result in results)
        self.stages.append((stage, counts))
        dropped = ", ".join(f"{reason} {rows:,}" for reason, rows in by_size(counts.dropped))
        before = " (done before)" if all(result.was_done for result in results) else ""
        get_run_logger().info(
            f"{stage}: {counts.rows_kept:,} of {counts.rows_in:,} kept{before}"
            + (f"; dropped: {dropped}" if dropped else "")
        )


@flow(
    name="build-dataset",
    flow_run_name="build-{config.name}",
    task_runner=cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=PARTS_AT_ONCE)),
    persist_result=False,
)
def build_dataset(
    config: BuildDatasetConfig = tiny().dataset,
    workspace: str = "",
    until: Literal["selection", "shards"] = "shards",
) -> str:
    """Build a data set: find pairs, judge them, download the images, judge those, pack shards.

    Returns the folder of shards, docs/shards.md is its contract; `until="selection"` stops before the download and returns
    the folder of the pairs that would be downloaded.
    """
    space = Workspace.at(workspace)
    data = space.dataset(config.name)
    funnel = Funnel()
    with only_writer(data.root), sources_served(config, space) as config:
        rows = find_rows(config, space, data)
        funnel.add("sources", rows)
        pairs = describe_pairs(rows, data)
        verdicts = judge_pairs(config, pairs, data)
        funnel.add("rules", [verdicts])
        selected = select_pairs(config, verdicts, pairs, data)
        funnel.add("selection", [selected])
        if until == "selection":
            return finish(config, funnel, selected)
        parts = cut_parts(config, selected, data)
        downloads = download_parts(config, parts, data)
        funnel.add("download", downloads)
        images = judge_images(config, parts, downloads, space, data)
        funnel.add("images", [images])
        shards = pack_shards(config, images, downloads, funnel, data)
        return finish(config, funnel, shards)


def finish(config: BuildDatasetConfig, funnel: Funnel, last: StageResult) -> str:
    """Show the funnel, and where the last stage lies."""
    publish_funnel(config.name, funnel.stages)
    get_run_logger().info(f"{last.record.stage}: {last.out}")
    return str(last.out)


@contextmanager
def sources_served(config: BuildDatasetConfig, space: Workspace) -> Iterator[BuildDatasetConfig]:
    """The configuration with its seeds; for the embedded web, which is served for the length of the block, those of its sites."""
    source = config.source
    if source.kind != "tiny_web":
        yield config
        return
    from pipeline.tiny_web.evaluation import EVALUATION_SETS

    run_whole("evaluation sets", partial(EVALUATION_SETS.run, (), space.evaluation_sets, source.tiny_web))
    with serving(source.tiny_web) as seeds:
        crawl = source.site_crawl.model_copy(update={"seeds": seeds})
        yield config.model_copy(update={"source": source.model_copy(update={"site_crawl": crawl})})


def find_rows(config: BuildDatasetConfig, space: Workspace, data: DatasetFolders) -> list[StageResult]:
    """URLs and texts as found, one part per site, per file, or per piece of a list."""
    source = config.source
    if source.kind in ("tiny_web", "site_crawl"):
        return crawl_sites(config, space, data)
    stage, parts = listed(source)
    return _parts(f"read {source.kind}", stage, [((), part) for part in parts], data, "rows")


def listed(source: SourceConfig) -> tuple[Stage[Any], Sequence[Settings]]:
    """The stage that reads a source of files, and the configuration of each of its parts."""
    # A source's libraries are loaded only where it is read.
    match source.kind:
        case "url_list":
            from pipeline.sources import url_list

            return url_list.URL_LIST, url_list.plan(source.url_list)
        case "common_crawl":
            from pipeline.sources import common_crawl

            return common_crawl.COMMON_CRAWL, common_crawl.plan(source.common_crawl)
        case "coco":
            from pipeline.sources import coco

            return coco.COCO, coco.plan(source.coco)
        case "visual_genome":
            from pipeline.sources import visual_genome

            return visual_genome.VISUAL_GENOME, visual_genome.plan(source.visual_genome)
        case "yfcc100m":
            from pipeline.sources import yfcc100m

            return yfcc100m.YFCC100M, yfcc100m.plan(source.yfcc100m)
        case _:
            raise AssertionError(f"{source.kind} is not a source of files")


def crawl_sites(config: BuildDatasetConfig, space: Workspace, data: DatasetFolders) -> list[StageResult]:
    """What the pages of some sites show, one part per site."""
    from pipeline.sources.site_crawl import plan, site_crawl_stage

    cache, sources = space.crawl_cache, list[UPath]()
    if config.source.kind == "tiny_web":
        # Another tiny web at the same addresses is another web: its truth is a source of the crawl, and names the cache.
        from pipeline.tiny_web.truth import TRUTH

        truth = run_whole("truth", partial(TRUTH.run, (), data.whole("truth"), config.source.tiny_web))
        cache, sources = cache / truth.record.digest[:16], [truth.out]
    sites = plan(config.source.site_crawl)
    return _parts("crawl", site_crawl_stage(cache), [(sources, site) for site in sites], data, "rows")


def describe_pairs(rows: Sequence[StageResult], data: DatasetFolders) -> list[StageResult]:
    """The same rows with normal URL, clean caption, language and pair_id."""
    from pipeline.pairs import PAIRS, PairsConfig

    work = [([part.out], PairsConfig(part=number)) for number, part in enumerate(rows)]
    return _parts("pairs", PAIRS, work, data, "pairs")


def judge_pairs(config: BuildDatasetConfig, pairs: Sequence[StageResult], data: DatasetFolders) -> StageResult:
    """One verdict per row."""
    from pipeline.curate import PAIR_VERDICTS, VerdictsConfig

    rules = VerdictsConfig(curate=config.curate, query=config.query)
    return run_whole("rules", partial(PAIR_VERDICTS.run, _folders(pairs), data.whole("verdicts"), rules))


def select_pairs(
    config: BuildDatasetConfig, verdicts: StageResult, pairs: Sequence[StageResult], data: DatasetFolders
) -> StageResult:
    """The pairs worth a download."""
    from pipeline.curate import SELECTED, VerdictsConfig

    rules = VerdictsConfig(curate=config.curate, query=config.query)
    sources = [verdicts.out, *_folders(pairs)]
    return run_whole("selection", partial(SELECTED.run, sources, data.whole("selected"), rules))


def cut_parts(config: BuildDatasetConfig, selected: StageResult, data: DatasetFolders) -> list[StageResult]:
    """The selection in parts for download."""
    from pipeline.curate import SELECTED_PART, PartConfig

    rows = config.download.rows_per_part
    numbers = range(-(-selected.counts.rows_kept // rows))
    work = [([selected.out], PartConfig(number=number, rows_per_part=rows)) for number in numbers]
    return _parts("cut", SELECTED_PART, work, data, "parts")


def download_parts(config: BuildDatasetConfig, parts: Sequence[StageResult], data: DatasetFolders) -> list[StageResult]:
    """The images of each part."""
    from pipeline.download import DOWNLOAD

    return _parts("download", DOWNLOAD, [([part.out], config.download) for part in parts], data, "downloads")


def judge_images(
    config: BuildDatasetConfig,
    parts: Sequence[StageResult],
    downloads: Sequence[StageResult],
    space: Workspace,
    data: DatasetFolders,
) -> StageResult:
    """One verdict per selected pair, now that its image is known."""
    from pipeline.images import (
        EVALUATION_HASHES,
        IMAGE_VERDICTS,
        ImageVerdictsConfig,
        evaluation_tars,
        image_sources,
    )

    sets = [str(space.evaluation_set(name)) for name in config.images.evaluation_sets]
    tars = evaluation_tars(sets)
    hashes = run_whole(
        "evaluation hashes", partial(EVALUATION_HASHES.run, tars, data.whole("evaluation_hashes"), Settings())
    )
    sources = image_sources(_folders(parts), _folders(downloads), hashes.out)
    rules = ImageVerdictsConfig(images=config.images, query=config.query)
    return run_whole("images", partial(IMAGE_VERDICTS.run, sources, data.whole("image_verdicts"), rules))


def pack_shards(
    config: BuildDatasetConfig,
    images: StageResult,
    downloads: Sequence[StageResult],
    funnel: Funnel,
    data: DatasetFolders,
) -> StageResult:
    """The kept images as WebDataset shards."""
    from pipeline.shards import SHARDS, FunnelStage, ShardsConfig

    told = tuple(FunnelStage(stage=stage, **counts.model_dump()) for stage, counts in funnel.stages)
    sources = [images.out, *_folders(downloads)]
    return run_whole("shards", partial(SHARDS.run, sources, data.shards, ShardsConfig(config=config, funnel=told)))


def _parts(
    label: str,
    stage: Stage[ConfigT],
    work: Sequence[tuple[Sequence[UPath], ConfigT]],
    data: DatasetFolders,
    folder: str,
) -> list[StageResult]:
    """Run a stage part by part; parts that an earlier configuration left are removed."""
    outs = [data.part(folder, number) for number in range(len(work))]
    prune_parts(data.whole(folder), outs)
    runs = [partial(stage.run, sources, out, config) for (sources, config), out in zip(work, outs, strict=True)]
    return run_parts(label, runs)


def _folders(results: Sequence[StageResult]) -> list[UPath]:
    return [result.out for result in results]
