"""`build-dataset`: from the web, or a list of URLs, to shards. The body of the flow is the plan.

Every stage is a function from files to files that is skipped when its `stage.json` says it is done (pipeline/stage.py); parts
run on the flow's task runner. A failed part fails the flow once all others have ended (of a source's parts a few may fail), and
the same command goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from prefect import flow, get_run_logger
from upath import UPath

from flows.artifacts import publish_card, publish_funnel
from flows.funnel import Funnel
from flows.image_steps import (
    cut_parts,
    download_parts,
    draw_pictures,
    find_taken_down,
    judge_images,
    pack_shards,
    require_evaluation_sets,
    require_face_boxes,
    require_scores,
)
from flows.recipes import tiny
from flows.runner import part_runner
from flows.source_steps import find_rows, sources_served
from flows.tasks import folders, run_stage, run_whole
from flows.workspace import DatasetFolders, Workspace, only_writer
from pipeline.config import BuildDatasetConfig
from pipeline.errors import InputError
from pipeline.stage import StageResult, prune_parts


@dataclass(frozen=True)
class Balanced:
    """What the balancing gave: its parts, and the stages that tell of the queries; both empty without a query list."""

    parts: Sequence[StageResult] = ()
    told: Sequence[UPath] = ()


@flow(
    name="build-dataset",
    flow_run_name="build-{config.name}",
    task_runner=part_runner(),
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
        if config.queries.query_list:
            space.finished_query_list(config.queries.query_list)
        require_evaluation_sets(config, space)
        require_scores(config)
        require_face_boxes(config)
        rows = find_rows(config, space, data)
        funnel.add("sources", rows)
        pairs = describe_pairs(config, rows, data)
        blocked = block_pairs(config, pairs, data)
        verdicts = judge_pairs(config, pairs, blocked, data)
        funnel.add("rules", verdicts)
        balanced = balance_pairs(config, verdicts, pairs, funnel, space, data)
        selected = select_pairs(config, verdicts, balanced.parts, pairs, data)
        funnel.add("selection", [selected])
        if not selected.counts.rows_kept:
            finish(config, funnel, selected)
            remedy = (
                "Loosen the rule that drops most"
                if any(part.counts.rows_in for part in rows)
                else "Name a source that holds some"
            )
            raise InputError(f"no pair is left to download: {funnel.summary()}. {remedy}")
        if until == "selection":
            describe_dataset(config, verdicts, pairs, balanced, [], funnel, data)
            return finish(config, funnel, selected)
        parts = cut_parts(config, selected, data)
        downloads = download_parts(config, parts, funnel, space, data)
        images = judge_images(config, parts, downloads, space, data)
        funnel.add("images", [images])
        taken_down = find_taken_down(config, images, selected, space, data)
        shards = pack_shards(config, images, taken_down, downloads, funnel, data)
        pictures = draw_pictures(config, shards, images, taken_down, downloads, data)
        packed = [taken_down, shards, pictures]
        describe_dataset(config, verdicts, pairs, balanced, packed, funnel, data)
        return finish(config, funnel, shards)


def finish(config: BuildDatasetConfig, funnel: Funnel, last: StageResult) -> str:
    """Show the funnel, and where the last stage lies."""
    publish_funnel(config.name, funnel.stages)
    get_run_logger().info(f"{last.record.stage}: {last.out}")
    return str(last.out)


def describe_pairs(config: BuildDatasetConfig, rows: Sequence[StageResult], data: DatasetFolders) -> list[StageResult]:
    """The same rows with normal URL, clean caption, language and pair_id."""
    from pipeline.pairs import PAIRS, PairsConfig

    work = [([part.out], PairsConfig(part=number, mask_pii=config.curate.mask_pii)) for number, part in enumerate(rows)]
    return run_stage("pairs", PAIRS, work, data, "pairs")


def block_pairs(config: BuildDatasetConfig, pairs: Sequence[StageResult], data: DatasetFolders) -> list[StageResult]:
    """Which rows the block lists hit; nothing without a list."""
    from pipeline.blocklists import BLOCK_LISTS, BLOCKED, BlockedConfig, plan

    if config.block.is_empty:
        prune_parts(data.whole("blocked"), [])
        return []
    wanted = plan(config.block, config.query)
    lists = run_whole("block lists", partial(BLOCK_LISTS.run, (), data.whole("block_lists"), wanted))
    hit = BlockedConfig.of(config.block, config.query)
    return run_stage("block", BLOCKED, [([part.out, lists.out], hit) for part in pairs], data, "blocked")


def judge_pairs(
    config: BuildDatasetConfig,
    pairs: Sequence[StageResult],
    blocked: Sequence[StageResult],
    data: DatasetFolders,
) -> list[StageResult]:
    """One verdict per row, in the parts of the pairs."""
    from pipeline.curate import PAIR_VERDICTS, PairVerdictsConfig
    from pipeline.repeats import REPEATS, RepeatsConfig
    from pipeline.rules import RULES, RulesConfig

    rules = RulesConfig.of(config.curate, config.query)
    both = zip(pairs, blocked, strict=True) if blocked else zip(pairs, strict=True)
    ruled = run_stage("rules", RULES, [(folders(parts), rules) for parts in both], data, "rules")
    count = bucket_count(config, ruled)
    buckets = [RepeatsConfig.of(config.curate, config.query, number, count) for number in range(count)]
    repeats = run_stage("repeats", REPEATS, [(folders(ruled), bucket) for bucket in buckets], data, "repeats")
    verdicts = PairVerdictsConfig(query=config.query)
    work = [([part.out, *folders(repeats)], verdicts) for part in ruled]
    return run_stage("verdicts", PAIR_VERDICTS, work, data, "verdicts")


def bucket_count(config: BuildDatasetConfig, parts: Sequence[StageResult]) -> int:
    """Into how many buckets the rows of `parts` are cut."""
    from pipeline.repeats import buckets_for

    return config.buckets or buckets_for(sum(part.counts.rows_in for part in parts), config.query)


def balance_pairs(
    config: BuildDatasetConfig,
    verdicts: Sequence[StageResult],
    pairs: Sequence[StageResult],
    funnel: Funnel,
    space: Workspace,
    data: DatasetFolders,
) -> Balanced:
    """What matching and balancing make of the kept pairs; nothing where no query list is given."""
    from pipeline.balancing import BALANCE_ENTRIES, BALANCE_THRESHOLD, BALANCED, BalanceBucket
    from pipeline.matching import KEPT_CAPTIONS, MATCH_COUNTS, MATCHES, QUERY_INDEX

    if not config.queries.query_list:
        for stage in ("captions", "matches", "entries", "balanced"):
            prune_parts(data.whole(stage), [])
        return Balanced()
    match, balance = config.queries.match, config.queries.balance
    queries = space.finished_query_list(config.queries.query_list)
    index = run_whole("query index", partial(QUERY_INDEX.run, [queries], data.whole("query_index"), match))
    both = zip(verdicts, pairs, strict=True)
    captions = run_stage("captions", KEPT_CAPTIONS, [(folders(parts), match) for parts in both], data, "captions")
    matches = run_stage("match", MATCHES, [([index.out, part.out], match) for part in captions], data, "matches")
    funnel.add("matching", matches)
    sources = [queries, *folders(matches)]
    counts = run_whole("query counts", partial(MATCH_COUNTS.run, sources, data.whole("query_counts"), match))

    # Drawing is done pair by pair, so part by part; the paper's cap ranks all pairs of a query, so query by query.
    whole = BalanceBucket(balance=balance)
    count = bucket_count(config, verdicts)
    buckets = [BalanceBucket(balance=balance, number=number, buckets=count) for number in range(count)]
    is_cap = balance.mode == "cap"
    if is_cap:
        work = [([counts.out, *folders(matches)], bucket) for bucket in buckets]
    else:
        work = [([counts.out, part.out], whole) for part in matches]
    entries = run_stage("entries", BALANCE_ENTRIES, work, data, "entries")
    sources = [counts.out, *(folders(entries) if balance.wanted_pairs is not None else [])]
    threshold = run_whole("threshold", partial(BALANCE_THRESHOLD.run, sources, data.whole("threshold"), balance))
    if is_cap:
        work = [([threshold.out, counts.out, *folders(entries)], bucket) for bucket in buckets]
    else:
        work = [([threshold.out, counts.out, part.out], whole) for part in entries]
    balanced = run_stage("balance", BALANCED, work, data, "balanced")
    funnel.add("balancing", balanced)
    return Balanced(balanced, [counts.out, threshold.out])


def select_pairs(
    config: BuildDatasetConfig,
    verdicts: Sequence[StageResult],
    balanced: Sequence[StageResult],
    pairs: Sequence[StageResult],
    data: DatasetFolders,
) -> StageResult:
    """The pairs worth a download."""
    if balanced:
        from pipeline.selection import BALANCED_SELECTION, BalancedSelectionConfig

        curate = config.curate
        choice = BalancedSelectionConfig(
            pairs_parts=len(pairs), max_pairs=curate.max_pairs, seed=curate.seed, query=config.query
        )
        sources = [*folders(verdicts), *folders(pairs), *folders(balanced)]
        return run_whole("selection", partial(BALANCED_SELECTION.run, sources, data.whole("selected"), choice))
    from pipeline.selection import SELECTED, SelectionConfig

    rules = SelectionConfig(curate=config.curate, query=config.query)
    sources = [*folders(verdicts), *folders(pairs)]
    return run_whole("selection", partial(SELECTED.run, sources, data.whole("selected"), rules))


def describe_dataset(
    config: BuildDatasetConfig,
    verdicts: Sequence[StageResult],
    pairs: Sequence[StageResult],
    balanced: Balanced,
    packed: Sequence[StageResult],
    funnel: Funnel,
    data: DatasetFolders,
) -> None:
    """Count what is in the data set and write its card; `packed` is what was taken down, shards and pictures, if any."""
    from pipeline.audit import AUDIT, QUERY_AUDIT, AuditConfig, QueryAuditConfig
    from pipeline.card import CARD, CardConfig, read_markdown

    counted = AuditConfig(preset=config.curate.preset, query=config.query)
    sources = [*folders(verdicts), *folders(pairs)]
    audits = [run_whole("audit", partial(AUDIT.run, sources, data.whole("audit"), counted))]
    if balanced.told:
        curve = QueryAuditConfig(query=config.query)
        audits.append(
            run_whole("query audit", partial(QUERY_AUDIT.run, balanced.told, data.whole("query_audit"), curve))
        )
    told = CardConfig(config=config, funnel=funnel.told())
    sources = [*folders(audits), *folders(packed)]
    card = run_whole("card", partial(CARD.run, sources, data.whole("card"), told))
    publish_card(config.name, read_markdown(card.out))
