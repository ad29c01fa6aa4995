"""Every source of files through the flow, in its official format, to the pairs worth a download."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archive_writer import warcinfo, wat, wat_value
from test_adapters import COCO, IMAGE_DATA, PHOTO, REGIONS
from upath import UPath

from flows.build_dataset import build_dataset
from pipeline.blocklists import BlockConfig
from pipeline.config import BuildDatasetConfig, CurateConfig
from pipeline.curate import SELECTED_FILE
from pipeline.sources.config import (
    CocoConfig,
    CommonCrawlConfig,
    SourceConfig,
    UrlListConfig,
    VisualGenomeConfig,
    Yfcc100mConfig,
)
from pipeline.sources.list_presets import list_preset
from pipeline.stage import read_record

pytestmark = pytest.mark.usefixtures("prefect_harness")
ANY_LANGUAGE = CurateConfig(languages=())


def coco(folder: Path) -> SourceConfig:
    (folder / "captions_val2017.json").write_text(json.dumps(COCO), encoding="utf-8")
    return SourceConfig(kind="coco", coco=CocoConfig(paths=(str(folder / "captions_*.json"),)))


def visual_genome(folder: Path) -> SourceConfig:
    files = {"image_data": IMAGE_DATA, "region_descriptions": REGIONS}
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    paths = {name: str(folder / f"{name}.json") for name in files}
    return SourceConfig(kind="visual_genome", visual_genome=VisualGenomeConfig(**paths))


def yfcc100m(folder: Path) -> SourceConfig:
    (folder / "yfcc100m_dataset-0").write_text("\t".join(PHOTO.values()) + "\n", encoding="utf-8")
    return SourceConfig(kind="yfcc100m", yfcc100m=Yfcc100mConfig(paths=(str(folder / "yfcc100m_dataset-*"),)))


def common_crawl(folder: Path) -> SourceConfig:
    images = [{"path": "IMG@/src", "url": f"{name}.jpg", "alt": f"A {name} on the grass"} for name in ("cat", "dog")]
    page = "https://site.example/page.html"
    (folder / "a.warc.wat.gz").write_bytes(warcinfo() + wat(page, wat_value(page, images)))
    return SourceConfig(kind="common_crawl", common_crawl=CommonCrawlConfig(paths=(str(folder / "*.wat.gz"),)))


def cc12m(folder: Path) -> SourceConfig:
    (folder / "cc12m.tsv").write_text("http://a.example/1.jpg\ta red bus on the road\n", encoding="utf-8")
    return SourceConfig(url_list=list_preset("cc12m", [str(folder / "cc12m.tsv")]))


@pytest.mark.parametrize(
    ("make", "captions"),
    [
        (coco, ["A man is in a kitchen making pizzas.", "Man in apron standing on front of oven 🍕"]),
        (visual_genome, ["röd bil", "shade is along the street", "the clock is green"]),
        (yfcc100m, ["A red fox & its cubs", "Seen near Lake Tahoe , café & all"]),
        (common_crawl, ["A cat on the grass", "A dog on the grass"]),
        (cc12m, ["a red bus on the road"]),
    ],
)
def test_what_is_worth_a_download(make, captions: list[str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = BuildDatasetConfig(name="listed", source=make(tmp_path), curate=ANY_LANGUAGE)
    folder = build_dataset(config, str(tmp_path / "workspace"), until="selection")
    rows = pq.read_table(Path(folder) / SELECTED_FILE).to_pylist()
    assert sorted(row["caption"] for row in rows) == captions
    assert {row["source"].split(":")[0] for row in rows} == {config.source.kind}
    record = read_record(UPath(folder))
    assert record is not None and record.counts.rows_kept == len(captions)


def test_what_the_block_lists_hit_is_dropped_with_its_reason_and_personal_data_masked(tmp_path: Path) -> None:
    lines = ["http://bad.example/1.jpg\ta red bus on the road", "http://b.example/2.jpg\ta fine naughty picture"]
    lines += ["http://b.example/3.jpg\twrite to jane@doe.example for prints"]
    (tmp_path / "list.tsv").write_text("url\tcaption\n" + "\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "hosts.txt").write_text("bad.example\n")
    (tmp_path / "words.txt").write_text("naughty\n")
    config = BuildDatasetConfig(
        name="blocked",
        source=SourceConfig(url_list=UrlListConfig(paths=(str(tmp_path / "list.tsv"),))),
        block=BlockConfig(hosts=(str(tmp_path / "hosts.txt"),), words=(str(tmp_path / "words.txt"),)),
        curate=ANY_LANGUAGE,
    )
    folder = Path(build_dataset(config, str(tmp_path / "workspace"), until="selection"))
    captions = pq.read_table(folder / SELECTED_FILE)["caption"].to_pylist()
    assert captions == ["write to <email> for prints"]
    verdicts = read_record(UPath(folder.parent / "verdicts"))
    assert verdicts is not None and verdicts.counts.dropped == {"blocked_host": 1, "blocked_word": 1}
    card = (folder.parent / "card" / "card.md").read_text(encoding="utf-8")
    assert "blocked host" in card and "naughty" not in card
