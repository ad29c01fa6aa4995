"""Extraction from Common Crawl: our readers against warcio + json (WAT) and warcio + lxml (WARC), on the same files.

    python -m benchmarks.bench_extract [--pages 1000]

The page is the real one of ../shared/data/warc where that is present, else a generated one; it is repeated with its
request and metadata records, as Common Crawl stores them, and the WAT is made of it in the form of ia-web-commons (the
real WAT holds the request only). Ours is the whole stage, Parquet written; the others only gather the pairs in a list,
and they must be equal. Times are CPU seconds, the best of five, taken in turns.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from fastwarc.warc import WarcRecordType
from lxml import html as lxml_html
from upath import UPath

from pipeline.sources import page
from pipeline.sources.archive import Losses, read_records
from pipeline.sources.common_crawl import COMMON_CRAWL, plan
from pipeline.sources.config import CommonCrawlConfig
from pipeline.sources.rows import ROWS_FILE

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from archive_writer import HTML_HEADERS, member, request, response, warcinfo, wat, wat_value_of_page  # noqa: E402

REAL = ROOT / "../shared/data/warc/whirlwind.warc.gz"
TARGET = 3.0
WAT_PAGES = 4  # for each page of the WARC: it is read so much faster
ROUNDS = 5

Pairs = list[tuple[str | None, str, str]]
Run = Callable[[], Callable[[], Pairs]]  # what is timed, giving what is compared


def real_page() -> tuple[str, bytes, tuple[tuple[str, str], ...]]:
    """(URL, HTML, headers) of the real page, or of a generated one of the same size."""
    if not REAL.exists():
        images = "".join(f'<p>{"text " * 900}</p><img src="/i/{n}.jpg" alt="Picture {n}">' for n in range(13))
        return "https://site.example/page.html", f"<html><body>{images}</body></html>".encode(), HTML_HEADERS
    with REAL.open("rb") as file:
        (record,) = read_records(file, WarcRecordType.response, 10**8, Losses(str(REAL)))
    return record.url, record.body, record.http_headers


def write_files(folder: Path, pages: int) -> tuple[Path, Path, int]:
    """A WARC of so many pages and a WAT of more, and the size of the HTML in bytes."""
    url, html, headers = real_page()
    value = wat_value_of_page(url, html, headers)
    request_value = {"Envelope": {"Payload-Metadata": {"HTTP-Request-Metadata": {"Headers": dict(headers)}}}}
    metadata_value = {
        "Envelope": {"Payload-Metadata": {"WARC-Metadata-Metadata": {"Metadata-Records": [{"Name": "x"}] * 8}}}
    }
    with (folder / "a.warc.gz").open("wb") as warc, (folder / "a.warc.wat.gz").open("wb") as wat_file:
        warc.write(warcinfo())
        wat_file.write(warcinfo())
        for number in range(WAT_PAGES * pages):
            page_url = f"{url}?{number}"
            if number < pages:
                warc.write(request(page_url) + response(page_url, html, headers))
                warc.write(member("metadata", page_url, b"fetchTimeMs: 100\r\n" * 10, "application/warc-fields"))
            wat_file.write(wat(page_url, request_value) + wat(page_url, value) + wat(page_url, metadata_value))
    return folder / "a.warc.gz", folder / "a.warc.wat.gz", pages * len(html)


def ours(path: Path, kind: str, folder: Path) -> Run:
    """The stage, and what it wrote."""
    (part,) = plan(CommonCrawlConfig(kind=kind, paths=(str(path),)))

    def run() -> Callable[[], Pairs]:
        out = folder / f"out-{time.monotonic_ns()}"
        COMMON_CRAWL.run([], UPath(out), part)
        names = ["url", "caption_raw", "text_key"]
        return lambda: list(zip(*pq.read_table(out / ROWS_FILE, columns=names).to_pydict().values(), strict=True))

    return run


def listed(work: Callable[[Path], Pairs], path: Path) -> Run:
    """A way that gathers its pairs in a list."""

    def run() -> Callable[[], Pairs]:
        pairs = work(path)
        return lambda: pairs

    return run


def warcio_json(path: Path) -> Pairs:
    from warcio.archiveiterator import ArchiveIterator

    pairs: Pairs = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type != "metadata":
                continue
            value = json.loads(record.content_stream().read())
            html = value["Envelope"]["Payload-Metadata"].get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
            base = page.resolve(record.rec_headers.get_header("WARC-Target-URI"), html.get("Head", {}).get("Base", ""))
            for link in html.get("Links", ()):
                if link["path"] == "IMG@/src":
                    texts = [(link[key], key) for key in ("alt", "title") if link.get(key, "").strip()]
                    pairs += [(page.resolve(base, link["url"]), text, key) for text, key in texts]
    return pairs


def warcio_lxml(path: Path) -> Pairs:
    """The same rows by lxml: `pipeline.sources.page`, links and all."""
    from warcio.archiveiterator import ArchiveIterator

    pairs: Pairs = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "response":
                url = record.rec_headers.get_header("WARC-Target-URI")
                read = page.read_page(record.content_stream().read(), url, record.http_headers.headers, "t")
                pairs += [(row.url, row.caption_raw, row.text_key) for row in read.rows if row.caption_raw is not None]
    return pairs


def warcio_lxml_lean(path: Path) -> Pairs:
    """The least that gives texts: parse, take src, alt and title of the images; no charset, srcset, caption or base."""
    from warcio.archiveiterator import ArchiveIterator

    pairs: Pairs = []
    parser = lxml_html.HTMLParser(encoding="utf-8")
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "response":
                root = lxml_html.document_fromstring(record.content_stream().read(), parser=parser)
                for image in root.iter("img"):
                    texts = [(image.get(key), key) for key in ("alt", "title") if (image.get(key) or "").strip()]
                    pairs += [(image.get("src"), text, key) for text, key in texts]
    return pairs


def cpu_s(run: Run) -> tuple[float, Pairs]:
    started = time.process_time()
    result = run()
    seconds = time.process_time() - started
    return seconds, result()


def compare(name: str, ours_run: Run, theirs: dict[str, Run], megabytes: float) -> bool:
    """Print the ratios; whether all of `theirs` but the lean ones are beaten by the target."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):  # in turns, so that a busy machine is busy for all
        seconds, expected = cpu_s(ours_run)
        best["ours"] = min(best.get("ours", seconds), seconds)
        for other, run in theirs.items():
            seconds, pairs = cpu_s(run)
            best[other] = min(best.get(other, seconds), seconds)
            first = 1 if "lean" in other else 0  # a lean one does not know the addresses
            if [pair[first:] for pair in pairs] != [pair[first:] for pair in expected]:
                raise SystemExit(f"{name}: {other} gives other pairs than ours")
    print(f"{name}: {len(expected)} equal pairs, ours {best['ours']:.2f} s = {megabytes / best['ours']:.0f} MB/s")
    for other in theirs:
        print(f"    {other}: {best[other]:.2f} s = {best[other] / best['ours']:.1f} times ours (target {TARGET:.0f})")
    return all(best[other] >= TARGET * best["ours"] for other in theirs if "lean" not in other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=1_000, help="pages of the WARC; the WAT has four times as many")
    pages = parser.parse_args().pages
    with tempfile.TemporaryDirectory(prefix="wit-bench-") as name:
        folder = Path(name)
        warc, wat_file, html_bytes = write_files(folder, pages)
        with gzip.open(wat_file) as file:
            wat_bytes = sum(len(chunk) for chunk in iter(lambda: file.read(1 << 20), b""))
        print(
            f"{pages} and {WAT_PAGES * pages} pages, {html_bytes / 1e6:.0f} MB of HTML, {wat_bytes / 1e6:.0f} MB of WAT"
        )
        slow_wat = {"warcio + json": listed(warcio_json, wat_file)}
        slow_warc = {"warcio + lxml": listed(warcio_lxml, warc), "warcio + lxml, lean": listed(warcio_lxml_lean, warc)}
        results = [
            compare("WAT", ours(wat_file, "wat", folder), slow_wat, wat_bytes / 1e6),
            compare("WARC", ours(warc, "warc", folder), slow_warc, html_bytes / 1e6),
        ]
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
