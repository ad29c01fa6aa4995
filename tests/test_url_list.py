from __future__ import annotations

import functools
import gzip
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from pipeline.errors import InputError
from pipeline.sources import list_part
from pipeline.sources.config import UrlListConfig
from pipeline.sources.list_part import UrlListPart
from pipeline.sources.rows import ROWS_SCHEMA
from pipeline.sources.url_list import URL_LIST, plan
from pipeline.stage import Counts

TATE = Path(__file__).parents[1] / "../shared/data/tate_pairs.parquet"


def write(path: Path, content: bytes | str) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def write_parquet(path: Path, columns: dict[str, Any], row_group_size: int = 1_000) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return str(path)


def run(part: UrlListPart, folder: Path, name: str = "out") -> tuple[list[dict[str, Any]], Counts]:
    result = URL_LIST.run((), UPath(folder / name), part)
    table = pq.read_table(folder / name / "rows.parquet")
    assert table.schema.equals(ROWS_SCHEMA)
    assert table["row"].to_pylist() == list(range(part.first_row, part.first_row + table.num_rows))
    assert result.counts.rows_kept == table.num_rows
    return table.to_pylist(), result.counts


def pairs(path: str, folder: Path, **config: Any) -> tuple[list[tuple[Any, Any]], Counts]:
    (part,) = plan(UrlListConfig(paths=(path,), **config))
    rows, counts = run(part, folder)
    return [(row["url"], row["caption_raw"]) for row in rows], counts


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    urls = ["http://h/a.jpg", "http://h/b.jpg", None, "http://h/d.jpg"]
    captions = ['a "quoted" cat', None, "NA", "d\u00e9j\u00e0"]
    expected = list(zip(urls, captions, strict=True))
    objects = [{"caption": caption, "url": url, "x": [1]} for url, caption in expected]
    csv = 'x,caption,url\n1,"a ""quoted"" cat",http://h/a.jpg\n2,,http://h/b.jpg\n3,NA,\n4,d\u00e9j\u00e0,http://h/d.jpg\n'
    tsv = 'url\tcaption\nhttp://h/a.jpg\ta "quoted" cat\nhttp://h/b.jpg\t\n\tNA\nhttp://h/d.jpg\td\u00e9j\u00e0\n'
    jsonl = "\n".join(map(json.dumps, objects)) + "\n\n"
    files = [
        write(tmp_path / "a.csv", csv),
        write(tmp_path / "a.CSV.gz", gzip.compress(csv.encode())),
        write(tmp_path / "bom.csv", b"\xef\xbb\xbf" + csv.replace("\n", "\r\n").encode()),
        write(tmp_path / "a.tsv", tsv),
        write(tmp_path / "a.jsonl", jsonl),
        write(tmp_path / "a.jsonl.gz", gzip.compress(jsonl.encode())),
        write_parquet(tmp_path / "a.parquet", {"url": urls, "caption": captions}),
    ]
    for number, part in enumerate(plan(UrlListConfig(paths=tuple(files)))):
        rows, counts = run(part, tmp_path, str(number))
        assert [(row["url"], row["caption_raw"]) for row in rows] == expected, part.path
        assert counts == Counts(rows_in=4, rows_kept=4)
        assert {row["source"] for row in rows} == {f"url_list:{Path(part.path).name}"}
        assert {(row["text_key"], row["page_url"], row["page_opt_out"]) for row in rows} == {("list", None, None)}


def test_parquet_is_cut_into_parts_that_read_their_own_range(tmp_path: Path) -> None:
    links = [f"http://h/{n}" for n in range(100)]
    texts = pa.array([f"t{n % 7}" for n in range(100)]).dictionary_encode()
    path = write_parquet(tmp_path / "a.parquet", {"link": links, "text": texts, "page": links}, row_group_size=13)
    config = UrlListConfig(
        paths=(path,), url_column="link", caption_column="text", page_url_column="page", rows_per_part=30
    )
    parts = plan(config)
    assert [(part.first_row, part.row_count) for part in parts] == [(0, 30), (30, 30), (60, 30), (90, 10)]
    assert [part.sha256 for part in parts] == [parts[0].sha256] * 4
    found: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        found += run(part, tmp_path, str(number))[0]
    assert [row["url"] for row in found] == links == [row["page_url"] for row in found]
    assert [row["caption_raw"] for row in found] == texts.to_pylist()


def test_other_bytes_at_the_same_path_are_another_part(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    config = UrlListConfig(paths=(write(path, "url,caption\na,b\n"),))
    (before,) = plan(config)
    write(path, "url,caption\na,c\n")
    (after,) = plan(config)
    assert before.sha256 != after.sha256
    assert not URL_LIST.run((), UPath(tmp_path / "out"), before).was_done
    assert not URL_LIST.run((), UPath(tmp_path / "out"), after).was_done
    assert URL_LIST.run((), UPath(tmp_path / "out"), after).was_done


def test_ragged_rows_are_counted_and_cost_only_themselves(tmp_path: Path) -> None:
    csv = 'url,caption\na,1\nb\nc,3,3,3\n"d\nd",4\n\ne,5\n'
    assert pairs(write(tmp_path / "a.csv", csv), tmp_path) == (
        [("a", "1"), ("d\nd", "4"), ("e", "5")],
        Counts(rows_in=5, rows_kept=3, dropped={"ragged_row": 2}),
    )


def test_bad_bytes_are_replaced_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    csv = b"url,caption\nhttp://h/\xe9,caf\xe9\nb,caf\xc3\xa9\n"
    found, counts = pairs(write(tmp_path / "a.csv", csv), tmp_path)
    assert found == [("http://h/\ufffd", "caf\ufffd"), ("b", "caf\u00e9")]
    assert counts == Counts(rows_in=2, rows_kept=2)
    assert "2 invalid_utf8" in caplog.text

    lines = b'{"url": "a", "caption": "caf\xe9"}\n{"url": "b", "caption": "x\\ud800y"}\n'
    assert pairs(write(tmp_path / "b.jsonl", lines), tmp_path)[0] == [("a", "caf\ufffd"), ("b", "x?y")]

    column = pa.array([b"ok", b"\xff", None], pa.binary())
    path = write_parquet(tmp_path / "c.parquet", {"url": column, "caption": column})
    assert pairs(path, tmp_path)[0] == [("ok", "ok"), ("\ufffd", "\ufffd"), (None, None)]


def test_lines_that_are_no_objects_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_part, "MAX_LINE_BYTES", 200)
    too_long = json.dumps({"url": "x" * 900})
    lines = ['{"url": "a", "caption": "1"}', "{broken", "[1]", '"x"', "[" * 150, too_long]
    lines += ['{"url": "b", "caption": 7}', "{}"]
    found, counts = pairs(write(tmp_path / "a.jsonl", "\n".join(lines)), tmp_path)
    assert found == [("a", "1"), ("b", "7"), (None, None)]
    assert counts.dropped == {"bad_json": 4, "too_long_line": 1}


def test_columns_can_be_named_where_there_is_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "cc12m.tsv", 'http://h/a\t"a cat\nhttp://h/b\tb\n')
    found, _ = pairs(path, tmp_path, column_names=("url", "caption"))
    assert found == [("http://h/a", '"a cat'), ("http://h/b", "b")]


def test_a_caption_of_a_million_characters_is_passed_on(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    for name, content in [
        ("a.csv", f"url,caption\na,{long}\nb,c\n"),
        ("a.jsonl", json.dumps({"url": "a", "caption": long})),
    ]:
        found, _ = pairs(write(tmp_path / name, content), tmp_path)
        assert found[0] == ("a", long)


def test_data_urls_are_cut(tmp_path: Path) -> None:
    data = "DATA:image/png;base64," + "A" * 999
    found, _ = pairs(write(tmp_path / "a.jsonl", json.dumps({"url": data, "caption": data})), tmp_path)
    assert found == [(data[:200], data)]


@pytest.mark.parametrize(
    ("name", "content", "config", "message"),
    [
        (
            "a.csv",
            "link,text\n1,2\n",
            {},
            r"a\.csv: has no column 'url', it has 'link', 'text'; set .*list\.url_column",
        ),
        ("a.tsv", "url\ttext\n1\t2\n", {}, r"no column 'caption', it has 'url', 'text'; set .*list\.caption_column"),
        ("a.csv", "1,2\n", {"column_names": ("a", "caption")}, r"no column 'url', it has 'a', 'caption'"),
        ("a.jsonl", '{"url": 1}\n', {}, r"a\.jsonl: has no column 'caption', it has 'url'"),
        ("a.jsonl", '{"url": "1", "caption": ""}\n', {"page_url_column": "p"}, r"no column 'p'.*page_url_column"),
        ("a.csv", "", {}, r"a\.csv: is empty; remove it from source\.url_list\.paths"),
        ("a.csv", "url;caption\n1;2\n", {}, r"it has 'url;caption'; set .* A CSV file has commas between its columns"),
        (
            "a.tsv",
            "http://h/1.jpg\tA cat\n",
            {},
            r"their names stand in its first line, or in .*column_names",
        ),
        ("a.csv", "url,caption\n", {}, r"a\.csv: holds no row; remove it from source\.url_list\.paths"),
        ("a.csv", "url,caption\n1\n", {}, r"holds no row that can be read \(1 ragged_row\)"),
        ("a.jsonl", "", {}, r"holds no row"),
        ("a.parquet", "no parquet", {}, r"a\.parquet: cannot be read: .*source\.url_list\.format"),
        ("a.csv.gz", gzip.compress(b"url,caption\n" + b"a,b\n" * 9, mtime=0)[:-9], {}, r"a\.csv\.gz: cannot be read"),
        ("a.csv.gz", "url,caption\na,b\n", {}, r"a\.csv\.gz: cannot be read: Not a gzipped file .*list\.format"),
        ("a.jsonl.xz", '{"url": 1}', {}, r"a\.jsonl\.xz: cannot be read: Input format not supported"),
        ("a.tsv.bz2", "url\tcaption\n", {}, r"a\.tsv\.bz2: cannot be read: Invalid data stream"),
        ("a.csv.zst", "url,caption\na,b\n", {}, r"a\.csv\.zst: cannot be read: Unable to decompress Zstandard"),
        ("a.csv", "url,l\xe9gende\na,b\n".encode("latin-1"), {}, r"a\.csv: is no UTF-8 text: .*0xe9.*save it as UTF-8"),
        ("a.csv", "url,caption\na,b\n".encode("utf-16"), {}, r"a\.csv: is UTF-16 .*save it as UTF-8"),
        ("a.tsv", "url\tcaption\na\tb\n".encode("utf-16-be"), {}, r"a\.tsv: is UTF-16 .*save it as UTF-8"),
        ("a.jsonl", '{"url": 1}'.encode("utf-32"), {}, r"a\.jsonl: is UTF-16 .*save it as UTF-8"),
        ("a.csv", "url,caption,caption\na,b,c\n", {}, r"a\.csv: has 2 columns 'caption'; rename .*caption_column"),
        ("a.csv", "1,2,3\n", {"column_names": ("url", "url", "caption")}, r"has 2 columns 'url'.*list\.url_column"),
        (
            "a.csv",
            'url,caption\nu1,"one red car\nu2,two red cars\nu3,three red cars\n',
            {},
            r"a\.csv: line 2: the quote before 'one red car' is not closed",
        ),
        ("a.csv", 'url,caption\nu1,"one\nu2,"two"\nu3,b\n', {}, r"a\.csv: line 2: the quote before 'one' is not"),
        ("a.txt", "url,caption\n1,2\n", {}, r"a\.txt: its ending tells no format.*set source\.url_list\.format"),
    ],
)
def test_what_cannot_be_used_is_said(
    name: str, content: bytes | str, config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        pairs(path, tmp_path, **config)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_planned_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"source\.url_list\.paths is empty"):
        plan(UrlListConfig())
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        plan(UrlListConfig(paths=(str(tmp_path / "none.csv"),)))
    (tmp_path / "lists").mkdir()
    for path in (tmp_path / "lists", tmp_path / "list*"):
        with pytest.raises(
            InputError, match=r"/lists: is a folder; name its files in .*list\.paths, such as '.*/lists/\*'"
        ):
            plan(UrlListConfig(paths=(str(path),)))
    with pytest.raises(InputError, match=r"\*\.csv: matches no file"):
        plan(UrlListConfig(paths=(str(tmp_path / "*.csv"),)))
    empty = write_parquet(
        tmp_path / "e.parquet", {"url": pa.array([], pa.string()), "caption": pa.array([], pa.string())}
    )
    with pytest.raises(InputError, match=r"e\.parquet: holds no rows"):
        plan(UrlListConfig(paths=(empty,)))
    twice = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["url", "caption", "caption"])
    pq.write_table(twice, tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet: has 2 columns 'caption'"):
        plan(UrlListConfig(paths=(str(tmp_path / "d.parquet"),)))
    lists = write_parquet(tmp_path / "l.parquet", {"url": ["a"], "caption": [["x", "y"]]})
    (part,) = plan(UrlListConfig(paths=(lists,)))
    with pytest.raises(InputError, match=r"column 'caption' holds list<.*not text"):
        run(part, tmp_path)


def test_a_file_that_is_damaged_in_its_middle_is_named(tmp_path: Path) -> None:
    urls = [f"http://h/{hashlib.sha256(str(n).encode()).hexdigest()}" for n in range(3_000)]
    files = [
        Path(write_parquet(tmp_path / "a.parquet", {"url": urls, "caption": urls}, row_group_size=3_000)),
        Path(write(tmp_path / "a.csv.gz", gzip.compress("".join(f"{url},c\n" for url in ["url", *urls]).encode()))),
        Path(write(tmp_path / "b.jsonl.gz", gzip.compress("\n".join(map(json.dumps, urls)).encode()))),
    ]
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 4 : len(data) // 2] = b"\xff" * (len(data) // 2 - len(data) // 4)
        file.write_bytes(data)
        with pytest.raises(InputError, match=rf"{file.name}: cannot be read: .*; it may be cut short, damaged"):
            pairs(str(file), tmp_path, caption_column="caption" if file.suffix == ".parquet" else "c")


def test_a_store_that_cannot_be_asked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/a.csv"
    for path, message in [
        ("zzz://h/a.csv", "Protocol not known: zzz; check source.url_list.paths"),
        ("zzz://h/*.csv", "Protocol not known: zzz; check source.url_list.paths"),
        (refused, "cannot be fetched: Cannot connect to host .*; check the network"),
        ("s3://bucket/a.csv", "cannot be fetched: Unable to locate credentials; check the network, the credentials"),
        ("s3://bucket/*.csv", "cannot be fetched: Unable to locate credentials; check the network, the credentials"),
        (str(tmp_path), "is a folder; name its files in source.url_list.paths, such as"),
    ]:
        with pytest.raises(InputError, match=f"^{re.escape(path)}: {message}"):
            plan(UrlListConfig(paths=(path,), format="csv"))


def test_a_star_matches_files_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.tsv"):
        write(tmp_path / name, "url,caption\n1,2\n")
    parts = plan(UrlListConfig(paths=(str(tmp_path / "*.csv"),)))
    assert [part.path for part in parts] == [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]


def test_files_of_one_name_are_two_sources_and_one_file_is_read_once(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    paths = [write(tmp_path / name, "url,caption\n1,2\n") for name in ("x/a.csv", "y/a.csv", "b.csv")]
    parts = plan(UrlListConfig(paths=(*paths, str(tmp_path / "*.csv"))))
    assert [part.source for part in parts] == [paths[0], paths[1], "b.csv"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    (tmp_path / "www").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "www")))
    threading.Thread(target=functools.partial(server.serve_forever, 0.05), daemon=True).start()
    yield tmp_path / "www", f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_lists_on_a_web_server(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    write(folder / "a.csv.gz", gzip.compress(b"url,caption\na,b\n"))
    write_parquet(folder / "a.parquet", {"url": ["a"], "caption": ["b"]})
    for name in ("a.csv.gz", "a.parquet"):
        assert pairs(f"{url}/{name}", tmp_path)[0] == [("a", "b")]
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        plan(UrlListConfig(paths=(f"{url}/none.csv",)))


@pytest.mark.skipif(not TATE.exists(), reason="../shared/data is not here")
def test_the_tate_list(tmp_path: Path) -> None:
    first, second = plan(UrlListConfig(paths=(str(TATE),), page_url_column="page_url", rows_per_part=30_000))
    source = pq.read_table(TATE, columns=["url", "caption", "page_url"]).to_pylist()
    rows = run(first, tmp_path, "1")[0] + run(second, tmp_path, "2")[0]
    assert [(row["url"], row["caption_raw"], row["page_url"]) for row in rows] == [
        tuple(row.values()) for row in source
    ]
