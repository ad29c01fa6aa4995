"""The configuration of a data set: every number that decides what is in it, frozen, with its unit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.balancing import BalanceConfig
from pipeline.blocklists import BlockConfig
from pipeline.matching import MatchConfig
from pipeline.query import SPEED_ONLY, QueryConfig
from pipeline.settings import USER_AGENT, Settings
from pipeline.sources.config import SourceConfig

PresetName = Literal[
    "webimagetext", "cc12m", "align", "laion400m", "datacomp_basic", "datacomp_caption", "obelics_like", "yfcc15m"
]
# The numbers of the preset webimagetext; those of the others stand in their SQL.
CAPTION_RULES = (
    "min_caption_chars",
    "max_caption_chars",
    "min_caption_words",
    "languages",
    "min_language_score",
    "max_images_per_caption",
    "max_captions_per_image",
)
MOST_RETRY_PASSES = 9
MOST_DISTANCE = 8  # of perceptual hashes: beyond it the keys get short and the passes many
# The columns of images.scores, and the field that bounds each.
SCORE_BOUNDS = {"nsfw": "max_nsfw", "watermark": "max_watermark", "aesthetic": "min_aesthetic", "clip": "min_clip"}
IMAGE_RULES = ("min_side_px", "max_aspect_ratio", "min_bytes", "min_contrast")


def refuse_unread(preset: PresetName, section: str, settings: Settings, rules: Iterable[str]) -> None:
    """Raise ValueError if a person set a number that `preset` would not read.

    A field that has its default is let pass: a configuration that was written as JSON and read again has every field set.
    """
    if preset == "webimagetext":
        return
    defaults = type(settings).model_fields
    unread = [
        f"{section}.{name}"
        for name in rules
        if name in settings.model_fields_set and getattr(settings, name) != defaults[name].default
    ]
    if unread:
        raise ValueError(
            f"{', '.join(unread)}: only the preset webimagetext reads this, {preset} has numbers of its own; "
            "leave it out, or set curate.preset to webimagetext"
        )


class CurateConfig(Settings):
    """Which pairs are worth a download."""

    preset: PresetName = Field(
        "webimagetext",
        description="Rule set, before and after the download; webimagetext reads the fields below and those of images, "
        "the others hold the numbers of their papers (sql/pre_*.sql, sql/post_*.sql)",
    )
    min_caption_chars: int = Field(5, ge=0, description="Shortest caption kept, in characters (LAION-400M: 5)")
    max_caption_chars: int = Field(1_000, ge=1, description="Longest caption kept, in characters")
    min_caption_words: int = Field(2, ge=0, description="Fewest words of a kept caption")
    languages: tuple[str, ...] = Field(("en",), description="Languages kept, ISO 639-1; empty = all")
    min_language_score: float = Field(0.3, ge=0, le=1, description="Least confidence of the language detector")
    max_images_per_caption: int = Field(
        10, ge=1, description="A caption on more distinct images than this is boilerplate (ALIGN: 10)"
    )
    max_captions_per_image: int = Field(
        1_000, ge=1, description="An image URL with more distinct captions than this is dropped (ALIGN: 1000)"
    )
    obey_opt_out: bool = Field(
        True,
        description="Drop pairs of pages that opt out (noai, noimageai, noindex, noimageindex, noml), and images whose own XMP "
        "does (plus:DataMining, tdm:reservation)",
    )
    mask_pii: bool = Field(
        True, description="Put <email>, <phone>, <card> and <ip> in the place of such data in captions"
    )
    max_pairs: int = Field(0, ge=0, description="Pairs kept at most, chosen by hash of (seed, pair_id); 0 = all")
    seed: int = Field(0, ge=0, description="Seed of the choice")

    @model_validator(mode="after")
    def _numbers_of_one_preset(self) -> Self:
        refuse_unread(self.preset, "curate", self, CAPTION_RULES)
        return self


class QueriesConfig(Settings):
    """The choice of WebImageText (section 2.2): pairs whose text holds a query of a list, about as many of each query."""

    query_list: str = Field(
        "",
        description="Name of a list that `wit build-queries` made, or the path of a folder with queries.parquet; "
        "empty = neither matching nor balancing",
    )
    match: MatchConfig = MatchConfig()
    balance: BalanceConfig = BalanceConfig()


class DownloadConfig(Settings):
    """Fetching and resizing the images."""

    backend: Literal["img2dataset", "native"] = Field(
        "native", description="What fetches; docs/download.md says what each of the two does and does not"
    )
    rows_per_part: int = Field(10_000, ge=1, description="URLs of one part, one part is one task")
    processes: int = Field(1, ge=1, description="Processes of one part; img2dataset only", json_schema_extra=SPEED_ONLY)
    threads: int = Field(32, ge=1, description="Connections of one part", json_schema_extra=SPEED_ONLY)
    timeout_s: float = Field(10.0, gt=0, description="Longest wait for one socket read, in seconds")
    image_deadline_s: float = Field(30.0, gt=0, description="Time for one image, redirects included, in seconds")
    part_deadline_s: float = Field(
        1_800.0,
        gt=0,
        description="Wall-clock time for one part, in seconds; over it the part is killed",
        json_schema_extra=SPEED_ONLY,
    )
    max_image_bytes: int = Field(20_000_000, ge=1_000, description="Larger bodies are refused, in bytes")
    max_image_pixels: int = Field(50_000_000, ge=1, description="Larger images are refused, in pixels")
    max_redirects: int = Field(5, ge=0, description="Redirects followed per image")
    retries: int = Field(1, ge=0, description="Further tries of a failed image within the part")
    # The next three are not of the first pass's fingerprint: each later pass is a stage of its own (pipeline/retry.py).
    retry_passes: int = Field(
        1,
        ge=0,
        le=MOST_RETRY_PASSES,
        description="Later passes over the rows that failed for a cause that may pass (DNS, time, connection, 429, 5xx)",
        json_schema_extra=SPEED_ONLY,
    )
    retry_wait_s: float = Field(
        30.0,
        ge=0,
        description="Pause before the first of these passes, in seconds; doubled before each further one",
        json_schema_extra=SPEED_ONLY,
    )
    max_retry_wait_s: float = Field(
        600.0,
        ge=0,
        description="Longest pause before a pass, in seconds, whatever a host's Retry-After asks for",
        json_schema_extra=SPEED_ONLY,
    )
    # Not of the fingerprint either: it stops a run, and raising it must not fetch the finished parts again.
    max_failed_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="A part in which more than this share fails is an outage: it fails",
        json_schema_extra=SPEED_ONLY,
    )
    short_side_px: int = Field(
        256, ge=8, description="Images are stored with this short side (never enlarged), in pixels"
    )
    jpeg_quality: int = Field(95, ge=1, le=100, description="JPEG quality of the stored images")
    user_agent: str = Field(
        USER_AGENT, min_length=1, description="How the downloader introduces itself; give a contact"
    )
    user_agent_token: str = Field(
        "webimagetext",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Our name in an X-Robots-Tag that speaks to one agent only",
    )
    obey_robots: bool = Field(True, description="Obey robots.txt; native only, img2dataset reads none")
    obey_tdm_reservations: bool = Field(
        True,
        description="Obey reservations of text and data mining: the header tdm-reservation and, native only, the host's "
        "/.well-known/tdmrep.json",
    )
    connections_per_host: int = Field(
        6, ge=1, description="Connections that a host has at most; native only", json_schema_extra=SPEED_ONLY
    )
    host_delay_s: float = Field(
        0.0,
        ge=0,
        description="Least time between the starts of two requests to a host, in seconds; native only",
        json_schema_extra=SPEED_ONLY,
    )
    allow_private_addresses: bool = Field(False, description="Fetch from private and loopback addresses too")
    # Not of the fingerprint, for the lists' hashes are: they come to the download as a source.
    block_hashes: tuple[str, ...] = Field(
        (),
        description="Text files of MD5 or SHA-256 hashes, in hex, one a line; an image whose bytes as they came have one is "
        "not kept; * matches many files",
        json_schema_extra=SPEED_ONLY,
    )


class ImageConfig(Settings):
    """Which downloaded images are kept; the sizes are those of the original file."""

    min_side_px: int = Field(64, ge=1, description="Shortest side kept, in pixels")
    max_aspect_ratio: float = Field(3.0, ge=1, description="Largest long/short side kept (ALIGN and DataComp: 3)")
    min_bytes: int = Field(500, ge=0, description="Smallest stored file kept, in bytes")
    min_contrast: float = Field(
        2.0, ge=0, description="Least standard deviation of the colours (0 to 255) kept; below it an image is blank"
    )
    # Off: the paper tells of no such step, and plain pictures, such as logos, look alike without being the same.
    near_duplicate_distance: int | None = Field(
        None,
        ge=0,
        le=MOST_DISTANCE,
        description="Of images whose perceptual hashes differ in at most this many of 64 bits, or are connected by such, the "
        "largest is kept (4: photographs once more, smaller or compressed anew); None = all are kept",
    )
    scores: tuple[str, ...] = Field(
        (),
        description="Parquet files with a column pair_id or sha256 (of the image as downloaded) and some of nsfw, watermark, "
        "aesthetic, clip",
    )
    max_nsfw: float | None = Field(None, description="Largest nsfw score kept (Re-LAION's punsafe: 0.5)")
    max_watermark: float | None = Field(None, description="Largest watermark score kept (LAION-5B's pwatermark: 0.8)")
    min_aesthetic: float | None = Field(None, description="Least aesthetic score kept")
    min_clip: float | None = Field(None, description="Least CLIP score kept (LAION-400M, ViT-B/32: 0.3)")
    scores_required: bool = Field(False, description="Drop images that no file of scores knows")
    face_boxes: tuple[str, ...] = Field(
        (),
        description="Parquet or CSV files with a column pair_id or sha256 (of the image as downloaded) and left, top, right, "
        "bottom as shares of width and height, 0 to 1: what is blurred in the shards; * matches many files",
    )
    evaluation_sets: tuple[str, ...] = Field(
        (),
        description="Names or folders of evaluation sets, SET/test/*.tar or images; training images with the same bytes are "
        "dropped",
    )
    evaluation_distance: int | None = Field(
        4,
        ge=0,
        le=MOST_DISTANCE,
        description="Training images whose perceptual hashes differ from an evaluation image's in at most this many of 64 bits "
        "are dropped too; None = only those with the same bytes",
    )
    evaluation_report_distance: int | None = Field(
        6,
        ge=0,
        le=MOST_DISTANCE,
        description="Images up to this many bits from an evaluation image are reported as overlap; None = only those dropped",
    )

    @model_validator(mode="after")
    def _scores_are_whole(self) -> Self:
        bounds = [name for name in SCORE_BOUNDS.values() if getattr(self, name) is not None]
        if self.scores and not bounds:
            raise ValueError(f"scores are given without a bound; set one of {', '.join(SCORE_BOUNDS.values())}")
        if not self.scores and (bounds or self.scores_required):
            raise ValueError(f"{(bounds or ['scores_required'])[0]} is set, but no file of scores is given; set scores")
        return self

    @property
    def overlap_distance(self) -> int | None:
        """The distance up to which overlap with evaluation images is looked for; None = only equal bytes."""
        return max(
            (each for each in (self.evaluation_distance, self.evaluation_report_distance) if each is not None),
            default=None,
        )


class ShardConfig(Settings):
    """Packing into WebDataset shards."""

    samples_per_shard: int = Field(10_000, ge=1, description="Most samples of one shard; shards are filled evenly")
    val_share: float = Field(0.01, ge=0, lt=1, description="Share of images held out as validation split, by hash")
    seed: int = Field(0, ge=0, description="Seed of the global shuffle and of the split")


class BuildDatasetConfig(Settings):
    """Everything that decides what a data set holds."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the data set and of its folder")
    source: SourceConfig = SourceConfig()
    block: BlockConfig = BlockConfig()
    curate: CurateConfig = CurateConfig()
    queries: QueriesConfig = QueriesConfig()
    download: DownloadConfig = DownloadConfig()
    images: ImageConfig = ImageConfig()
    shards: ShardConfig = ShardConfig()
    buckets: int = Field(
        0,
        ge=0,
        le=1_024,
        description="Tasks into which a statement that needs a view of all rows is cut, by hash of its key; the answer is the "
        "same, each reads all rows' keys and holds its share of them. 0 = as many as keep a share in query.memory_limit_mb",
        json_schema_extra=SPEED_ONLY,
    )
    query: QueryConfig = QueryConfig()

    @model_validator(mode="after")
    def _numbers_of_one_preset(self) -> Self:
        refuse_unread(self.curate.preset, "images", self.images, IMAGE_RULES)
        return self
