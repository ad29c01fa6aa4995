"""The layout of torchvision's ImageFolder: CLASS/image.jpg in each split's folder, or in the set's own."""

from __future__ import annotations

import re
from pathlib import Path

from model.errors import InputError
from model.evaluation.images import FileImage
from model.evaluation.names import CLASS_NAMES, Words, plain
from model.evaluation.samples import IMAGE_ENDINGS, SPLITS, LabelledImage, Layout, Split, split_of
from model.files import sha256_file

SYNSET = re.compile(r"n\d{8}")


def classes_in(folder: Path) -> int:
    """How many classes the folder of its test split shows; 0 if it is not of this layout."""
    root = _roots(folder).get("test")
    return 0 if root is None else sum(bool(_images(own)) for own in _classes(root))


def read_image_folder(folder: Path, own: Words | None, packaged: Words | None) -> Layout[LabelledImage]:
    """The set in `folder`: a class is a folder, and labels follow the order of the folders' names. Raises InputError.

    Without test/ the split that is measured is val/, as ImageNet has it, and without any of these all of it. The set's own
    class names are in the order of the folders; so are those of a package if the folders are the synsets of ImageNet or
    numbers, else it is trusted only where it has the very names of the folders.
    """
    roots = _roots(folder)
    found = _in_order({own_folder.name for root in roots.values() for own_folder in _classes(root)})
    names = _class_names(folder, found, own, packaged)
    label = {name: number for number, name in enumerate(found)}
    splits = {split: _split(folder, root, label) for split, root in roots.items()}
    if empty := [str(roots[split]) for split, read in splits.items() if not read.samples]:
        raise InputError(f"{', '.join(empty)}: no image in any folder of a class; put some there or remove it")
    return Layout("folders", names, splits["test"], splits.get("train"), splits.get("val"))


def _class_names(folder: Path, found: list[str], own: Words | None, packaged: Words | None) -> Words:
    if own is not None:
        if len(own.words) != len(found):
            raise InputError(
                f"{folder / CLASS_NAMES}: {len(own.words)} names, but there are {len(found)} folders of classes; write one "
                "name for each, in the order of the folders' names"
            )
        return own
    told = [name.replace("_", " ") for name in found]
    if packaged is not None and len(packaged.words) == len(found):
        is_known_order = all(map(SYNSET.fullmatch, found)) or all(name.isdecimal() for name in found)
        if is_known_order or [plain(name) for name in packaged.words] == [plain(name) for name in told]:
            return packaged
    return Words(tuple(told), "the folders' names")


def _in_order(names: set[str]) -> list[str]:
    """By number where all are numbers, as ImageNetV2 (0 to 999) and Flowers102 (1 to 102) come; else by name."""
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def _split(folder: Path, root: Path, label: dict[str, int]) -> Split[LabelledImage]:
    files = [(own.name, path) for own in _classes(root) for path in _images(own)]
    samples = [LabelledImage(str(path.relative_to(folder)), label[name], FileImage(path)) for name, path in files]
    return split_of(samples, (sha256_file(path) for _, path in files))


def _roots(folder: Path) -> dict[str, Path]:
    found = {split: folder / split for split in SPLITS if (folder / split).is_dir()}
    if not found:
        return {"test": folder}
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    return found


def _classes(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    named = sorted(path for path in folder.rglob("*") if path.suffix.lower().lstrip(".") in IMAGE_ENDINGS)
    files = [path for path in named if not path.is_dir()]
    if lost := next((path for path in files if not path.is_file()), None):
        raise InputError(f"{lost}: no file, or a link to none; bring the image there or remove it")
    return files
