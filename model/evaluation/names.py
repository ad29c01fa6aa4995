"""Class names and prompts of a set: its own, else those of an installed package, else ours; and which it was."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from model.errors import InputError
from model.evaluation.registry import OTHER_DOMAIN, KnownSet, domain_templates

CLASS_NAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
DATASET_TYPE = "dataset_type.txt"
IMAGENET_CLASSES = 1_000
PLACES = ("{c}", "{}")
_PLACE = re.compile("|".join(map(re.escape, PLACES)))
"""Of the class name in a prompt: CLIP_benchmark's, openai/CLIP's."""


@dataclass(frozen=True)
class Words:
    """Class names or prompts, and where they come from."""

    words: tuple[str, ...]
    source: str


def fill(template: str, class_name: str) -> str:
    """`{c}` is the place of the class name (CLIP_benchmark); `{}` (openai/CLIP) means the same."""
    return _PLACE.sub(lambda _: class_name, template)


def own_class_names(folder: Path) -> Words | None:
    """`classnames.txt`, or None if the folder has none. Raises InputError if it is no list of names."""
    path = folder / CLASS_NAMES
    if not path.exists():
        return None
    names = lines(path, "one class name a line; the first is label 0")
    # A few names given twice are no error: the ImageNet names of the official code have two such.
    if len(names) > 1 and len(set(names)) == 1:
        raise InputError(f"{path}: all {len(names)} lines say {names[0]!r}; write the name of each class")
    return Words(tuple(names), CLASS_NAMES)


def packaged_class_names(known: KnownSet | None) -> Words | None:
    """The names that open_clip_torch (ImageNet) or clip_benchmark has for a known set, in the order of its labels."""
    if known is None:
        return None
    imagenet = _open_clip_lists()
    if known.classes == IMAGENET_CLASSES and imagenet is not None:
        return imagenet[0]
    found = _of_clip_benchmark("en_classnames.json", known)
    return found if found is not None and len(found.words) == known.classes else None


def templates_of(folder: Path, known: KnownSet | None) -> Words:
    """The prompts of a set. Raises InputError if its own have no place for the class name."""
    path = folder / TEMPLATES
    if path.exists():
        own = lines(path, "one prompt a line, with {c} for the class name")
        for number, template in enumerate(own, 1):
            if not any(place in template for place in PLACES):
                raise InputError(
                    f"{path} line {number}: {template!r} has no place for the class name; write {{c}} where it belongs"
                )
        return Words(tuple(own), TEMPLATES)
    if known is not None:
        imagenet = _open_clip_lists()
        if "imagenet1k" in (known.name, known.variant_of) and imagenet is not None:
            return imagenet[1]
        found = _of_clip_benchmark("en_zeroshot_classification_templates.json", known)
        if found is not None:
            return found
        if known.templates:
            return Words(known.templates, f"our default for {known.name}")
    domain = known.domain if known is not None else OTHER_DOMAIN
    return Words(domain_templates()[domain], f"our default for {domain} images")


def dataset_type(folder: Path) -> str:
    """What `dataset_type.txt` says, "" if there is none. What is not UTF-8 in it becomes a word that no kind of set has."""
    path = folder / DATASET_TYPE
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def plain(name: str) -> str:
    """A name without case, blanks and punctuation, for comparison."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def lines(path: Path, remedy: str) -> list[str]:
    """The lines of a small text file, without those that are empty at its end. Raises InputError."""
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; write it: {remedy}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it is to be a text file: {remedy}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error
    while found and not found[-1]:
        found.pop()
    if not found:
        raise InputError(f"{path}: empty; write {remedy}")
    if "" in found:
        raise InputError(
            f"{path} line {found.index('') + 1}: an empty line would shift every label after it; remove it"
        )
    return found


@cache
def _open_clip_lists() -> tuple[Words, Words] | None:
    """ImageNet's class names and 80 prompts; None if open_clip_torch is not installed.

    Its one file with the lists is read, not the package, which takes seconds to import.
    """
    package = find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(next(iter(package.submodule_search_locations))) / "zero_shot_metadata.py"
    lists = runpy.run_path(str(path))
    source = f"open_clip_torch {_version('open_clip_torch')}"
    templates = tuple(template("{c}") for template in lists["OPENAI_IMAGENET_TEMPLATES"])
    return Words(tuple(lists["IMAGENET_CLASSNAMES"]), source), Words(templates, source)


def _of_clip_benchmark(file: str, known: KnownSet) -> Words | None:
    lists = _clip_benchmark_lists(file)
    names = (known.name, *(alias.removeprefix("vtab/") for alias in known.aliases))
    found = next((lists[name] for name in names if name in lists), None)
    return None if found is None else Words(tuple(found), f"clip_benchmark {_version('clip-benchmark')}")


@cache
def _clip_benchmark_lists(file: str) -> dict[str, list[str]]:
    """A list by name of a set; empty if the package is not installed. Its code, which needs much else, is not imported."""
    spec = find_spec("clip_benchmark")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(next(iter(spec.submodule_search_locations)))
    found: dict[str, list[str]] = json.loads((folder / "datasets" / file).read_text("utf-8"))
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from a folder"
