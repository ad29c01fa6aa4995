"""The layout of Pascal VOC's development kit, as torchvision's VOCDetection unpacks it: an XML file of objects for each image.

A class is shown by an image that has an object of it; if all of them are marked as difficult, the image counts neither for the
class nor against it (Everingham et al. 2010, section 4.2: as in ImageSets/Main/CLASS_SPLIT.txt, where it has a 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from model.errors import InputError
from model.evaluation.images import FileImage
from model.evaluation.multilabel_samples import MultilabelImage, multilabel_image, multilabel_split
from model.evaluation.names import CLASS_NAMES, Words, lines, plain
from model.evaluation.samples import IMAGE_ENDINGS, SPLITS, Layout, Split
from model.files import sha256_file

LISTS = Path("ImageSets") / "Main"


@dataclass(frozen=True)
class _Image:
    """An image, the classes of its objects, and those of its difficult objects."""

    path: Path
    shown: set[str]
    difficult: set[str]


def voc_folders(folder: Path) -> list[Path]:
    """Where development kits lie: the folder itself, or those of years in it or in its VOCdevkit."""
    places = [folder, *sorted(folder.glob("VOC*")), *sorted(folder.glob("VOCdevkit/VOC*"))]
    return [place for place in places if (place / "Annotations").is_dir() and (place / LISTS).is_dir()]


def read_voc(folder: Path, own: Words | None, packaged: Words | None) -> Layout[MultilabelImage]:
    """The set in `folder`: ImageSets/Main/test.txt is measured, or val.txt where there is no test. Raises InputError.

    Classes are those of the objects in all splits, in the order of the alphabet.
    """
    kits = voc_folders(folder)
    if len(kits) > 1:
        shown = ", ".join(str(kit.relative_to(folder)) for kit in kits)
        raise InputError(f"{folder}: several years of Pascal VOC ({shown}); put each into a folder of its own")
    (kit,) = kits
    lists = {split: path for split in SPLITS if (path := kit / LISTS / f"{split}.txt").is_file()}
    if "test" not in lists and "val" in lists:
        lists["test"] = lists.pop("val")
    if "test" not in lists:
        raise InputError(
            f"{kit / LISTS}: neither test.txt nor val.txt; unpack the images and annotations of a split there"
        )
    images = {split: [_image(kit, path, stem) for stem in _stems(path)] for split, path in lists.items()}
    classes = sorted({name for own_images in images.values() for image in own_images for name in _names(image)})
    names = _class_names(folder, classes, own, packaged)
    number = {name: label for label, name in enumerate(classes)}
    splits = {split: _split(folder, own_images, number) for split, own_images in images.items()}
    return Layout("Pascal VOC", names, splits["test"], splits.get("train"), splits.get("val"))


def _stems(path: Path) -> list[str]:
    # VOC's lists of one class have a second column; those of all have the name of the image alone.
    return [line.split()[0] for line in lines(path, "the name of an image a line, without its ending")]


def _image(kit: Path, listed: Path, stem: str) -> _Image:
    path = next((path for end in IMAGE_ENDINGS if (path := kit / "JPEGImages" / f"{stem}.{end}").is_file()), None)
    if path is None:
        raise InputError(f"{kit / 'JPEGImages' / stem}.jpg: no such file, but {listed} names it; unpack it there")
    annotation = kit / "Annotations" / f"{stem}.xml"
    try:
        root = ElementTree.parse(annotation).getroot()
    except FileNotFoundError as error:
        raise InputError(f"{annotation}: no such file, but {listed} names it; unpack it there") from error
    except ElementTree.ParseError as error:
        raise InputError(f"{annotation}: no XML ({error}); unpack it again") from error
    objects = [(found.findtext("name", "").strip(), found.findtext("difficult", "0")) for found in root.iter("object")]
    if any(not name for name, _ in objects):
        raise InputError(f"{annotation}: an object without a name; write the class of each object as its <name>")
    difficult = {name for name, mark in objects if mark.strip() == "1"}
    return _Image(path, {name for name, mark in objects if mark.strip() != "1"}, difficult)


def _names(image: _Image) -> set[str]:
    return image.shown | image.difficult


def _class_names(folder: Path, classes: list[str], own: Words | None, packaged: Words | None) -> Words:
    if own is not None:
        if len(own.words) != len(classes):
            raise InputError(
                f"{folder / CLASS_NAMES}: {len(own.words)} names, but the annotations have objects of {len(classes)} classes; "
                f"write one name for each, in this order: {', '.join(classes)}"
            )
        return own
    if packaged is not None and [plain(name) for name in packaged.words] == [plain(name) for name in classes]:
        return packaged
    return Words(tuple(name.replace("_", " ") for name in classes), "the annotations")


def _split(folder: Path, images: list[_Image], number: dict[str, int]) -> Split[MultilabelImage]:
    samples = [
        multilabel_image(
            str(image.path.relative_to(folder)),
            (number[name] for name in image.shown),
            (number[name] for name in image.difficult),
            FileImage(image.path),
        )
        for image in images
    ]
    return multilabel_split(samples, (sha256_file(image.path) for image in images))
