"""`build-queries`: from an encyclopaedia, its page views, WordNet or somebody's lists to the query list. The body is the plan.

The paper's list (section 2.2) has 500,000 queries: the words of English Wikipedia that occur 100 times, its bi-grams of
high mutual information, its titles that people look up, and WordNet's synsets. Where the paper gives no number the
defaults are MetaCLIP's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from prefect import flow, get_run_logger
from pydantic import BaseModel
from upath import UPath

from flows.artifacts import by_size, publish_funnel
from flows.funnel import Funnel
from flows.runner import part_runner
from flows.tasks import run_parts, run_whole
from flows.workspace import QueryListFolders, Workspace, only_writer
from pipeline.errors import InputError
from pipeline.queries.build import QUERY_LIST, VERDICTS_FILE
from pipeline.queries.config import BuildQueriesConfig, QueryListConfig
from pipeline.queries.counting import NGRAM_CANDIDATES, NGRAMS
from pipeline.queries.given import GIVEN_QUERIES
from pipeline.queries.pageviews import HOURLY_VIEWS, TITLE_CANDIDATES
from pipeline.queries.remote import local_copy
from pipeline.queries.wikipedia import WIKIPEDIA_TEXT
from pipeline.queries.wordnet import WORDNET_LEMMAS
from pipeline.query import query_rows
from pipeline.sources.files import expand, is_remote
from pipeline.stage import Counts, Stage, StageResult, prune_parts, total

FIELDS = ("given_paths", "wordnet_paths", "wikipedia_paths", "pageviews_paths")
DEFAULT = BuildQueriesConfig()
FILES_TOLD = 3
ConfigT = TypeVar("ConfigT", bound=BaseModel)


@dataclass(frozen=True)
class SourceFiles:
    """The files of one field of the configuration."""

    field: str
    paths: tuple[str, ...]
    cache: Path

    def run(self, stage: Stage[ConfigT], paths: Sequence[str], config: ConfigT, out: UPath) -> StageResult:
        """Run a stage on some of the files, fetched first where they are remote."""
        return stage.run([local_copy(path, self.cache, self.field) for path in paths], out, config)

    def require_some(self, results: Sequence[StageResult], remedy: str) -> None:
        """Raise InputError if nothing was kept: a source that was named and gives nothing is a mistake."""
        counts = total(result.counts for result in results)
        if counts.rows_kept:
            return
        dropped = ", ".join(f"{reason} {rows:,}" for reason, rows in by_size(counts.dropped))
        more = f" and {len(self.paths) - FILES_TOLD:,} more" if len(self.paths) > FILES_TOLD else ""
        raise InputError(
            f"{self.field}: nothing of use in {', '.join(self.paths[:FILES_TOLD])}{more} "
            f"({dropped or 'nothing in there'}); {remedy}"
        )


@flow(
    name="build-queries",
    flow_run_name="build-queries-{config.name}",
    task_runner=part_runner(),
    persist_result=False,
)
def build_queries(config: BuildQueriesConfig = DEFAULT, workspace: str = "") -> str:
    """Make a list of queries from the sources that are given, any of them.

    Returns the folder that matching reads: queries.parquet, and candidate_verdicts.parquet with what became of every candidate.
    """
    space = Workspace.at(workspace)
    folders = space.query_list_folders(config.name)
    files = find_files(config, space.file_cache)
    funnel = Funnel()
    with only_writer(folders.root):
        candidates = [
            *read_given(config, files["given_paths"], funnel, folders),
            *read_wordnet(config, files["wordnet_paths"], funnel, folders),
            *count_words(config, files["wikipedia_paths"], funnel, folders),
            *count_views(config, files["pageviews_paths"], funnel, folders),
        ]
        queries = merge(config, candidates, funnel, folders)
        publish_funnel(f"query list {config.name}", funnel.stages)
        get_run_logger().info(f"query list: {queries.out}")
        return str(queries.out)


def find_files(config: BuildQueriesConfig, cache: Path) -> dict[str, SourceFiles]:
    """The files of each field of paths, sorted where `*` matched them. Raises InputError before any work if one is not there."""
    found = {
        field: SourceFiles(
            field,
            tuple(dict.fromkeys(path for pattern in getattr(config, field) for path in expand(pattern, field))),
            cache,
        )
        for field in FIELDS
    }
    if not any(files.paths for files in found.values()):
        raise InputError(
            f"no source of queries is given; name files in {', '.join(FIELDS[:-1])} or {FIELDS[-1]}: "
            f"wit build-queries {config.name} --{FIELDS[0].replace('_', '-')} FILE"
        )
    for files in found.values():
        for path in files.paths:
            _require_file(path, files.field)
    return found


def read_given(
    config: BuildQueriesConfig, files: SourceFiles, funnel: Funnel, folders: QueryListFolders
) -> list[StageResult]:
    """The lists that somebody wrote, one file a part."""
    runs = [partial(files.run, GIVEN_QUERIES, [path], config.given) for path in files.paths]
    results = _parts("read list", runs, folders, "given")
    for path, result in zip(files.paths, results, strict=True):
        one = replace(files, paths=(path,))
        one.require_some([result], "write one query a line, or leave the file out")
    if results:
        funnel.add("given", results)
    return results


def read_wordnet(
    config: BuildQueriesConfig, files: SourceFiles, funnel: Funnel, folders: QueryListFolders
) -> list[StageResult]:
    """WordNet's lemmas; its files are told from word lists by their names, so they go together."""
    if not files.paths:
        return []
    out = folders.whole("wordnet")
    lemmas = run_whole("read wordnet", partial(files.run, WORDNET_LEMMAS, files.paths, config.wordnet, out))
    files.require_some([lemmas], "name WordNet's data.noun, data.verb, data.adj and data.adv, or word lists")
    funnel.add("wordnet", [lemmas])
    return [lemmas]


def count_words(
    config: BuildQueriesConfig, files: SourceFiles, funnel: Funnel, folders: QueryListFolders
) -> list[StageResult]:
    """Frequent words and bi-grams of the text, which is read and counted one file a part."""
    settings = config.wikipedia
    reads = [partial(files.run, WIKIPEDIA_TEXT, [path], settings) for path in files.paths]
    text = _parts("read text", reads, folders, "wikipedia_text")
    counts = [partial(NGRAMS.run, [part.out], config=settings) for part in text]
    ngrams = _parts("count words", counts, folders, "ngrams")
    if not text:
        return []
    files.require_some(text, "name dumps, *-pages-articles.xml.bz2, or text files")
    funnel.add("articles", text)
    sources, out = [part.out for part in ngrams], folders.whole("ngram_candidates")
    words = run_whole("choose words", partial(NGRAM_CANDIDATES.run, sources, out, settings))
    files.require_some(
        [words], f"name more text, or lower wikipedia.min_unigram_count ({settings.min_unigram_count:,})"
    )
    funnel.add("words and bi-grams", [words])
    return [words]


def count_views(
    config: BuildQueriesConfig, files: SourceFiles, funnel: Funnel, folders: QueryListFolders
) -> list[StageResult]:
    """Titles that people look up, from hourly counts, one file a part."""
    settings = config.pageviews
    reads = [partial(files.run, HOURLY_VIEWS, [path], settings) for path in files.paths]
    hours = _parts("read views", reads, folders, "hourly_views")
    if not hours:
        return []
    files.require_some(hours, f"check pageviews.project ({settings.project}), or lower pageviews.min_hourly_views")
    funnel.add("page views", hours)
    sources, out = [part.out for part in hours], folders.whole("titles")
    titles = run_whole("choose titles", partial(TITLE_CANDIDATES.run, sources, out, settings))
    files.require_some([titles], f"name more hours, or lower pageviews.min_views ({settings.min_views:,})")
    funnel.add("titles", [titles])
    return [titles]


def merge(
    config: BuildQueriesConfig, candidates: Sequence[StageResult], funnel: Funnel, folders: QueryListFolders
) -> StageResult:
    """One list of all candidates; tells what became of those of each source."""
    sources = [candidate.out for candidate in candidates]
    queries = run_whole("query list", partial(QUERY_LIST.run, sources, folders.queries, config.query_list))
    outcomes = outcomes_by_source(queries.out, config.query_list)
    for source, counts in outcomes.items():
        funnel.tell(f"list: {source}", counts)
    if config.wikipedia_paths and "bigram" not in outcomes:
        bits = f"{config.wikipedia.min_bigram_pmi:g}"
        get_run_logger().warning(
            f"No bi-gram has a mutual information of {bits} bits, and none can have it in a text of less than 2^{bits} words: "
            "lower wikipedia.min_bigram_pmi"
        )
    funnel.add("query list", [queries])
    return queries


def outcomes_by_source(queries: UPath, config: QueryListConfig) -> dict[str, Counts]:
    """What became of the candidates of each source, in the order in which the sources fill the list."""
    outcomes: dict[str, dict[str | None, int]] = {}
    for row in query_rows("query_outcomes", config.query, verdicts=queries / VERDICTS_FILE):
        outcomes.setdefault(row["source"], {})[row["drop_reason"]] = row["rows"]
    counts = {}
    for source in sorted(outcomes, key=[*config.preference, *sorted(outcomes)].index):
        dropped = {reason: rows for reason, rows in outcomes[source].items() if reason is not None}
        kept = outcomes[source].get(None, 0)
        counts[source] = Counts(rows_in=kept + sum(dropped.values()), rows_kept=kept, dropped=dropped)
    return counts


def _require_file(path: str, field: str) -> None:
    if is_remote(path):
        return  # the task that reads it asks the server
    if not UPath(path).exists():
        raise InputError(f"{path}: no such file; check {field}")


def _parts(
    label: str, runs: Sequence[Callable[[UPath], StageResult]], folders: QueryListFolders, folder: str
) -> list[StageResult]:
    """Run a stage part by part; parts that an earlier configuration left are removed."""
    outs = [folders.part(folder, number) for number in range(len(runs))]
    prune_parts(folders.whole(folder), outs)
    return run_parts(label, [partial(run, out) for run, out in zip(runs, outs, strict=True)])
