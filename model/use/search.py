"""Images of a data set that are like a text or an image: every vector is compared, block by block, and the best are kept.

Axes: N images of a block, D dimensions.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional

from model.data import normalise
from model.data.manifest import ShardEntry
from model.data.shards import REBUILD, read_index
from model.errors import InputError
from model.evaluation.embed import Embedder, check_finite
from model.evaluation.images import UnreadableError
from model.evaluation.passes import Say
from model.evaluation.shards import Shards
from model.files import writing
from model.use.index import IndexPart, Vectors, read_vectors
from model.use.upright import upright_pixels

BLOCK = 65_536
COLUMNS = ("key", "image_offset", "image_size", "json_offset", "json_size")


@dataclass(frozen=True)
class Hit:
    """An image that was found: its cosine, its place, and what its shard tells of it."""

    score: float
    key: str
    shard: str
    url: str
    caption: str
    image_offset: int
    image_size: int


def query_of_text(embedder: Embedder, text: str) -> Tensor:
    """Unit vector (D,). Raises InputError for an empty text."""
    if not text.strip():
        raise InputError("an empty text is like every image; say what to search for")
    return functional.normalize(embedder.texts([text])[0], dim=0)


def query_of_image(embedder: Embedder, path: Path) -> Tensor:
    """Unit vector (D,). Raises InputError if the file cannot be read or decoded."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name an image") from error
    return query_of_bytes(embedder, data, str(path))


def query_of_bytes(embedder: Embedder, data: bytes, name: str) -> Tensor:
    """Unit vector (D,) of an encoded image. Raises InputError if it cannot be decoded, or its features are not finite."""
    try:
        square_HWC = upright_pixels(data, embedder.image_px)
    except UnreadableError as error:
        raise InputError(f"{name}: {error}; name an image in JPEG, PNG or WebP") from error
    with torch.inference_mode():
        image_BCHW = normalise(torch.from_numpy(square_HWC.copy())[None].to(embedder.device))
        _, feature_BD = embedder.towers.encode_image_twice(image_BCHW)
    check_finite(name, feature_BD)
    return functional.normalize(feature_BD[0].float().cpu(), dim=0)


def search(shards: Shards, parts: Sequence[IndexPart], query_D: Tensor, k: int, threshold: float) -> list[Hit]:
    """The `k` images of the highest cosine, those below `threshold` left out. Equals stand in the order of the shards.

    Exact: nothing is skipped. The vectors are those of the index, fp16, so a cosine is off by some 1e-4.
    """
    best: list[tuple[float, int, int]] = []  # minus score, number of the part, row: smaller is better
    for number, part in enumerate(parts):
        vectors = _vectors(part)
        for start in range(0, len(vectors.rows), BLOCK):
            score_N = vectors.features_ND[start : start + BLOCK].float() @ query_D
            least = threshold if len(best) < k else max(threshold, -best[-1][0])
            (candidate_M,) = (score_N >= least).nonzero(as_tuple=True)
            order_M = score_N[candidate_M].argsort(descending=True, stable=True)[:k]
            rows = candidate_M[order_M].tolist()
            found = [(-score_N[row].item(), number, vectors.rows[start + row]) for row in rows]
            best = sorted(best + found)[:k]
    return _told(shards, [part.shard for part in parts], best)


def _vectors(part: IndexPart) -> Vectors:
    vectors = read_vectors(part)
    if vectors is None:
        raise InputError(f"{part.path}: gone or changed while it was read; search again")
    return vectors


def _told(shards: Shards, entries: Sequence[ShardEntry], best: Sequence[tuple[float, int, int]]) -> list[Hit]:
    """What the shards tell of each image, each index read once."""
    tables = {number: read_index(shards.folder, entries[number], COLUMNS) for number in {place[1] for place in best}}
    hits = []
    for minus_score, number, row in best:
        (told,) = tables[number].slice(row, 1).to_pylist()
        hits.append(_hit(shards, entries[number], told, -minus_score))
    return hits


def _hit(shards: Shards, entry: ShardEntry, row: dict[str, Any], score: float) -> Hit:
    try:
        record = json.loads(shards.folder.read(entry.file, row["json_offset"], row["json_size"]))
        url, caption = record["url"], record["captions"][0]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{shards.folder.path}/{entry.file}: the .json of key {row['key']!r} holds no url and captions ({error!r}); {REBUILD}"
        ) from error
    return Hit(score, row["key"], entry.file, url, caption, row["image_offset"], row["image_size"])


def save_images(shards: Shards, hits: Sequence[Hit], folder: Path) -> None:
    """The images as they are stored, named by rank and key. Raises InputError if they cannot be written."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for rank, hit in enumerate(hits, 1):
        image = shards.folder.read(hit.shard, hit.image_offset, hit.image_size)
        path = folder / f"{rank:04d}-{hit.key}.jpg"
        with writing(path):
            path.write_bytes(image)


def export_embeddings(shards: Shards, parts: Sequence[IndexPart], embedder: Embedder, folder: Path, say: Say) -> None:
    """clip-retrieval's layout: img_emb/img_emb_0.npy, text_emb/text_emb_0.npy (unit, fp16) and metadata/metadata_0.parquet,
    one of each per tar that shows an image, numbers filled with zeros as there. Raises InputError if `folder` holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already; choose another one, or remove it")
    # Whole or absent: a reader of the files could not tell some of the tars from all of them.
    partial = folder.with_name(f".{folder.name}.partial")
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
    digits = len(str(max(1, len(parts))))
    number = 0
    for part in parts:
        vectors = _vectors(part)
        if not vectors.rows:
            continue
        table = read_index(shards.folder, part.shard, COLUMNS).take(vectors.rows).to_pylist()
        hits = [_hit(shards, part.shard, row, 0.0) for row in table]
        captions = [hit.caption for hit in hits]
        text_ND = functional.normalize(embedder.texts(captions)).half()
        columns = {
            "image_path": [hit.key for hit in hits],
            "caption": captions,
            "key": [hit.key for hit in hits],
            "url": [hit.url for hit in hits],
            "shard": [hit.shard for hit in hits],
        }
        ending = str(number).zfill(digits)
        with writing(folder):
            for name, content in (
                (f"img_emb/img_emb_{ending}.npy", _npy(vectors.features_ND)),
                (f"text_emb/text_emb_{ending}.npy", _npy(text_ND)),
                (f"metadata/metadata_{ending}.parquet", _parquet(columns)),
            ):
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        number += 1
        say(f"exported {part.shard.file}: {len(hits)} images")
    with writing(folder):
        partial.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)


def _npy(values_ND: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values_ND.numpy())
    return buffer.getvalue()


def _parquet(columns: dict[str, list[str]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def lines(hits: Sequence[Hit]) -> Iterator[str]:
    """For a person: rank, cosine, place and address, then the caption below."""
    for rank, hit in enumerate(hits, 1):
        yield f"{rank:>3}  {hit.score:.3f}  {hit.shard} {hit.key}  {hit.url}"
        yield f"            {hit.caption}"
