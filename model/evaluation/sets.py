"""Evaluation sets in the wds layout of CLIP_benchmark: class names, templates, and labelled images in tars."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from model.data.shards import Folder
from model.errors import InputError
from model.evaluation.images import ImageRef
from model.evaluation.metrics import METRICS, Metric
from model.files import sha256_file

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
RESERVED_NAMES = ("retrieval",)


@dataclass(frozen=True)
class LabelledImage:
    """`key` is unique in the set: the tar's name, then the sample's."""

    key: str
    label: int
    image: ImageRef


@dataclass(frozen=True)
class Split:
    """Labelled images; `digest` identifies them and their labels."""

    samples: tuple[LabelledImage, ...]
    digest: str


@dataclass(frozen=True)
class EvaluationSet:
    """One set. `images_digest` identifies its images and labels, `digest` all else too: names, templates, other splits.

    `train` and `val` are None where the folder has none; they are what a linear probe is fitted on.
    """

    name: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    metric: Metric
    samples: tuple[LabelledImage, ...]
    images_digest: str
    train: Split | None
    val: Split | None
    digest: str

    def prompts(self, label: int) -> list[str]:
        """The class's name in every template."""
        return [fill(template, self.class_names[label]) for template in self.templates]


def fill(template: str, class_name: str) -> str:
    """`{c}` is the place of the class name (CLIP_benchmark); `{}` (openai/CLIP) means the same."""
    return template.replace("{c}", class_name).replace("{}", class_name)


def read_sets(folders: Iterable[str | Path]) -> list[EvaluationSet]:
    """Every set, complete or not at all: labels, members and class names are checked before any image is looked at.

    Raises InputError where a folder is absent or holds something else.
    """
    sets: dict[str, EvaluationSet] = {}
    for folder in map(Path, folders):
        found = read_set(folder)
        if found.name in sets or found.name in RESERVED_NAMES:
            raise InputError(
                f"{folder}: the name {found.name!r} is taken; a set is named after its folder, so rename the folder"
            )
        sets[found.name] = found
    return list(sets.values())


def read_set(folder: Path) -> EvaluationSet:
    """The set in `folder`; raises InputError."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give evaluation_sets the path of a folder in the wds layout "
            "(classnames.txt, zeroshot_classification_templates.txt, test/0.tar)"
        )
    kind = folder / "dataset_type.txt"
    if kind.is_file() and kind.read_text().strip() not in ("", "classification"):
        raise InputError(f"{kind}: {kind.read_text().strip()!r} cannot be measured here; only classification sets can")
    class_names = _lines(folder / "classnames.txt", "one class name a line; the first is label 0")
    # A few names given twice are no error: the ImageNet names of the official code have two such.
    if len(class_names) > 1 and len(set(class_names)) == 1:
        raise InputError(
            f"{folder / 'classnames.txt'}: all {len(class_names)} lines say {class_names[0]!r}; write the name of each class"
        )
    templates = _lines(
        folder / "zeroshot_classification_templates.txt", "one prompt a line, with {c} for the class name"
    )
    for number, template in enumerate(templates, 1):
        if "{c}" not in template and "{}" not in template:
            raise InputError(
                f"{folder / 'zeroshot_classification_templates.txt'} line {number}: {template!r} has no place for the "
                "class name; write {c} where it belongs"
            )
    test = _split(folder / "test", len(class_names))
    train, val = (_optional_split(folder / name, len(class_names)) for name in ("train", "val"))
    metric = _metric(folder / "metric.txt", len(class_names), test)
    splits = [test.digest, *(split.digest if split else None for split in (train, val))]
    return EvaluationSet(
        name=folder.resolve().name,
        class_names=tuple(class_names),
        templates=tuple(templates),
        metric=metric,
        samples=test.samples,
        images_digest=test.digest,
        train=train,
        val=val,
        digest=_digest([splits, class_names, templates, metric]),
    )


def _split(folder: Path, classes: int) -> Split:
    tars = _tars(folder)
    samples = [sample for tar in tars for sample in _read_tar(tar, classes)]
    if not samples:
        raise InputError(f"{folder}: no samples in its {len(tars)} tars; write the set anew")
    return Split(tuple(samples), _digest([sha256_file(tar) for tar in tars]))


def _optional_split(folder: Path, classes: int) -> Split | None:
    return _split(folder, classes) if (folder / "nshards.txt").is_file() else None


def _metric(path: Path, classes: int, test: Split) -> Metric:
    """What `metric.txt` names; accuracy without the file."""
    if not path.is_file():
        return "accuracy"
    (name, *more) = _lines(path, f"one of {', '.join(METRICS)}")
    metric = next((metric for metric in METRICS if metric == name), None)
    if metric is None or more:
        raise InputError(f"{path}: {' '.join([name, *more])!r} is no metric; write one of {', '.join(METRICS)}")
    if metric == "roc_auc" and (classes != 2 or len({sample.label for sample in test.samples}) != 2):
        raise InputError(f"{path}: roc_auc needs two classes and test images of both; write another metric")
    return metric


def _lines(path: Path, remedy: str) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; write it: {remedy}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{path}: empty; write {remedy}")
    if "" in lines:
        raise InputError(
            f"{path} line {lines.index('') + 1}: an empty line would shift every label after it; remove it"
        )
    return lines


def _tars(folder: Path) -> list[Path]:
    count_file = folder / "nshards.txt"
    text = "".join(_lines(count_file, "the number of tars, one integer"))
    if not text.isdecimal() or int(text) == 0:
        raise InputError(f"{count_file}: {text!r} is not a number of tars; write one integer above 0")
    tars = [folder / f"{index}.tar" for index in range(int(text))]
    for tar in tars:
        if not tar.is_file():
            raise InputError(
                f"{tar}: no such file, but {count_file} says {text} tars; copy it there or mend the number"
            )
    return tars


def _read_tar(tar: Path, classes: int) -> list[LabelledImage]:
    members: dict[str, dict[str, tarfile.TarInfo]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isfile():
                    _add_member(members, member, tar)
    except tarfile.TarError as error:
        raise InputError(f"{tar}: not a readable, uncompressed tar ({error}); copy it again") from error
    size_bytes, folder = tar.stat().st_size, Folder(str(tar.parent))
    return [_sample(tar, folder, key, files, classes, size_bytes) for key, files in members.items()]


def _add_member(members: dict[str, dict[str, tarfile.TarInfo]], member: tarfile.TarInfo, tar: Path) -> None:
    # As in WebDataset: the key is everything up to the first dot of the file name.
    folder, slash, name = member.name.rpartition("/")
    stem, _, ending = name.partition(".")
    files = members.setdefault(folder + slash + stem, {})
    if ending.lower() in files:
        raise InputError(f"{tar}: two members {member.name!r}; keys must be unique within a tar")
    files[ending.lower()] = member


def _sample(
    tar: Path, folder: Folder, key: str, files: dict[str, tarfile.TarInfo], classes: int, size_bytes: int
) -> LabelledImage:
    image = next((files[ending] for ending in IMAGE_ENDINGS if ending in files), None)
    if image is None or "cls" not in files:
        missing = "image (.jpg, .jpeg, .png or .webp)" if image is None else "label (.cls)"
        raise InputError(f"{tar}: key {key!r} has no {missing}; a sample is KEY.jpg and KEY.cls")
    if max(image.offset_data + image.size, files["cls"].offset_data + files["cls"].size) > size_bytes:
        raise InputError(f"{tar}: cut off within key {key!r}; copy it again")
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


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
