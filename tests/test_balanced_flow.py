"""Matching and balancing inside build-dataset: the choice of WebImageText, counted by hand."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.build_dataset import build_dataset
from flows.build_queries import build_queries
from flows.runner import PARTS_VARIABLE, RUNNER_VARIABLE, SERVER_VARIABLE, part_runner
from flows.workspace import Workspace
from pipeline.balancing import BalanceConfig
from pipeline.config import BuildDatasetConfig, CurateConfig, QueriesConfig
from pipeline.errors import InputError
from pipeline.queries.config import BuildQueriesConfig, QueryListConfig
from pipeline.selection import SELECTED_FILE
from pipeline.sources.config import SourceConfig, UrlListConfig
from pipeline.why import explain

pytestmark = pytest.mark.usefixtures("prefect_harness")
CAPTIONS = {"cat": 60, "dog": 30, "axolotl": 3, "nothing of the list": 20}
T = 10


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Pairs in two lists, and the query list `animals`."""
    rows = [
        (f"http://a.example/{subject.replace(' ', '-')}-{number}.jpg", f"picture {number} of a {subject} here")
        for subject, count in CAPTIONS.items()
        for number in range(count)
    ]
    for part in (0, 1):
        with (tmp_path / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("url", "caption"), *rows[part::2]])
    (tmp_path / "animals.txt").write_text("cat\ndog\naxolotl\nunicorn\n")
    queries = BuildQueriesConfig(
        name="animals", given_paths=(str(tmp_path / "animals.txt"),), query_list=QueryListConfig(numbers=False)
    )
    build_queries(queries, str(tmp_path / "space"))
    return tmp_path


def selected(
    workspace: Path,
    name: str,
    balance: BalanceConfig,
    query_list: str = "animals",
    flow: Callable[..., str] = build_dataset,
    buckets: int = 1,
) -> Counter[str]:
    """How many pairs of each subject are worth a download."""
    config = BuildDatasetConfig(
        name=name,
        source=SourceConfig(url_list=UrlListConfig(paths=(str(workspace / "*.csv"),))),
        curate=CurateConfig(languages=()),
        queries=QueriesConfig(query_list=query_list, balance=balance),
        buckets=buckets,
    )
    folder = flow(config, str(workspace / "space"), until="selection")
    rows = pq.read_table(Path(folder) / SELECTED_FILE).to_pylist()
    assert [row["pair_id"] for row in rows] == sorted({row["pair_id"] for row in rows})
    assert all(row["query"] in row["caption"] for row in rows)
    return Counter(row["query"] for row in rows)


def test_no_query_keeps_more_than_its_cap(workspace: Path) -> None:
    found = selected(workspace, "capped", BalanceConfig(mode="cap", pairs_per_query=T))
    assert found == {"cat": T, "dog": T, "axolotl": 3}
    data = Workspace.at(str(workspace / "space")).dataset("capped")
    told = [
        "\n".join(
            explain(
                f"http://a.example/{name}.jpg",
                pairs=data.parts("pairs"),
                verdicts=data.parts("verdicts"),
                balanced=data.parts("balanced"),
                image_verdicts=data.whole("image_verdicts"),
                shards=data.shards,
            )
        )
        for name in [*(f"cat-{number}" for number in range(60)), "axolotl-0", "nothing-of-the-list-0"]
    ]
    assert sum("balance   kept ('cat' with 60 pairs" in text for text in told) == T
    assert sum("balance   dropped: over_represented" in text for text in told) == 60 - T
    assert "kept with probability 1;" in told[-2] and "dropped: no_match" in told[-1]


def test_sampling_keeps_the_tail_whole_and_the_head_about_as_often(workspace: Path) -> None:
    found = selected(workspace, "sampled", BalanceConfig(pairs_per_query=T))
    assert found["axolotl"] == 3
    assert 1 <= found["cat"] <= 25 and 1 <= found["dog"] <= 22  # of binomials with mean 10
    more = selected(workspace, "more", BalanceConfig(pairs_per_query=2 * T))
    assert all(more[query] >= count for query, count in found.items())


def test_a_wanted_size_decides_the_threshold(workspace: Path) -> None:
    found = selected(workspace, "sized", BalanceConfig(mode="cap", wanted_pairs=40))
    assert found.total() >= 40 and max(found.values()) - min(found["cat"], found["dog"]) <= 1


def test_a_query_list_that_is_not_there_is_named(workspace: Path) -> None:
    with pytest.raises(InputError, match=r"plants.* wit build-queries plants"):
        selected(workspace, "lost", BalanceConfig(), query_list="plants")
    assert not Workspace.at(str(workspace)).dataset("lost").root.exists(), "it was asked for before any work"


@pytest.mark.parametrize(
    ("runner", "buckets", "balance"),
    [
        ("processes", 1, BalanceConfig(pairs_per_query=T)),
        ("ray", 2, BalanceConfig(mode="cap", wanted_pairs=40)),
        ("threads", 5, BalanceConfig(mode="cap", pairs_per_query=T)),
    ],
)
def test_every_runner_and_number_of_buckets_chooses_the_same_pairs(
    workspace: Path, runner: str, buckets: int, balance: BalanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected(workspace, "plain", balance)
    monkeypatch.setenv(RUNNER_VARIABLE, runner)
    monkeypatch.setenv(PARTS_VARIABLE, "2")
    flow = build_dataset.with_options(task_runner=part_runner())
    server = os.environ.get(SERVER_VARIABLE)
    selected(workspace, "spread", balance, flow=flow, buckets=buckets)
    assert os.environ.get(SERVER_VARIABLE) == server
    first, second = (workspace / "space/datasets" / name / "selected" / SELECTED_FILE for name in ("plain", "spread"))
    assert pq.read_table(first).to_pylist() == pq.read_table(second).to_pylist()


@pytest.mark.parametrize(("variable", "value"), [(RUNNER_VARIABLE, "spark"), (PARTS_VARIABLE, "0")])
def test_a_runner_that_does_not_exist_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=f"{variable}={value}: give "):
        part_runner()
