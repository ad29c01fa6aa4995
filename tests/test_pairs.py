from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from pipeline import pairs
from pipeline.pairs import (
    PAIRS,
    PAIRS_SCHEMA,
    PairsConfig,
    clean_caption,
    describe,
    detect_language,
    is_file_name,
    pair_id,
)
from pipeline.pii import mask
from pipeline.sources.config import UrlListConfig
from pipeline.sources.rows import ROWS_SCHEMA, RowsWriter
from pipeline.sources.url_list import URL_LIST, plan
from pipeline.stage import Counts
from pipeline.urls import normalise_url

TATE = Path(__file__).parents[1] / "../shared/data/tate_pairs.parquet"


def source(folder: Path, urls: list[str | None], captions: list[str | None]) -> UPath:
    folder.mkdir()
    with RowsWriter(folder, "a.csv") as writer:
        writer.append({"url": pa.array(urls, pa.string()), "caption_raw": pa.array(captions, pa.string())})
    return UPath(folder)


def run(folder: Path, urls: list[str | None], captions: list[str | None]) -> list[dict[str, Any]]:
    pairs.make_pairs([source(folder / "rows", urls, captions)], folder, PairsConfig())
    table = pq.read_table(folder / "pairs.parquet")
    assert table.schema.equals(PAIRS_SCHEMA)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_a_row_in_full(tmp_path: Path) -> None:
    rows = run(
        tmp_path,
        ["HTTP://User@Ex\u00e4mple.com:80/a/../b.jpg?utm_id=1#x"],
        ["  The caf\u00e9\n&amp; a Stra\u00dfe\x00in Paris "],
    )
    identity = hashlib.sha256(
        "http://User@xn--exmple-cua.com/b.jpg\x1fThe caf\u00e9 & a Stra\u00dfe in Paris".encode()
    ).hexdigest()[:32]
    assert rows == [
        {
            "part": 0,
            "source": "a.csv",
            "row": 0,
            "url": "HTTP://User@Ex\u00e4mple.com:80/a/../b.jpg?utm_id=1#x",
            "caption_raw": "  The caf\u00e9\n&amp; a Stra\u00dfe\x00in Paris ",
            "text_key": None,
            "page_url": None,
            "page_opt_out": None,
            "url_norm": "http://User@xn--exmple-cua.com/b.jpg",
            "host": "xn--exmple-cua.com",
            "caption": "The caf\u00e9 & a Stra\u00dfe in Paris",
            "caption_key": "the caf\u00e9 & a strasse in paris",
            "pair_id": identity,
            "chars": 28,
            "words": 7,
            "lang": rows[0]["lang"],
            "lang_score": rows[0]["lang_score"],
            "is_file_name": False,
            "pii": None,
        }
    ]  # fmt: skip


def test_personal_data_are_masked_before_anything_is_computed(tmp_path: Path) -> None:
    raw = "Ann &lt;ANN@X.org&gt;\n+44\u00a020 7946&nbsp;0958"
    captions = [raw, "a cat", None, raw, "Ann <<email>> <phone>", "10.0.0.1"]
    rows = run(tmp_path, ["http://h/a.jpg"] * 6, list(captions))
    assert [row["caption_raw"] for row in rows] == captions
    masked = "Ann <<email>> <phone>"
    assert [row["caption"] for row in rows] == [masked, "a cat", None, masked, masked, "<ip>"]
    assert [row["pii"] for row in rows] == ["email,phone", None, None, "email,phone", None, "ip"]
    computed = ("caption_key", "pair_id", "chars", "words", "lang", "lang_score", "is_file_name")
    assert [rows[0][name] for name in computed] == [rows[4][name] for name in computed]
    assert rows[0]["pair_id"] == pair_id("http://h/a.jpg", masked)


def test_masking_can_be_turned_off(tmp_path: Path) -> None:
    rows_folder = source(tmp_path / "rows", ["http://h/a.jpg"], ["Ann, a@b.com"])
    pairs.make_pairs([rows_folder], tmp_path, PairsConfig(mask_pii=False))
    (row,) = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    assert (row["caption"], row["pii"]) == ("Ann, a@b.com", None)


def test_masking_leaves_the_names_of_files(tmp_path: Path) -> None:
    rows = run(tmp_path, ["http://h/a.jpg"] * len(FILE_NAMES), list(FILE_NAMES))
    assert [(row["caption"], row["pii"]) for row in rows] == [(name, None) for name in FILE_NAMES]


def test_what_is_missing_stays_missing_and_every_row_stays(tmp_path: Path) -> None:
    urls = [None, "data:image/gif;base64,R0", "http://h/a.jpg", "http://h/a.jpg", "javascript:x()", None]
    rows = run(tmp_path, urls, ["a caption", "a caption", None, " \n&nbsp;", "IMG_1234.jpg", None])
    assert [row["url"] for row in rows] == urls
    assert [row["url_norm"] for row in rows] == [None, None, "http://h/a.jpg", "http://h/a.jpg", None, None]
    assert [row["host"] for row in rows] == [None, None, "h", "h", None, None]
    assert [row["caption"] for row in rows] == ["a caption", "a caption", None, None, "IMG_1234.jpg", None]
    for row in rows[2:4]:
        assert (row["chars"], row["words"], row["lang"], row["lang_score"], row["caption_key"]) == (
            0,
            0,
            None,
            None,
            None,
        )
    assert [row["is_file_name"] for row in rows] == [False, False, False, False, True, False]
    # Without a normal form the URL as found tells pairs apart; none is ever null.
    assert len({row["pair_id"] for row in rows}) == 5
    assert rows[2]["pair_id"] == rows[3]["pair_id"] == pair_id("http://h/a.jpg", "")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://h.example:8080/x", "h.example"),
        ("http://a:b@h.example/x@y", "h.example"),
        ("http://[2001:db8::1]:80/x", "[2001:db8::1]"),
        ("http://h.example?q", "h.example"),
    ],
)
def test_host(url: str, host: str, tmp_path: Path) -> None:
    assert run(tmp_path, [url], ["x"])[0]["host"] == host


URLS = st.sampled_from(["http://h/a", "HTTP://h/b?utm_x=1", "http://\u00fc.example/%7e"])
TEXTS = st.sampled_from(["a cat", " a  cat", "&lt;b&gt;", "e\u0301", "\x85x\u2028y", "DSC0001", "a@b.com"])
TEXT = st.text(max_size=20)
ROWS = st.lists(st.tuples(st.none() | TEXT | URLS, st.none() | TEXT | TEXTS), min_size=1, max_size=12)


@given(ROWS)
def test_the_fast_way_says_what_row_by_row_says(rows: list[tuple[str | None, str | None]]) -> None:
    columns = {"url": [url for url, _ in rows], "caption_raw": [text for _, text in rows], "row": range(len(rows))}
    table = pa.table(
        [pa.array(columns.get(field.name, [None] * len(rows)), field.type) for field in ROWS_SCHEMA], ROWS_SCHEMA
    )
    for (url, raw), found in zip(rows, describe(table).to_pylist(), strict=True):
        text = unicodedata.normalize("NFC", html.unescape(raw or ""))
        text = " ".join(
            "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text).split()
        )
        text, kinds = mask(text)
        assert found["pii"] == (",".join(kinds) or None)
        norm = normalise_url(url) if url is not None else None
        assert (found["url"], found["caption_raw"]) == (url, raw)
        assert found["caption"] == (text or None)
        assert found["caption_key"] == (text.casefold() or None)
        assert (found["chars"], found["words"]) == (len(text), len(text.split()))
        assert found["url_norm"] == norm
        expected = hashlib.sha256(f"{norm or url or ''}\x1f{text}".encode()).hexdigest()[:32]
        assert found["pair_id"] == expected and re.fullmatch("[0-9a-f]{32}", expected)
        assert (found["lang"] is None) == (text == "")
        assert found["is_file_name"] == is_file_name(text)


@given(st.text())
def test_cleaning_leaves_no_control_characters_and_single_spaces(raw: str) -> None:
    text = clean_caption(raw)
    assert text is None or (text == " ".join(text.split()) and unicodedata.is_normalized("NFC", text))
    assert text is None or not any(unicodedata.category(char) == "Cc" for char in text)


FILE_NAMES = [
    "IMG_1234.jpg",
    "IMG_1234",
    "img-1234 (2)",
    "DSC0001",
    "DSC_0001.JPG",
    "DSCN1234",
    "_MG_4321",
    "P1010101",
    "20160716_113957.JPG",
    "20160716_113957",
    "2016-07-16 11.39.57",
    "2016-07-16 11.39.57.jpg",
    "Screenshot 2020-01-02 at 10.11.12",
    "image001.png",
    "Screenshot_2020-01-02-10-11-12.png",
    "Screen Shot 2020-01-02 at 10.11.12 AM",
    "photo 12.jpg",
    "a-b_c.webp",
    "cat.JPEG",
    "WhatsApp Image 2020-01-02 at 10.11.12",
    "IMG_20200102_101112~2.jpg",
    "PXL_20210102_101112345",
    "picture 7",
    "scan0001.tif",
]
CAPTIONS = [
    "a cat",
    "A photo of 12 cats",
    "Image of a dog",
    "Photo by Ann Example, 2016",
    "1984",
    "New York 2016",
    "Scan of a letter",
    "P. 12 of",
    "Screenshot of the game",
    "How to open a .jpg file",
    "IMG",
    "the file cat.jpg shows a cat",
    "Untitled, oil on canvas",
    "",
]


@pytest.mark.parametrize("caption", FILE_NAMES)
def test_names_of_files(caption: str) -> None:
    assert is_file_name(caption)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_what_only_looks_like_one(caption: str) -> None:
    assert not is_file_name(caption)


def test_language_needs_no_network_and_sees_the_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)
    pairs._detector.cache_clear()
    texts = {
        "en": "a small brown dog runs across the wet grass",
        "de": "ein kleiner brauner Hund rennt \u00fcber die nasse Wiese",
        "fr": "un petit chien brun court dans l'herbe mouill\u00e9e",
        "ja": "\u5c0f\u3055\u306a\u8336\u8272\u306e\u72ac\u304c\u8d70\u3063\u3066\u3044\u307e\u3059",
    }
    for language, text in texts.items():
        found = detect_language(text)
        assert found is not None and found["lang"] == language
        assert 0.3 < float(str(found["score"])) <= 1
    assert detect_language((texts["en"] + " ") * 20 + texts["ja"] * 1_000) == detect_language((texts["en"] + " ") * 20)


def test_a_caption_of_a_million_characters(tmp_path: Path) -> None:
    rows = run(tmp_path, ["http://h/a"] * 2, ["word " * 200_000, "&" * 1_000_000])
    assert [(row["chars"], row["words"]) for row in rows] == [(999_999, 200_000), (1_000_000, 1)]


def test_batches_keep_rows_and_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls: list[str | None] = [f"http://h/{n}" for n in range(50)]
    whole = run(tmp_path, urls, [f"caption {n % 9}" for n in range(50)])
    monkeypatch.setattr(pairs, "BATCH_ROWS", 7)
    (tmp_path / "again").mkdir()
    assert run(tmp_path / "again", urls, [f"caption {n % 9}" for n in range(50)]) == whole
    assert [row["url"] for row in whole] == urls


@pytest.mark.skipif(not TATE.exists(), reason="../shared/data is not here")
def test_the_tate_list(tmp_path: Path) -> None:
    (part, *_) = plan(UrlListConfig(paths=(str(TATE),), page_url_column="page_url", rows_per_part=5_000))
    URL_LIST.run((), UPath(tmp_path / "rows"), part)
    result = PAIRS.run([UPath(tmp_path / "rows")], UPath(tmp_path / "pairs"), PairsConfig())
    assert result.counts == Counts(rows_in=5_000, rows_kept=5_000)
    table = pq.read_table(tmp_path / "pairs/pairs.parquet")
    assert set(table["host"].to_pylist()) == {"www.tate.org.uk"}
    languages = table["lang"].to_pylist()
    assert languages.count("en") > 0.7 * len(languages)
    assert not any(table["is_file_name"].to_pylist())
    assert not any(table["pii"].to_pylist())  # a museum's catalogue holds nobody's number
    again = PAIRS.run([UPath(tmp_path / "rows")], UPath(tmp_path / "again"), PairsConfig())
    assert again.record.outputs == result.record.outputs
