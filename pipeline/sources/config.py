"""The configuration of the sources: where pairs come from."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from pipeline.settings import USER_AGENT, Settings
from pipeline.tiny_web.config import TinyWebConfig

ArchiveKind = Literal["wat", "warc"]
CocoUrlField = Literal["coco_url", "flickr_url"]


class CrawlConfig(Settings):
    """A polite crawl of a list of sites."""

    seeds: tuple[str, ...] = Field(
        (), description="Pages to start from; each seed's host is one part and stays on that host"
    )
    max_depth: int = Field(4, ge=0, description="Links followed from a seed")
    max_pages_per_site: int = Field(1_000, ge=1, description="Pages fetched per site, at most")
    max_page_bytes: int = Field(4_000_000, ge=1_000, description="A larger page is dropped, in bytes")
    timeout_s: float = Field(15.0, gt=0, description="Time for one page, in seconds")
    delay_s: float = Field(0.5, ge=0, description="Pause between two requests to one site, in seconds")
    concurrent_requests_per_site: int = Field(2, ge=1, description="Requests open at once to one site")
    site_deadline_s: float = Field(3_600.0, gt=0, description="Wall-clock time for one site, in seconds")
    obey_robots: bool = Field(True, description="Obey robots.txt (RFC 9309)")
    user_agent: str = Field(USER_AGENT, min_length=1, description="How the crawler introduces itself; give a contact")
    allow_private_addresses: bool = Field(False, description="Fetch from private and loopback addresses too")


class UrlListConfig(Settings):
    """Lists of URL-caption pairs."""

    paths: tuple[str, ...] = Field((), description="Files of pairs, local, http(s):// or s3://; * matches many")
    format: Literal["auto", "parquet", "csv", "tsv", "jsonl"] = Field(
        "auto", description="File format; auto = by its ending"
    )
    url_column: str = Field("url", min_length=1, description="Column that holds the image's URL")
    caption_column: str = Field("caption", min_length=1, description="Column that holds the text")
    page_url_column: str = Field("", description="Column that holds the page's URL; empty = none")
    column_names: tuple[str, ...] = Field(
        (),
        description="Column names of CSV and TSV files without a header line; empty = the first line names them",
    )
    rows_per_part: int = Field(500_000, ge=1, description="Rows of one part, one part is one task")


class CommonCrawlConfig(Settings):
    """Files of Common Crawl: a snapshot by its name, or any WARC and WAT files by their paths."""

    kind: ArchiveKind = Field(
        "wat",
        description="wat = metadata, a tenth of the size; warc = the pages: srcset, lazy images, captions too",
    )
    paths: tuple[str, ...] = Field(
        (), description="Files, local, http(s):// or s3://, * allowed; empty = from `snapshot`"
    )
    snapshot: str = Field("", pattern=r"^[A-Za-z0-9._-]*$", description="Name of a snapshot, such as CC-MAIN-2024-10")
    files: int = Field(1, ge=0, description="Files of the snapshot, chosen by hash of (seed, name); 0 = all")
    seed: int = Field(0, ge=0, description="Seed of the choice")
    base_url: str = Field(
        "https://data.commoncrawl.org", min_length=1, description="Where snapshots lie; s3://commoncrawl too"
    )
    max_record_bytes: int = Field(20_000_000, ge=1_000, description="A larger record is dropped, in bytes")
    user_agent_token: str = Field(
        "webimagetext",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Our name in robots directives that speak to one reader only",
    )


class CocoConfig(Settings):
    """Caption files of MS-COCO."""

    paths: tuple[str, ...] = Field((), description="Files captions_*.json, local, http(s):// or s3://, * allowed")
    url_field: CocoUrlField = Field("coco_url", description="Which of an image's addresses is taken")


class VisualGenomeConfig(Settings):
    """The two files of Visual Genome that hold images and region phrases."""

    image_data: str = Field("", description="File image_data.json, local, http(s):// or s3://")
    region_descriptions: str = Field("", description="File region_descriptions.json, local, http(s):// or s3://")


class Yfcc100mConfig(Settings):
    """Metadata files of YFCC100M."""

    paths: tuple[str, ...] = Field(
        (), description="Files yfcc100m_dataset*, * allowed: TSV (.bz2 too), or the SQLite file, which must be local"
    )
    rows_per_part: int = Field(1_000_000, ge=1, description="Photos of one part of a SQLite file; a TSV is one part")


SourceKind = Literal["tiny_web", "site_crawl", "url_list", "common_crawl", "coco", "visual_genome", "yfcc100m"]


class SourceConfig(Settings):
    """Where pairs come from: one kind, and the settings of that kind."""

    kind: SourceKind = Field(
        "url_list",
        description="Where pairs come from; tiny_web = a crawl of the embedded web, which the flow starts itself",
    )
    max_failed_share: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share of the parts (files, sites) that may fail and are left out, counted and tried again by the next "
        "run; if more fail, the run stops",
    )
    tiny_web: TinyWebConfig = TinyWebConfig()
    site_crawl: CrawlConfig = CrawlConfig()
    url_list: UrlListConfig = UrlListConfig()
    common_crawl: CommonCrawlConfig = CommonCrawlConfig()
    coco: CocoConfig = CocoConfig()
    visual_genome: VisualGenomeConfig = VisualGenomeConfig()
    yfcc100m: Yfcc100mConfig = Yfcc100mConfig()

    def unread_changes(self, default: SourceConfig) -> list[tuple[str, str]]:
        """Kind and field of what was changed against `default`, yet says nothing about a source of this kind."""
        return [
            (kind, field)
            for kind in get_args(SourceKind)
            for field, value in getattr(self, kind)
            if value != getattr(getattr(default, kind), field) and not self._reads(kind, field)
        ]

    def _reads(self, kind: SourceKind, field: str) -> bool:
        if self.kind == "tiny_web":  # a crawl, with seeds of its own
            return kind == "tiny_web" or (kind == "site_crawl" and field != "seeds")
        return kind == self.kind
