"""The first step of `build-dataset`: URLs and texts from a crawl or from files, a part per site, file, or piece of a list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from upath import UPath

from flows.tasks import ErrorBudget, run_stage, run_whole
from flows.tiny_web import serving
from flows.workspace import DatasetFolders, Workspace, only_writer
from pipeline.config import BuildDatasetConfig
from pipeline.settings import Settings
from pipeline.sources.config import SourceConfig
from pipeline.stage import Stage, StageResult
from pipeline.tiny_web.config import TinyWebConfig


@contextmanager
def sources_served(config: BuildDatasetConfig, space: Workspace) -> Iterator[BuildDatasetConfig]:
    """The configuration with its seeds; for the embedded web, which is served for the length of the block, those of its sites."""
    source = config.source
    if source.kind != "tiny_web":
        yield config
        return
    write_evaluation_sets(source.tiny_web, space)
    with serving(source.tiny_web) as seeds:
        crawl = source.site_crawl.model_copy(update={"seeds": seeds})
        yield config.model_copy(update={"source": source.model_copy(update={"site_crawl": crawl})})


def write_evaluation_sets(web: TinyWebConfig, space: Workspace) -> None:
    """The evaluation sets of an embedded web, beside those that a person has put there."""
    from pipeline.tiny_web.evaluation import EVALUATION_SET, evaluation_sets

    for config in evaluation_sets(web):
        folder = space.evaluation_set(config.name)
        with only_writer(folder):
            run_whole(f"evaluation set {config.name}", partial(EVALUATION_SET.run, (), folder, config))


def find_rows(config: BuildDatasetConfig, space: Workspace, data: DatasetFolders) -> list[StageResult]:
    """URLs and texts as found, one part per site, per file, or per piece of a list."""
    source = config.source
    if source.kind in ("tiny_web", "site_crawl"):
        return crawl_sites(config, space, data)
    stage, parts = listed(source)
    return run_stage(
        f"read {source.kind}", stage, [((), part) for part in parts], data, "rows", failed_sources(source, data)
    )


def failed_sources(source: SourceConfig, data: DatasetFolders) -> ErrorBudget:
    """How many files or sites may fail; one that does leaves a part without rows, which counts it."""
    from pipeline.sources.failed import FAILED_PART, FailedPart

    def empty(number: int, error: Exception) -> StageResult:
        return FAILED_PART.run((), data.part("rows", number), FailedPart(error=str(error)))

    return ErrorBudget("source.max_failed_share", source.max_failed_share, empty)


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
    work = [(sources, site) for site in sites]
    return run_stage("crawl", site_crawl_stage(cache), work, data, "rows", failed_sources(config.source, data))
