"""`build-queries`: every kind of source through the real flow, and each mistake in one line."""

from __future__ import annotations

import bz2
import functools
import gzip
import http.server
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.logging.configuration import setup_logging
from upath import UPath

from flows import cli
from flows.workspace import Workspace
from pipeline.errors import InputError
from pipeline.queries import remote
from pipeline.queries.config import BuildQueriesConfig

PAGE = "<page><title>{}</title><ns>0</ns><revision><text>{}</text></revision></page>"
SYNSETS = """  1 licence
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 ~ 00002137 n 0000 ~ 04424418 n 0000 | that which is perceived
02084071 05 n 02 dog 0 domestic_dog 0 002 @ 02083346 n 0000 @ 01317541 n 0000 | a member of a genus
"""
INDEX = "  1 licence\nhot_dog n 3 2 @ ~ 3 0 07676602 10187710 07692614  \n"


def dump(*texts: str) -> bytes:
    pages = "".join(PAGE.format(f"Page {number}", text) for number, text in enumerate(texts))
    redirect = '<page><title>R</title><ns>0</ns><redirect title="x"/><revision><text>r</text></revision></page>'
    return bz2.compress(f"<mediawiki>{pages}{redirect}</mediawiki>".encode())


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "enwiki-1-pages-articles.xml.bz2").write_bytes(
        dump("The ''cat''.\n" * 60, "Saturn V.\n" * 5 + "House!\n" * 100)
    )
    (folder / "enwiki-2-pages-articles.xml.bz2").write_bytes(dump("[[Cat|The cat]]!\n" * 60 + "Saturn V.\n" * 5))
    (folder / "pageviews-1.gz").write_bytes(gzip.compress(b"en Saturn_V 60 0\nen Zebra 99 0\nde Hund 900 0\n"))
    (folder / "pageviews-2.gz").write_bytes(gzip.compress(b"en Saturn_V 60 0\nen File:X 90 0\nen Rare 60 0\n"))
    (folder / "data.noun").write_text(SYNSETS)
    (folder / "index.verb").write_text(INDEX)
    (folder / "mine.txt").write_text("a red fire engine\ndog\n\n")
    return folder


def options(sources: Path) -> list[str]:
    return [
        *("--given-paths", str(sources / "mine.txt")),
        *("--wordnet-paths", str(sources / "data.*"), str(sources / "index.verb")),
        *("--wikipedia-paths", str(sources / "enwiki-*.xml.bz2")),
        *("--pageviews-paths", str(sources / "pageviews-*.gz")),
        *("--wikipedia.min-bigram-pmi", "2", "--wikipedia.min-bigram-count", "10", "--query-list.numbers", "False"),
    ]


@pytest.fixture
def wit(
    prefect_harness: None,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """Runs `wit build-queries` in a workspace of its own; gives status, what it printed, and what it logged or told as error."""
    monkeypatch.setenv("WIT_WORKSPACE", str(tmp_path / "workspace"))
    # Prefect's console handler writes to the stderr of the test that came first, and its loggers tell no other.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    setup_logging()
    logger = logging.getLogger("prefect.flow_runs")
    logger.addHandler(caplog.handler)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        caplog.clear()
        status = cli.run(["build-queries", *arguments])
        said = capfd.readouterr()
        assert "Traceback" not in said.err, said.err
        return status, said.out.strip(), caplog.text + said.err

    yield run
    logger.removeHandler(caplog.handler)


def test_all_sources_become_one_list(wit: Any, sources: Path, tmp_path: Path) -> None:
    status, printed, told = wit("small", *options(sources))
    folder = tmp_path / "workspace" / "query_lists" / "small" / "queries"
    assert (status, printed.splitlines()[-1]) == (0, str(folder))
    rows = pq.read_table(folder / "queries.parquet").to_pylist()
    assert [(row["query_id"], row["query"], row["sources"][0]) for row in rows] == [
        (0, "a red fire engine", "given"),
        (1, "dog", "given"),
        (2, "entity", "wordnet"),
        (3, "hot dog", "wordnet"),
        (4, "The", "unigram"),
        (5, "cat", "unigram"),
        (6, "House", "unigram"),
        (7, "Saturn V", "bigram"),
        (8, "Zebra", "title"),
    ]
    assert rows[7]["count"] == 10 and rows[7]["views"] == 120
    assert rows[5]["count"] == 120  # of both dumps together, and in neither alone
    for line in (
        "given: 2 of 3 kept; dropped: empty 1",
        "articles: 3 of 5 kept; dropped: redirect 2",
        "page views: 4 of 5 kept; dropped: colon_in_title 1",
        "titles: 2 of 3 kept; dropped: few_views 1",
        "list: wordnet: 2 of 3 kept; dropped: duplicate 1",
        "query list: 9 of 11 kept; dropped: duplicate 2",
    ):
        assert line in told, line
    assert funnel_rows("funnel-query-list-small")["list: title"] == {
        "stage": "list: title", "rows in": 2, "dropped": 1, "kept": 1, "reasons": "duplicate 1",
    }  # fmt: skip

    (sources / "enwiki-2-pages-articles.xml.bz2").unlink()
    status, _, told = wit("small", *options(sources))
    assert status == 0
    assert "page views: 4 of 5 kept (done before)" in told
    assert "articles: 2 of 3 kept (done before)" in told
    queries = pq.read_table(folder / "queries.parquet")["query"].to_pylist()
    assert "cat" not in queries and "Zebra" in queries
    assert [part.name for part in (folder.parent / "ngrams").iterdir()] == ["part-00000"]


def funnel_rows(key: str) -> dict[str, dict[str, Any]]:
    """The rows of a table artifact on the server, by stage."""
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    assert isinstance(artifact.data, str)
    return {row["stage"]: row for row in json.loads(artifact.data)}


def test_no_source_is_told_before_any_work(wit: Any, tmp_path: Path) -> None:
    status, _, said = wit()
    assert status == 2
    assert "error: no source of queries is given" in said and "wit build-queries clip --given-paths FILE" in said
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize(
    ("kind", "path", "told"),
    [
        ("given", "{}/absent", "no such file"),
        ("wordnet", "{}/absent-*", "matches no file"),
        ("wikipedia", "{}", "is a folder"),
        ("pageviews", "nothing://host/file", "nothing"),
    ],
)
def test_a_file_that_is_not_there_is_named_with_its_option(
    wit: Any, tmp_path: Path, kind: str, path: str, told: str
) -> None:
    path = path.format(tmp_path)
    status, _, said = wit("small", f"--{kind}-paths", path)
    assert status == 2 and f"{kind}_paths" in said and told in said and path in said, said


@pytest.mark.parametrize(
    ("kind", "name", "content", "told"),
    [
        ("given", "list.txt", b"", "given_paths: nothing of use in {} (nothing in there); write one query a line"),
        ("given", "list.txt", b"\n\n!!!\n", "given_paths: nothing of use in {} (empty 2, no_letter_or_digit 1)"),
        ("wordnet", "data.noun", b"  1 only a licence\n", "wordnet_paths: nothing of use in {} (nothing in there)"),
        ("wikipedia", "text.txt", b"too little text\n", "lower wikipedia.min_unigram_count (100)"),
        ("wikipedia", "wiki.xml.bz2", b"no dump", "{}: no page of a Wikipedia dump can be read"),
        ("pageviews", "views", b"de Hund 900 0\n", "check pageviews.project (en)"),
        ("pageviews", "views", b"en Dog 60 0\n", "lower pageviews.min_views (70)"),
        ("pageviews", "views.gz", b"no gzip", "{}: cannot be unpacked"),
    ],
)
def test_files_without_a_query(wit: Any, tmp_path: Path, kind: str, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    status, _, said = wit("small", f"--{kind}-paths", str(tmp_path / name))
    assert status == 2 and told.format(tmp_path / name) in said, said


def test_a_text_too_small_for_the_pmi_is_told(wit: Any, sources: Path) -> None:
    status, _, told = wit("small", "--wikipedia-paths", str(sources / "enwiki-*"))
    assert status == 0
    assert "none can have it in a text of less than 2^30 words: lower wikipedia.min_bigram_pmi" in told


def test_a_name_that_is_no_folder_is_refused(wit: Any) -> None:
    status, _, said = wit("../up", "--given-paths", "x")
    assert status == 2 and "name: String should match pattern" in said


def test_a_list_by_name_or_by_path(tmp_path: Path) -> None:
    space = Workspace.at(str(tmp_path))
    assert space.query_list("clip") == UPath(tmp_path / "query_lists" / "clip" / "queries")
    assert str(space.query_list("s3://bucket/lists/clip/queries")) == "s3://bucket/lists/clip/queries"


class FlakyServer(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; breaks every transfer of /broken.txt off, and has no time for /busy.txt."""

    protocol_version = "HTTP/1.1"
    gets: list[str]

    def do_GET(self) -> None:
        self.gets.append(self.path)
        if self.path == "/broken.txt":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"dog\n" * 10)
            self.close_connection = True
        elif self.path == "/busy.txt":
            self.send_error(503)
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if self.path == "/busy.txt":
            self.send_error(503)
        elif self.path == "/broken.txt":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
        else:
            super().do_HEAD()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """URL of a server, the folder it serves, and the paths asked for."""
    folder = tmp_path / "web"
    folder.mkdir()
    FlakyServer.gets = []
    handler = functools.partial(FlakyServer, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", folder, FlakyServer.gets
        finally:
            server.shutdown()
            thread.join()


def test_a_remote_file_is_fetched_once_per_version(web: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    url, folder, gets = web
    cache = tmp_path / "cache"
    (folder / "list.txt").write_bytes(b"dog\n" * 3_000_000)  # more than one piece
    copies = [remote.local_copy(f"{url}/list.txt", cache, "given_paths") for _ in range(2)]
    assert copies[0] == copies[1] and copies[0].name == "list.txt"
    assert copies[0].read_bytes() == (folder / "list.txt").read_bytes()
    assert gets == ["/list.txt"]
    (folder / "list.txt").write_bytes(b"cat\n")
    assert remote.local_copy(f"{url}/list.txt", cache, "given_paths").read_text() == "cat\n"


def test_a_broken_connection_is_no_short_file(web: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    url, _, _ = web
    with pytest.raises(Exception, match=r"payload|bytes came") as broken:
        remote.local_copy(f"{url}/broken.txt", tmp_path / "cache", "given_paths")
    assert not isinstance(broken.value, InputError | ValueError)  # else its task would not try again
    with pytest.raises(OSError, match="503"):
        remote.local_copy(f"{url}/busy.txt", tmp_path / "cache", "given_paths")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    with pytest.raises(InputError, match=r"absent\.txt: 404.*check given_paths"):
        remote.local_copy(f"{url}/absent.txt", tmp_path / "cache", "given_paths")


def test_a_remote_list_goes_through_the_flow(wit: Any, web: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    url, folder, _ = web
    (folder / "list.txt").write_text("a red dog\n")
    assert wit("small", "--given-paths", f"{url}/list.txt", "--query-list.numbers", "False")[0] == 0
    queries = pq.read_table(tmp_path / "workspace/query_lists/small/queries/queries.parquet")
    assert queries["query"].to_pylist() == ["a red dog"]
    status, _, said = wit("small", "--given-paths", f"{url}/absent.txt")
    assert status == 2 and "absent.txt" in said and "given_paths" in said, said


def test_the_defaults_are_those_of_the_paper_and_metaclip() -> None:
    config = BuildQueriesConfig()
    assert config.query_list.max_queries == 500_000
    assert config.wikipedia.min_unigram_count == 100 and config.wikipedia.min_bigram_pmi == 30
    assert config.pageviews.min_views == 70 and config.wordnet.lemmas == "first"
