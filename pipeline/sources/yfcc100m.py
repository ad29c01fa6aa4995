"""The source `yfcc100m`: photos of Flickr with title and description (Thomee et al. 2016, arXiv 1503.01817).

The texts are cleaned as the CLIP paper did (section 2.2: natural-language titles and descriptions in English; no file
names as titles, no descriptions of camera settings) as far as one row tells: the language is judged with everyone
else's, later.
"""

from __future__ import annotations

import html
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Literal, NamedTuple
from urllib.parse import quote, unquote_plus

from upath import UPath

from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.sources.config import Yfcc100mConfig
from pipeline.sources.files import expand, is_remote, open_stream, sha256_file
from pipeline.sources.text_rows import TextRows
from pipeline.stage import Counts, Stage

FIELD = "source.yfcc100m.paths"
MAX_LINE_BYTES = 4 << 20
SQLITE_MAGIC = b"SQLite format 3\x00"
SQL_NAME = "yfcc100m_dataset"  # of the table

# Of the published TSV; that of the Multimedia Commons has a line number before and a hash behind the photo id.
FIELDS = (
    *("photoid", "uid", "unickname", "datetaken", "dateuploaded", "capturedevice", "title", "description", "usertags"),
    *("machinetags", "longitude", "latitude", "accuracy", "pageurl", "downloadurl", "licensename", "licenseurl"),
    *("serverid", "farmid", "secret", "secretoriginal", "ext", "marker"),
)
FIELDS_WITH_HASH = ("line", FIELDS[0], "hash", *FIELDS[1:])
PHOTO_MARKER = "0"  # 1 is a video

_SELECT = f"""
    select title, description, pageurl, downloadurl, marker from {SQL_NAME}
    where rowid >= ? and rowid < ? order by rowid
"""
_NEXT_PART = f"select rowid from {SQL_NAME} where rowid >= ? order by rowid limit 1 offset ?"

_FILE_ENDING = re.compile(r"\.(?:jpe?g|png|gif|tiff?|bmp|heic|cr2|nef|arw|dng|raw|mov|mp4|avi|3gp)$", re.IGNORECASE)
_CAMERA_NAME = re.compile(
    r"(?:(?:img|imgp|image|dsc[nf]?|_?mg|pict|picture|photo|cimg|sam|hpim|kif|scan|mvi|vid|wp|untitled)[ _-]*\d+"
    r"|[a-z]{0,4}[_-]?\d{4,}"  # P1010101, 20160716
    r"|\d+(?:[ _.:-]+\d+)+)"  # 100_1234, 20160716_113957
    r"(?:[ _-](?:edit(?:ed)?|copy|crop(?:ped)?|bw|hdr|[a-z]|\d+)|[a-z]| ?\(\d+\)){0,3}",
    re.IGNORECASE,
)
_EXPOSURE = re.compile(
    r"\bf\s?/?\s?\d+(?:\.\d+)?\b|\b1/\d+(?:\.\d+)?\s?(?:s|sec|secs|second|seconds)?\b|\b\d+(?:\.\d+)?\s?(?:s|sec|seconds)\b"
    r"|\biso[\s:-]?\d+\b|\b\d+(?:\.\d+)?\s?-?\s?(?:\d+(?:\.\d+)?\s?)?mm\b|[+-]?\d+(?:\.\d+)?\s?ev\b",
    re.IGNORECASE,
)
_CAMERA_WORDS = frozenset(
    """
    canon nikon sony olympus pentax fuji fujifilm panasonic leica lumix sigma tamron tokina kodak eos rebel powershot
    coolpix camera lens film exposure aperture focal length shutter speed iso sensitivity flash mode manual auto program
    priority bias metering fired not did off on no yes with at using taken shot by and the usm is ed af ef s l ii iii x
    d vr dx fx
    """.split()  # noqa: SIM905
)
_TAG = re.compile(r"<[^<>]*>")
_WORD = re.compile(r"[^\W\d_]+")
MAX_FILE_NAME_CHARS = 80
MAX_SETTINGS_CHARS = 1_000  # a longer text tells more than settings
MIN_OTHER_WORDS = 3  # a text with two or more camera settings and fewer words beside them describes the camera


class Yfcc100mPart(Settings):
    """One TSV file or a range of rows of the SQLite file, which one task reads."""

    path: str
    sha256: str
    format: Literal["tsv", "sqlite"]
    first_rowid: int = 0
    end_rowid: int | None = None


class _Photo(NamedTuple):
    title: str
    description: str
    page_url: str
    download_url: str
    marker: str


def plan(config: Yfcc100mConfig) -> list[Yfcc100mPart]:
    """The parts in the order given. Raises InputError if there is no file or one is absent."""
    if not config.paths:
        raise InputError(f"{FIELD} is empty; name the files of yfcc100m_dataset")
    parts: list[Yfcc100mPart] = []
    for path in (path for pattern in config.paths for path in expand(pattern, FIELD)):
        digest = sha256_file(path, FIELD)
        with open_stream(path, FIELD) as file:
            is_sqlite = file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
        if is_sqlite:
            parts += _plan_sqlite(path, digest, config.rows_per_part)
        else:
            parts.append(Yfcc100mPart(path=path, sha256=digest, format="tsv"))
    return parts


def read_yfcc100m(sources: Sequence[UPath], out: Path, part: Yfcc100mPart) -> Counts:
    """Write `rows.parquet` of one part: title and description of each photo as rows of their own (`sources` is empty).

    Dropped and counted: `bad_row` (not the published fields), `video`, `no_text` (a photo with neither text),
    `file_name_title`, `camera_description`; and `truncated_file` once, where a compressed file breaks off.
    """
    with TextRows(out, part.path, f"yfcc100m:{UPath(part.path).name}") as rows:
        for photo in _sqlite_photos(part) if part.format == "sqlite" else _tsv_photos(part.path, rows):
            if photo is None:
                rows.dropped["bad_row"] += 1
            elif photo.marker != PHOTO_MARKER:
                rows.dropped["video"] += 1
            else:
                _add_texts(photo, rows)
    return rows.counts()


YFCC100M = Stage("yfcc100m", read_yfcc100m)


def _add_texts(photo: _Photo, rows: TextRows) -> None:
    title, description = plain_text(photo.title), plain_text(photo.description)
    if not title and not description:
        rows.dropped["no_text"] += 1
    if title and is_file_name(title):
        rows.dropped["file_name_title"] += 1
    elif title:
        rows.add(photo.download_url or None, title, "title", photo.page_url or None)
    if description and is_camera_description(description):
        rows.dropped["camera_description"] += 1
    elif description:
        rows.add(photo.download_url or None, description, "description", photo.page_url or None)


def plain_text(field: str) -> str:
    """A field of the metadata as text: percent-encoding, HTML tags and entities resolved, outer white space gone."""
    text = unquote_plus(field, errors="replace")
    if "<" in text:
        text = _TAG.sub(" ", text)
    return (html.unescape(text) if "&" in text else text).strip()


def is_file_name(title: str) -> bool:
    """Whether a title is the name that a camera gave the file, such as `20160716_113957.JPG` or `IMG 0042`."""
    if len(title) > MAX_FILE_NAME_CHARS:
        return False
    return _FILE_ENDING.search(title) is not None or _CAMERA_NAME.fullmatch(title) is not None


def is_camera_description(text: str) -> bool:
    """Whether a text tells the camera and its settings and next to nothing else."""
    if len(text) > MAX_SETTINGS_CHARS:
        return False
    rest, settings = _EXPOSURE.subn(" ", text)
    if settings < 2:
        return False
    words = [word for word in _WORD.findall(rest.lower()) if word not in _CAMERA_WORDS]
    return len(words) < MIN_OTHER_WORDS


def _tsv_photos(path: str, rows: TextRows) -> Iterator[_Photo | None]:
    """The photos of a TSV file; None stands for a line that has not the published fields."""
    with open_stream(path, FIELD) as file:
        while line := _read_line(file, rows):
            is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
            while not is_whole and line and not line.endswith(b"\n"):
                line = _read_line(file, rows)
            cells = line.rstrip(b"\r\n").decode("utf-8", "replace").split("\t")
            names = {len(FIELDS): FIELDS, len(FIELDS_WITH_HASH): FIELDS_WITH_HASH}.get(len(cells))
            if not is_whole or names is None:
                yield None
                continue
            cell = dict(zip(names, cells, strict=True))
            yield _Photo(cell["title"], cell["description"], cell["pageurl"], cell["downloadurl"], cell["marker"])


def _read_line(file: IO[bytes], rows: TextRows) -> bytes:
    """The next line or the start of a very long one; empty at the end, where a compressed file may also break off."""
    try:
        return file.readline(MAX_LINE_BYTES)
    except EOFError:
        rows.dropped["truncated_file"] += 1
        return b""


def _plan_sqlite(path: str, digest: str, rows_per_part: int) -> list[Yfcc100mPart]:
    starts: list[int] = []
    with closing(_connect(path)) as connection:
        at, offset = -(1 << 63), 0
        while found := connection.execute(_NEXT_PART, (at, offset)).fetchone():
            starts.append(int(found[0]))
            at, offset = starts[-1], rows_per_part
    if not starts:
        raise InputError(f"{path}: its table {SQL_NAME} is empty")
    ends: list[int | None] = [*starts[1:], None]
    return [
        Yfcc100mPart(path=path, sha256=digest, format="sqlite", first_rowid=start, end_rowid=end)
        for start, end in zip(starts, ends, strict=True)
    ]


def _sqlite_photos(part: Yfcc100mPart) -> Iterator[_Photo | None]:
    end = part.end_rowid if part.end_rowid is not None else (1 << 63) - 1
    with closing(_connect(part.path)) as connection:
        connection.text_factory = lambda value: value.decode("utf-8", "replace")
        for row in connection.execute(_SELECT, (part.first_rowid, end)):
            yield _Photo(*("" if value is None else str(value) for value in row))


def _connect(path: str) -> sqlite3.Connection:
    if is_remote(path):
        raise InputError(f"{path}: SQLite reads local files only; fetch it first")
    try:
        connection = sqlite3.connect(f"file:{quote(path.removeprefix('file://'))}?mode=ro&immutable=1", uri=True)
        connection.execute(_NEXT_PART, (0, 0))
    except sqlite3.Error as error:
        raise InputError(f"{path}: no SQLite file with a table {SQL_NAME} ({error}); fetch it again") from error
    return connection
