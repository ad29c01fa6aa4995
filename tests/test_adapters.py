"""Published data sets, rows in their official formats, to the rows that every source writes."""

from __future__ import annotations

import bz2
import json
import logging
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from pipeline.errors import InputError
from pipeline.sources import coco, url_list, visual_genome, yfcc100m
from pipeline.sources.list_presets import PRESETS, list_preset
from pipeline.sources.rows import ROWS_FILE, ROWS_SCHEMA
from pipeline.stage import Counts, Stage

Rows = list[tuple[Any, ...]]


def run(stage: Stage[Any], part: Any, out: Path) -> tuple[Rows, Counts]:
    """The rows (url, caption_raw, text_key, page_url) that a stage writes."""
    counts = stage.run([], UPath(out), part).counts
    table = pq.read_table(out / ROWS_FILE)
    assert table.schema == ROWS_SCHEMA
    assert table["row"].to_pylist() == list(range(table.num_rows)) and table.num_rows == counts.rows_kept
    names = ("url", "caption_raw", "text_key", "page_url")
    return [tuple(row[name] for name in names) for row in table.to_pylist()], counts


# ---- MS-COCO

COCO: dict[str, Any] = {
    "info": {"description": "COCO 2017 Dataset", "year": 2017},
    "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
    "images": [
        {
            "license": 4,
            "file_name": "000000397133.jpg",
            "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
            "height": 427,
            "width": 640,
            "date_captured": "2013-11-14 17:02:52",
            "flickr_url": "http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg",
            "id": 397133,
        },
        {"license": 4, "file_name": "000000037777.jpg", "height": 230, "width": 352, "id": 37777},
    ],
    "annotations": [
        {"image_id": 397133, "id": 370509, "caption": "A man is in a kitchen making pizzas."},
        {"image_id": 37777, "id": 21, "caption": "A kitchen with a sink."},
        {"image_id": 397133, "id": 370510, "caption": "Man in apron standing on front of oven 🍕"},
    ],
}


@pytest.mark.parametrize(
    ("url_field", "url"),
    [
        ("coco_url", "http://images.cocodataset.org/val2017/000000397133.jpg"),
        ("flickr_url", "http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg"),
    ],
)
def test_coco_gives_every_caption(tmp_path: Path, url_field: str, url: str) -> None:
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps(COCO))
    (part,) = coco.plan(coco.CocoConfig(paths=(str(tmp_path / "captions_*.json"),), url_field=url_field))
    rows, counts = run(coco.COCO, part, tmp_path / "out")
    assert rows == [
        (url, "A man is in a kitchen making pizzas.", "caption", None),
        (None, "A kitchen with a sink.", "caption", None),
        (url, "Man in apron standing on front of oven 🍕", "caption", None),
    ]
    assert counts == Counts(rows_in=3, rows_kept=3)
    assert pq.read_table(tmp_path / "out" / ROWS_FILE)["source"].to_pylist() == ["coco:captions_val2017.json"] * 3


def test_coco_counts_what_it_cannot_use(tmp_path: Path) -> None:
    broken = [
        {"image_id": 1, "caption": "x"},
        {"image_id": 397133},
        {"caption": "x"},
        "x",
        {"image_id": [], "caption": "x"},
    ]
    path = tmp_path / "captions.json"
    path.write_text(
        json.dumps({**COCO, "annotations": [*broken, *COCO["annotations"]], "images": [*COCO["images"], 7, {}]})
    )
    (part,) = coco.plan(coco.CocoConfig(paths=(str(path),)))
    rows, counts = run(coco.COCO, part, tmp_path / "out")
    assert len(rows) == 3 and counts.dropped == {"bad_annotation": 4, "unknown_image": 1}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"images": []}', '{"images": {}, "annotations": []}', json.dumps(COCO)[:-9], '{"a": "\xff"}'],
)
def test_coco_names_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(text.encode("latin-1", "replace"))
    (part,) = coco.plan(coco.CocoConfig(paths=(str(path),)))
    with pytest.raises(InputError, match=r"instances\.json"):
        run(coco.COCO, part, tmp_path / "out")


# ---- Visual Genome

IMAGE_DATA = [
    {
        "width": 800,
        "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg",
        "height": 600,
        "image_id": 1,
        "coco_id": None,
        "flickr_id": None,
    },
    {"width": 500, "url": "https://cs.stanford.edu/people/rak248/VG_100K/2.jpg", "height": 281, "image_id": 2},
]
REGIONS = [
    {
        "regions": [
            {
                "region_id": 1382,
                "width": 82,
                "height": 139,
                "image_id": 1,
                "phrase": "the clock is green",
                "y": 57,
                "x": 421,
            },
            {
                "region_id": 1383,
                "width": 182,
                "height": 5,
                "image_id": 1,
                "phrase": "shade is along the street ",
                "y": 5,
                "x": 0,
            },
        ],
        "id": 1,
    },
    {
        "image_id": 2,
        "regions": [{"region_id": 9, "x": 1, "y": 1, "width": 2, "height": 2, "phrase": "röd bil", "synsets": []}],
    },
]
VISUAL_GENOME_ROWS: Rows = [
    ("https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg", "the clock is green", "region", None),
    ("https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg", "shade is along the street ", "region", None),
    ("https://cs.stanford.edu/people/rak248/VG_100K/2.jpg", "röd bil", "region", None),
]


def visual_genome_part(folder: Path, regions: str, images: str | None = None) -> visual_genome.VisualGenomePart:
    (folder / "image_data.json").write_text(images if images is not None else json.dumps(IMAGE_DATA), encoding="utf-8")
    (folder / "region_descriptions.json").write_text(regions, encoding="utf-8")
    config = visual_genome.VisualGenomeConfig(
        image_data=str(folder / "image_data.json"), region_descriptions=str(folder / "region_descriptions.json")
    )
    (part,) = visual_genome.plan(config)
    return part


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 20])
def test_visual_genome_gives_every_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    monkeypatch.setattr(visual_genome, "CHUNK_BYTES", chunk_bytes)
    part = visual_genome_part(tmp_path, json.dumps(REGIONS, ensure_ascii=False, indent=1))
    rows, counts = run(visual_genome.VISUAL_GENOME, part, tmp_path / "out")
    assert rows == VISUAL_GENOME_ROWS and counts == Counts(rows_in=3, rows_kept=3)


def test_visual_genome_reads_zips_and_counts_what_it_cannot_use(tmp_path: Path) -> None:
    odd = [{"id": 1}, 5, {"id": 1, "regions": [{"phrase": 1}, {"phrase": "x", "image_id": 77}, "x"]}, *REGIONS]
    part = visual_genome_part(tmp_path, json.dumps(odd))
    with zipfile.ZipFile(tmp_path / "region_descriptions.json.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(part.region_descriptions, "region_descriptions.json")
    part = part.model_copy(update={"region_descriptions": str(tmp_path / "region_descriptions.json.zip")})
    rows, counts = run(visual_genome.VISUAL_GENOME, part, tmp_path / "out")
    assert rows == VISUAL_GENOME_ROWS and counts.dropped == {"bad_region": 4, "unknown_image": 1}


def test_visual_genome_keeps_what_came_before_the_break(tmp_path: Path) -> None:
    part = visual_genome_part(tmp_path, json.dumps(REGIONS)[:-40])
    rows, counts = run(visual_genome.VISUAL_GENOME, part, tmp_path / "out")
    assert rows == VISUAL_GENOME_ROWS[:2] and counts.dropped == {"truncated_file": 1}


@pytest.mark.parametrize(
    ("regions", "images"), [("{}", None), ("", None), ("[]", "[]"), ("[]", "{}"), ("[]", "[1,"), ("[" * 99_999, None)]
)
def test_visual_genome_names_a_file_that_is_none(tmp_path: Path, regions: str, images: str | None) -> None:
    part = visual_genome_part(tmp_path, regions, images)
    with pytest.raises(InputError, match=r"image_data\.json" if images is not None else r"region_descriptions\.json"):
        run(visual_genome.VISUAL_GENOME, part, tmp_path / "out")


# ---- YFCC100M

PHOTO = {
    "photoid": "6985418911",
    "uid": "4e2f7a26a1dfbf165a7e30bdabf7e72a",
    "unickname": "jane+doe",
    "datetaken": "2012-02-16 09:56:37.0",
    "dateuploaded": "1331840483",
    "capturedevice": "Canon+PowerShot+ELPH+310+HS",
    "title": "A+red+fox+%26+its+cubs",
    "description": "Seen near %3Ca+href%3D%22http%3A%2F%2Fx.y%22%3ELake+Tahoe%3C%2Fa%3E%2C+caf%C3%A9+%26amp%3B+all",
    "usertags": "fox,snow",
    "machinetags": "",
    "longitude": "-81.804885",
    "latitude": "24.550558",
    "accuracy": "12",
    "pageurl": "http://www.flickr.com/photos/39019111@N00/6985418911/",
    "downloadurl": "http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg",
    "licensename": "Attribution-NonCommercial-NoDerivs License",
    "licenseurl": "http://creativecommons.org/licenses/by-nc-nd/2.0/",
    "serverid": "7205",
    "farmid": "8",
    "secret": "df7747990d",
    "secretoriginal": "692d7e0a7f",
    "ext": "jpg",
    "marker": "0",
}
YFCC_ROWS: Rows = [
    (PHOTO["downloadurl"], "A red fox & its cubs", "title", PHOTO["pageurl"]),
    (PHOTO["downloadurl"], "Seen near  Lake Tahoe , café & all", "description", PHOTO["pageurl"]),
]


def photo(**changes: str) -> dict[str, str]:
    return {**PHOTO, **changes}


@pytest.mark.parametrize("has_hash", [False, True])
def test_yfcc100m_reads_both_releases_of_the_tsv(tmp_path: Path, has_hash: bool) -> None:
    cells = list(PHOTO.values())
    line = "\t".join(["17", cells[0], "0123abcd", *cells[1:]] if has_hash else cells)
    video = line[:-1] + "1"
    path = tmp_path / "yfcc100m_dataset-0.bz2"
    path.write_bytes(bz2.compress("\n".join([line, video, "too\tfew", line]).encode()))
    (part,) = yfcc100m.plan(yfcc100m.Yfcc100mConfig(paths=(str(path),)))
    rows, counts = run(yfcc100m.YFCC100M, part, tmp_path / "out")
    assert rows == YFCC_ROWS * 2 and counts.dropped == {"video": 1, "bad_row": 1}


def sqlite_file(path: Path, photos: list[dict[str, str]]) -> str:
    with sqlite3.connect(path) as connection:
        columns = ", ".join(f"{name} text" for name in yfcc100m.FIELDS if name != "photoid")
        connection.execute(f"create table yfcc100m_dataset (photoid integer primary key, {columns})")
        marks = ", ".join("?" * len(yfcc100m.FIELDS))
        values = [[one[name] or None for name in yfcc100m.FIELDS] for one in photos]
        connection.executemany(f"insert into yfcc100m_dataset values ({marks})", values)
    connection.close()
    return str(path)


def test_yfcc100m_reads_ranges_of_the_sqlite_file(tmp_path: Path) -> None:
    ids = [3, 40, 500, 6_985_418_911, 15_000_000_000]
    path = sqlite_file(
        tmp_path / "yfcc100m dataset?.sql", [photo(photoid=str(number), title=f"fox {number} runs") for number in ids]
    )
    parts = yfcc100m.plan(yfcc100m.Yfcc100mConfig(paths=(path,), rows_per_part=2))
    assert len(parts) == 3
    rows = [
        row for index, part in enumerate(parts) for row in run(yfcc100m.YFCC100M, part, tmp_path / f"out{index}")[0]
    ]
    assert [row[1] for row in rows if row[2] == "title"] == [f"fox {number} runs" for number in ids]
    (whole,) = yfcc100m.plan(yfcc100m.Yfcc100mConfig(paths=(path,)))
    assert run(yfcc100m.YFCC100M, whole, tmp_path / "whole")[0] == rows


@pytest.mark.parametrize(
    "title",
    [
        "20160716_113957.JPG",
        "IMG_0042",
        "IMG 0042",
        "DSC00123",
        "DSCF1234",
        "P1010101",
        "100_1234",
        "2012-06-01 11.39.57",
    ]
    + ["IMGP2345 copy", "_MG_1234-Edit", "img_1234 (2)", "sunset.jpg", "Picture 7", "dscn 12", "20120601"],
)
def test_file_names_are_no_titles(title: str) -> None:
    assert yfcc100m.is_file_name(title)


@pytest.mark.parametrize(
    "title", ["Sunset", "Boeing 747", "Apollo 11", "A cat, 2012", "Route 66", "Day 3 in Rome", "St. Louis", "Gate 7b"]
)
def test_titles_with_numbers_are_titles(title: str) -> None:
    assert not yfcc100m.is_file_name(title)


@pytest.mark.parametrize(
    "text",
    [
        "Canon EOS 5D, 50mm, f/1.8, 1/200 sec, ISO 400",
        "f/8 1/60s 18-55mm",
        "Exposure: 0.005 sec (1/200)\nAperture: f/5.6\nISO Speed: 100",
    ]
    + ["Nikon D90 + 35 mm @ f1.8, ISO 800, flash off"],
)
def test_camera_settings_are_no_description(text: str) -> None:
    assert yfcc100m.is_camera_description(text)


@pytest.mark.parametrize(
    "text",
    [
        "A heron waits by the pond, 300mm, f/4, ISO 200",
        "Shot at 1/1000 sec",
        "My 50mm lens",
        "",
        "The race took 35 seconds and 12 s more of waiting",
    ],
)
def test_other_descriptions_are_kept(text: str) -> None:
    assert not yfcc100m.is_camera_description(text)


def test_yfcc100m_counts_every_text_it_drops(tmp_path: Path) -> None:
    photos = [
        photo(photoid="1", title="IMG_1234", description="f%2F8+ISO+100"),
        photo(photoid="2", title="", description="%20"),
        photo(photoid="3", title="A%20dog", description=""),
        photo(photoid="4", downloadurl="", description=""),
    ]
    path = sqlite_file(tmp_path / "yfcc.sql", photos)
    (part,) = yfcc100m.plan(yfcc100m.Yfcc100mConfig(paths=(path,)))
    rows, counts = run(yfcc100m.YFCC100M, part, tmp_path / "out")
    assert [row[:2] for row in rows] == [(PHOTO["downloadurl"], "A dog"), (None, "A red fox & its cubs")]
    assert counts.dropped == {"file_name_title": 1, "camera_description": 1, "no_text": 1}


@pytest.mark.parametrize("content", [b"", b"not\ta\ttable\n", b"SQLite format 3\x00 and no more"])
def test_yfcc100m_names_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "yfcc100m_other"
    path.write_bytes(content)
    with pytest.raises(InputError, match="yfcc100m_other"):
        (part,) = yfcc100m.plan(yfcc100m.Yfcc100mConfig(paths=(str(path),)))
        run(yfcc100m.YFCC100M, part, tmp_path / "out")


def test_yfcc100m_keeps_what_came_before_the_break(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "\n".join("\t".join(photo(photoid=str(number), title=f"fox {number}").values()) for number in range(2_000))
    path = tmp_path / "yfcc100m_dataset-0.bz2"
    path.write_bytes(bz2.compress(text.encode(), 1)[:-1_000])
    (part,) = yfcc100m.plan(yfcc100m.Yfcc100mConfig(paths=(str(path),)))
    with caplog.at_level(logging.WARNING):
        rows, counts = run(yfcc100m.YFCC100M, part, tmp_path / "out")
    assert len(rows) > 500 and counts.dropped == {"truncated_file": 1} and "truncated_file" in caplog.text


def test_texts_that_would_hold_up_a_careless_pattern() -> None:
    for text in ("img " + "1" * 50_000, "-copy" * 10_000, "1" * 100_000, "1-" * 50_000, "f/" * 50_000, "<" * 100_000):
        yfcc100m.is_file_name(text), yfcc100m.is_camera_description(text[:900]), yfcc100m.plain_text(text)


# ---- lists

LISTS: dict[str, tuple[str, Any]] = {
    "cc3m": ("Train_GCC-training.tsv", "a very typical bus station\thttp://lh6.ggpht.com/-IvRtNLNcG8o/bus.jpg\n"),
    "cc12m": ("cc12m.tsv", "http://lh6.ggpht.com/-IvRtNLNcG8o/bus.jpg\ta very typical bus station\n"),
    "laion": (
        "part-00000.parquet",
        {
            "SAMPLE_ID": [1.0],
            "URL": ["http://lh6.ggpht.com/-IvRtNLNcG8o/bus.jpg"],
            "TEXT": ["a very typical bus station"],
        },
    ),
    "datacomp": (
        "00000.parquet",
        {"uid": ["a"], "url": ["http://lh6.ggpht.com/-IvRtNLNcG8o/bus.jpg"], "text": ["a very typical bus station"]},
    ),
    "coyo": (
        "part-00000.parquet",
        {"id": [4], "url": ["http://lh6.ggpht.com/-IvRtNLNcG8o/bus.jpg"], "text": ["a very typical bus station"]},
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_lists_by_name(tmp_path: Path, name: str) -> None:
    file, content = LISTS[name]
    if isinstance(content, str):
        (tmp_path / file).write_text(content)
    else:
        pq.write_table(pa.table(content), tmp_path / file)
    (part,) = url_list.plan(list_preset(name, [str(tmp_path / file)]))
    rows, _ = run(url_list.URL_LIST, part, tmp_path / "out")
    assert rows == [("http://lh6.ggpht.com/-IvRtNLNcG8o/bus.jpg", "a very typical bus station", "list", None)]


def test_an_unknown_list_is_named() -> None:
    with pytest.raises(ValueError, match=r"cc4m.*cc12m"):
        list_preset("cc4m", [])


@pytest.mark.parametrize(
    "make",
    [
        lambda: coco.plan(coco.CocoConfig()),
        lambda: coco.plan(coco.CocoConfig(paths=("absent.json",))),
        lambda: visual_genome.plan(visual_genome.VisualGenomeConfig(image_data="x")),
        lambda: yfcc100m.plan(yfcc100m.Yfcc100mConfig()),
        lambda: yfcc100m.plan(yfcc100m.Yfcc100mConfig(paths=("absent-*.bz2",))),
        lambda: coco.plan(coco.CocoConfig(paths=("nosuch://x",))),
    ],
)
def test_absent_files_say_which_setting_names_them(make: Any) -> None:
    with pytest.raises(InputError, match=r"source\."):
        make()
