"""Sets of images with captions, for retrieval: the wds layout with KEY.txt, one caption a line, in the place of a label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.data.shards import Folder
from model.errors import InputError
from model.evaluation.images import ImageRef
from model.evaluation.names import dataset_type, fill
from model.evaluation.registry import KnownSet, find
from model.evaluation.samples import IMAGE_ENDINGS, digest_of
from model.evaluation.shards import Pair
from model.evaluation.wds import members_of, tars_of
from model.files import sha256_file

AS_IT_IS = "{c}"


@dataclass(frozen=True)
class CaptionSet:
    """One set. `prompt` has {c} for the caption: the paper puts "a photo of" before it (section 3.1.4, table 13)."""

    name: str
    pairs: tuple[Pair, ...]
    prompt: str
    digest: str
    known: KnownSet | None


def is_caption_set(folder: Path) -> bool:
    """Whether `dataset_type.txt` says so."""
    return dataset_type(folder) == "retrieval"


def read_caption_set(folder: Path) -> CaptionSet:
    """The set in `folder`; no image is looked at. Raises InputError that names tar and key."""
    known = find(folder.resolve().name)
    prompt = known.templates[0] if known is not None and known.task == "retrieval" else AS_IT_IS
    tars = tars_of(folder / "test")
    pairs = tuple(_prompted(pair, prompt) for tar in tars for pair in _read_tar(tar))
    if not pairs:
        raise InputError(f"{folder / 'test'}: no samples in its {len(tars)} tars; write the set anew")
    return CaptionSet(folder.resolve().name, pairs, prompt, digest_of([sha256_file(tar) for tar in tars]), known)


def _prompted(pair: Pair, prompt: str) -> Pair:
    return Pair(pair.key, pair.image, tuple(fill(prompt, caption) for caption in pair.captions))


def _read_tar(tar: Path) -> list[Pair]:
    folder, pairs = Folder(str(tar.parent)), []
    for key, files in members_of(tar).items():
        image = next((files[ending] for ending in IMAGE_ENDINGS if ending in files), None)
        if image is None or "txt" not in files:
            missing = "image (.jpg, .jpeg, .png or .webp)" if image is None else "captions (.txt)"
            raise InputError(
                f"{tar}: key {key!r} has no {missing}; a sample is KEY.jpg and KEY.txt, one caption a line"
            )
        stored = ImageRef(folder, tar.name, files["txt"].offset_data, files["txt"].size).read()
        try:
            text = stored.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{tar}: key {key!r} has captions that are not UTF-8 ({error}); write them anew"
            ) from error
        captions = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
        if not captions:
            raise InputError(f"{tar}: key {key!r} has no caption in its .txt; write one a line")
        pairs.append(Pair(f"{tar.name}/{key}", ImageRef(folder, tar.name, image.offset_data, image.size), captions))
    return pairs
