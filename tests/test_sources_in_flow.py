"""Every source of files through the flow, in its official format, to the pairs worth a download."""

from __future__ import annotations

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_writer import warcinfo, wat, wat_value
from test_adapters import COCO, IMAGE_DATA, PHOTO, REGIONS
from upath import UPath

from flows.build_dataset import build_dataset
from pipeline.blocklists import BlockConfig
from pipeline.config import BuildDatasetConfig, CurateConfig
from pipeline.errors import InputError
from pipeline.selection import SELECTED_FILE
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
    verdicts = read_record(UPath(folder.parent / "verdicts/part-00000"))
    assert verdicts is not None and verdicts.counts.dropped == {"blocked_host": 1, "blocked_word": 1}
    card = (folder.parent / "card" / "card.md").read_text(encoding="utf-8")
    assert "blocked host" in card and "naughty" not in card


def test_a_broken_file_is_left_out_within_the_error_budget_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        columns = {"url": [f"http://{number}.example/a.jpg"], "caption": [f"a red bus number {number}"]}
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    broken = tmp_path / "1.parquet"
    whole_bytes = broken.read_bytes()
    broken.write_bytes(whole_bytes[:-10])
    paths = UrlListConfig(paths=(str(tmp_path / "*.parquet"),))

    def captions(max_failed_share: float) -> list[str]:
        source = SourceConfig(url_list=paths, max_failed_share=max_failed_share)
        config = BuildDatasetConfig(name="listed", source=source, curate=ANY_LANGUAGE)
        folder = build_dataset(config, str(tmp_path / "workspace"), until="selection")
        return sorted(pq.read_table(Path(folder) / SELECTED_FILE)["caption"].to_pylist())

    with pytest.raises(InputError, match=r"1 of 4 parts failed, more than source.max_failed_share 0.2 .*1\.parquet"):
        captions(max_failed_share=0.2)
    assert captions(max_failed_share=0.25) == [f"a red bus number {number}" for number in (0, 2, 3)]
    assert "00001 is left out" in caplog.text and "sources: 3 of 4 kept; dropped: failed_part 1" in caplog.text
    broken.write_bytes(whole_bytes)
    assert captions(max_failed_share=0.25) == [f"a red bus number {number}" for number in range(4)]


def test_a_file_that_cannot_be_fetched_at_first_is_tried_again(tmp_path: Path) -> None:
    common_crawl(tmp_path)
    requests = list[str]()

    class Faltering(SimpleHTTPRequestHandler):
        def send_head(self):  # type: ignore[no-untyped-def]
            requests.append(self.path)
            if len(requests) < 3:
                return self.send_error(503)
            return super().send_head()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Faltering, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.warc.wat.gz"
        source = SourceConfig(kind="common_crawl", common_crawl=CommonCrawlConfig(paths=(url,)))
        config = BuildDatasetConfig(name="fetched", source=source, curate=ANY_LANGUAGE)
        folder = build_dataset(config, str(tmp_path / "workspace"), until="selection")
        server.shutdown()
    captions = pq.read_table(Path(folder) / SELECTED_FILE)["caption"].to_pylist()
    assert sorted(captions) == ["A cat on the grass", "A dog on the grass"]
    assert len(requests) > 3
