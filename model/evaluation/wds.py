"""The wds layout of CLIP_benchmark: SPLIT/nshards.txt and SPLIT/0.tar, 1.tar ... with KEY.jpg and KEY.cls."""

from __future__ import annotations

import tarfile
from pathlib import Path

from model.data.shards import Folder
from model.errors import InputError
from model.evaluation.images import ImageRef
from model.evaluation.names import CLASS_NAMES, Words, lines
from model.evaluation.samples import IMAGE_ENDINGS, LabelledImage, Layout, Split, digest_of
from model.files import sha256_file


def is_wds(folder: Path) -> bool:
    """Whether a folder means to be of this layout."""
    return (folder / "test" / "nshards.txt").exists() or any((folder / "test").glob("*.tar"))


def read_wds(folder: Path, own: Words | None, packaged: Words | None) -> Layout[LabelledImage]:
    """The set in `folder`; labels are checked against its class names. Raises InputError."""
    names = names_of(folder, own, packaged)
    classes = len(names.words)
    train, val = (
        _split(folder / split, classes) if is_wds_split(folder / split) else None for split in ("train", "val")
    )
    return Layout("wds", names, _split(folder / "test", classes), train, val)


def names_of(folder: Path, own: Words | None, packaged: Words | None) -> Words:
    """The class names, which tars do not tell. Raises InputError if nobody does."""
    names = own or packaged
    if names is None:
        raise InputError(f"{folder / CLASS_NAMES}: no such file; write it: one class name a line; the first is label 0")
    return names


def is_wds_split(folder: Path) -> bool:
    """Whether a split that need not be there is."""
    return (folder / "nshards.txt").is_file()


def _split(folder: Path, classes: int) -> Split[LabelledImage]:
    tars = tars_of(folder)
    samples = [sample for tar in tars for sample in _read_tar(tar, classes)]
    if not samples:
        raise InputError(f"{folder}: no samples in its {len(tars)} tars; write the set anew")
    return Split(tuple(samples), digest_of([sha256_file(tar) for tar in tars]))


def tars_of(folder: Path) -> list[Path]:
    """The tars that `nshards.txt` counts. Raises InputError if one is not there."""
    count_file = folder / "nshards.txt"
    text = "".join(lines(count_file, "the number of tars, one integer"))
    if not text.isdecimal() or int(text) == 0:
        raise InputError(f"{count_file}: {text!r} is not a number of tars; write one integer above 0")
    tars: list[Path] = []
    for index in range(int(text)):  # one by one: the number may be any
        tar = folder / f"{index}.tar"
        if not tar.is_file():
            raise InputError(
                f"{tar}: no such file, but {count_file} says {text} tars; copy it there or mend the number"
            )
        tars.append(tar)
    return tars


def members_of(tar: Path) -> dict[str, dict[str, tarfile.TarInfo]]:
    """The files of a tar by key, then by ending. Raises InputError if it is damaged or a key occurs twice."""
    members: dict[str, dict[str, tarfile.TarInfo]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isfile():
                    _add_member(members, member, tar)
    except tarfile.TarError as error:
        raise InputError(f"{tar}: not a readable, uncompressed tar ({error}); copy it again") from error
    size_bytes = tar.stat().st_size
    for key, files in members.items():
        if any(member.offset_data + member.size > size_bytes for member in files.values()):
            raise InputError(f"{tar}: cut off within key {key!r}; copy it again")
    return members


def _read_tar(tar: Path, classes: int) -> list[LabelledImage]:
    folder = Folder(str(tar.parent))
    return [_sample(tar, folder, key, files, classes) for key, files in members_of(tar).items()]


def _add_member(members: dict[str, dict[str, tarfile.TarInfo]], member: tarfile.TarInfo, tar: Path) -> None:
    # As in WebDataset: the key is everything up to the first dot of the file name.
    folder, slash, name = member.name.rpartition("/")
    stem, _, ending = name.partition(".")
    files = members.setdefault(folder + slash + stem, {})
    if ending.lower() in files:
        raise InputError(f"{tar}: two members {member.name!r}; keys must be unique within a tar")
    files[ending.lower()] = member


def _sample(tar: Path, folder: Folder, key: str, files: dict[str, tarfile.TarInfo], classes: int) -> LabelledImage:
    image = next((files[ending] for ending in IMAGE_ENDINGS if ending in files), None)
    if image is None or "cls" not in files:
        missing = "image (.jpg, .jpeg, .png or .webp)" if image is None else "label (.cls)"
        raise InputError(f"{tar}: key {key!r} has no {missing}; a sample is KEY.jpg and KEY.cls")
    text = (
        ImageRef(folder, tar.name, files["cls"].offset_data, files["cls"].size)
        .read()
        .decode("utf-8", "replace")
        .strip()
    )
    if not text.isdecimal():
        raise InputError(
            f"{tar}: key {key!r} has the label {text!r}; a label is the number of a line of classnames.txt, from 0"
        )
    if int(text) >= classes:
        raise InputError(
            f"{tar}: key {key!r} has the label {text}, but classnames.txt names {classes} classes (labels 0 to "
            f"{classes - 1}); mend the label or add the class name"
        )
    return LabelledImage(f"{tar.name}/{key}", int(text), ImageRef(folder, tar.name, image.offset_data, image.size))
