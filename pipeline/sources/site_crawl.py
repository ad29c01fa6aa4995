"""The source `site_crawl`: one site after the other, from its pages to candidate rows.

The fetching is done by a process of its own (`pipeline.sources.spider`), so a site can neither hold up nor bring down
more than its part. This file plans the parts, starts that process, and reads the pages it left in the cache into rows.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urldefrag

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.errors import InputError, WorkError
from pipeline.scratch import scratch_folder
from pipeline.sources.config import CrawlConfig
from pipeline.sources.frontier import Visit, site_of
from pipeline.sources.lexbor_page import read_lexbor_page
from pipeline.sources.page import ImageText
from pipeline.sources.page_cache import PageCache, open_cache
from pipeline.sources.robots import product_token
from pipeline.sources.rows import RowsWriter
from pipeline.stage import Counts, Stage

PAGES_FILE = "pages.parquet"
GRACE_S = 30.0  # beyond a site's deadline, for the page in hand and for writing; then the process is killed
BATCH_ROWS = 4_096
LOG_TAIL_CHARS = 2_000

PAGES_SCHEMA = pa.schema(
    [
        ("page_url", pa.string()),
        ("status", pa.int32()),  # HTTP status, null if no response came
        ("outcome", pa.string()),
        ("depth", pa.int32()),  # links from the nearest seed
        ("images", pa.int32()),  # images found on it
        ("redirect_to", pa.string()),  # where a redirect led, null if it is none
    ]
)

NO_SITE = {
    "dns_error": "its host name does not resolve; check the spelling and the network",
    "connection_refused": "nothing answers there; check the address and the port",
    "private_address": "its address is not one of the public Internet; set source.site_crawl.allow_private_addresses",
    "off_site": "it leads to {redirect_to}, which is another site; give that address as the seed",
}

log = logging.getLogger(__name__)


class CrawlError(WorkError):
    """The crawling process failed. Trying again goes on where it stopped, for the pages fetched so far are kept."""


def plan(config: CrawlConfig) -> list[CrawlConfig]:
    """The parts of a crawl: one per site, each a configuration that holds that site's seeds alone, in the order given.

    Raises InputError if there is no seed, or one that is no http(s) address.
    """
    if not config.seeds:
        raise InputError("source.site_crawl.seeds is empty; name at least one page to start from")
    sites: dict[str, dict[str, None]] = {}
    for number, seed in enumerate(config.seeds):
        site = site_of(seed)
        if not site:
            raise InputError(
                f"source.site_crawl.seeds[{number}]: {seed!r} is not a web address; write http(s)://HOST/..."
            )
        sites.setdefault(site, {})[seed] = None
    return [config.model_copy(update={"seeds": tuple(seeds)}) for seeds in sites.values()]


def site_crawl_stage(cache: Path) -> Stage[CrawlConfig]:
    """The stage that crawls one part of `plan` (it has no sources), keeping fetched pages in the local folder `cache`.

    The cache decides only what has to be fetched again after a kill, so it is no part of the stage's fingerprint. To
    crawl a site afresh, remove the stage's folder and the cache.
    """
    return Stage("site_crawl", functools.partial(_crawl_site, cache=cache), version=2)


def _crawl_site(sources: Sequence[UPath], out: Path, config: CrawlConfig, cache: Path) -> Counts:
    """Write `rows.parquet` and `pages.parquet` of one site."""
    site = site_of(config.seeds[0])
    cache_file = cache / _cache_name(site, config.user_agent)
    visits = _run_spider(config, cache_file)
    _check_reached(config, visits)
    pages = pa.Table.from_pylist([visit._asdict() for visit in visits], schema=PAGES_SCHEMA)
    pq.write_table(pages, out / PAGES_FILE, compression="zstd")
    with open_cache(cache_file) as cached, RowsWriter(out, f"site_crawl:{site}") as writer:
        for batch in _row_batches(visits, cached, product_token(config.user_agent)):
            writer.append(batch)
    outcomes = Counter(visit.outcome for visit in visits)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    log.log(logging.INFO if outcomes["ok"] else logging.WARNING, "%s: %d rows; pages: %s", site, writer.rows, told)
    return Counts(rows_in=writer.rows, rows_kept=writer.rows)


def _cache_name(site: str, user_agent: str) -> str:
    """A file per site and user agent: a site may answer another crawler otherwise."""
    identity = hashlib.sha256(f"{site}\n{user_agent}".encode()).hexdigest()
    return f"{re.sub('[^a-z0-9.-]', '_', site)[:100]}-{identity[:16]}.sqlite"


def _run_spider(config: CrawlConfig, cache: Path) -> list[Visit]:
    """Crawl in a process of its own, fetching what the cache does not hold; what became of each page, in order."""
    with scratch_folder("crawl") as name:
        folder = Path(name)
        paths = {"cache": str(cache.absolute()), "visits": str(folder / "visits")}
        told = {"config": config.model_dump(mode="json"), **paths}
        (folder / "spec.json").write_text(json.dumps(told), encoding="utf-8")
        command = [sys.executable, "-m", "pipeline.sources.spider", str(folder / "spec.json")]
        with (
            (folder / "log").open("wb") as output,
            # The pipe is held open and never written to: the process ends when this one does.
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output) as process,
        ):
            try:
                code = process.wait(config.site_deadline_s + config.timeout_s + GRACE_S)
            except subprocess.TimeoutExpired as error:
                raise CrawlError(f"{config.seeds[0]}: the crawl did not stop at its deadline and was killed") from error
            finally:
                process.kill()
        if code != 0:
            tail = (folder / "log").read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARS:]
            raise CrawlError(f"{config.seeds[0]}: the crawl ended with code {code}:\n{tail}")
        with (folder / "visits").open(encoding="utf-8") as file:
            return [Visit(*json.loads(line)) for line in file]


def _check_reached(config: CrawlConfig, visits: list[Visit]) -> None:
    """Raise InputError if the first step onto the site already fails, for every seed."""
    seeds = {urldefrag(seed).url for seed in config.seeds}
    failed = [visit for visit in visits if visit.page_url in seeds and visit.outcome in NO_SITE]
    if failed and all(visit.outcome != "ok" for visit in visits):
        told = NO_SITE[failed[0].outcome].format(redirect_to=failed[0].redirect_to)
        raise InputError(f"seed {failed[0].page_url}: {told}")


def _row_batches(visits: list[Visit], cache: PageCache, token: str) -> Iterator[dict[str, pa.Array]]:
    """The rows of all pages that were read, in the order of their URLs."""
    rows: list[tuple[ImageText, str, str | None]] = []
    for url in (visit.page_url for visit in visits if visit.outcome == "ok"):
        cached = cache.find(url)
        if cached is None:
            raise CrawlError(f"{url}: read in this crawl, yet not in the cache; is another crawl removing it?")
        read = read_lexbor_page(cached.body, url, cached.headers, token).page
        rows += [(row, url, read.opt_out) for row in read.rows]
        if len(rows) >= BATCH_ROWS:
            yield _columns(rows)
            rows = []
    if rows:
        yield _columns(rows)


def _columns(rows: list[tuple[ImageText, str, str | None]]) -> dict[str, pa.Array]:
    columns = {
        "url": [row.url for row, _, _ in rows],
        "caption_raw": [row.caption_raw for row, _, _ in rows],
        "text_key": [row.text_key for row, _, _ in rows],
        "page_url": [page_url for _, page_url, _ in rows],
        "page_opt_out": [opt_out for _, _, opt_out in rows],
    }
    return {name: pa.array(values, pa.string()) for name, values in columns.items()}
