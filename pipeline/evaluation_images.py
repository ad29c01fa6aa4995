"""The images that a model will be tested on, by their bytes and their looks: what training images are compared with."""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.errors import InputError
from pipeline.parquet import read_parquet
from pipeline.perceptual import perceptual_hash, read_grey
from pipeline.settings import Settings
from pipeline.sources.files import readable
from pipeline.stage import Counts, Stage

EVALUATION_SETS_FIELD = "images.evaluation_sets"
EVALUATION_HASHES_FILE = "evaluation_hashes.parquet"
IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
HASHES_SCHEMA = pa.schema(
    {
        "evaluation_set": pa.string(),
        "evaluation_image": pa.string(),  # TAR/MEMBER, or the path below a folder of images
        "sha256": pa.string(),
        "perceptual_hash": pa.int64(),  # null: without structure, or no image that can be decoded
    }
)


@dataclass(frozen=True)
class EvaluationSet:
    """The files of an evaluation set, `SET/test/*.tar` in the WebDataset layout, else the images in the folder and below it."""

    folder: UPath
    files: tuple[UPath, ...]

    @property
    def name(self) -> str:
        return str(self.folder.name)


class EvaluationSetFiles(Settings):
    """What the hashes of a set depend on beside the bytes of its files: their names."""

    evaluation_set: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, found: EvaluationSet) -> EvaluationSetFiles:
        """The names of the files of a set."""
        root = found.folder / "test" if found.files[0].suffix == ".tar" else found.folder
        return cls(
            evaluation_set=found.name,
            names=tuple(file.path.removeprefix(root.path).lstrip("/") for file in found.files),
        )


def find_evaluation_sets(folders: Sequence[str]) -> list[EvaluationSet]:
    """The evaluation sets in these folders. Raises InputError that names all folders without one, and names that occur twice."""
    found = [EvaluationSet(UPath(folder), _files(folder)) for folder in folders]
    if empty := [str(each.folder) for each in found if not each.files]:
        raise InputError(
            f"{EVALUATION_SETS_FIELD}: neither test/*.tar nor images in {', '.join(empty)}; name folders of evaluation sets, "
            "or put them there"
        )
    if twice := [name for name, times in Counter(each.name for each in found).items() if times > 1]:
        raise InputError(
            f"{EVALUATION_SETS_FIELD}: several folders are called {', '.join(twice)}, and the report tells them "
            "by that name; rename all but one"
        )
    return found


def _files(folder: str) -> tuple[UPath, ...]:
    with readable(folder, EVALUATION_SETS_FIELD):
        tars = sorted((UPath(folder) / "test").glob("*.tar"), key=lambda tar: tar.name)
        images = [] if tars else [file for file in UPath(folder).rglob("*") if _is_image(file.name)]
    return tuple(tars) or tuple(sorted(images, key=lambda image: image.path))


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS


def _evaluation_hashes(sources: Sequence[UPath], out: Path, config: EvaluationSetFiles) -> Counts:
    """`sources` is the files of one set; `out` gets one row per image in them."""
    rows = [
        {
            "evaluation_set": config.evaluation_set,
            "evaluation_image": image,
            "sha256": hashlib.sha256(data).hexdigest(),
            "perceptual_hash": _hash_of(data),
        }
        for file, name in zip(sources, config.names, strict=True)
        for image, data in _images(file, name)
    ]
    if not rows:
        raise InputError(
            f"{EVALUATION_SETS_FIELD}: no image in the tars of {config.evaluation_set}; fetch it again, or leave it out"
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=HASHES_SCHEMA), out / EVALUATION_HASHES_FILE)
    return Counts(rows_in=len(rows), rows_kept=len(rows))


EVALUATION_HASHES = Stage("evaluation_hashes", _evaluation_hashes, version=2)


def _hash_of(data: bytes) -> int | None:
    """The perceptual hash; None also of what cannot be decoded, whose copies are still found by their bytes."""
    try:
        return perceptual_hash(read_grey(data))
    except ValueError:
        return None


def _images(file: UPath, name: str) -> Iterator[tuple[str, bytes]]:
    if file.suffix != ".tar":
        yield name, file.read_bytes()
        return
    try:
        with file.open("rb") as opened, tarfile.open(fileobj=opened, mode="r|*") as archive:
            for member in archive:
                data = archive.extractfile(member) if _is_image(member.name) else None
                if data is not None:  # a file, not a folder or a link
                    yield f"{name}/{member.name}", data.read()
    except tarfile.TarError as error:
        raise InputError(f"{file}: not a whole tar ({error}); fetch the evaluation set again") from error


def set_totals(hashes: Sequence[UPath]) -> dict[str, dict[str, Any]]:
    """Images of each set, and how many of them have no perceptual hash, from the folders of EVALUATION_HASHES."""
    totals = {}
    for folder in hashes:
        table = read_parquet(folder / EVALUATION_HASHES_FILE, ["evaluation_set", "perceptual_hash"])
        for name in table["evaluation_set"].unique().to_pylist():
            totals[name] = {"images": table.num_rows, "without_perceptual_hash": table["perceptual_hash"].null_count}
    return totals
