"""From what a configuration names to sets that were read, and those that were not, each with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import InputError
from model.evaluation.caption_sets import CaptionSet, is_caption_set, read_caption_set
from model.evaluation.multilabel_sets import MultilabelSet, is_multilabel, read_multilabel_set
from model.evaluation.registry import find, key_of, views
from model.evaluation.results import SkippedSet
from model.evaluation.sets import EvaluationSet, read_set

RESERVED_NAMES = ("retrieval", "robustness", "overlap", "fairness")
"""Of files in results/ that are not of one set."""


@dataclass
class FoundSets:
    """Sets of labelled images, of images with several labels, of images with captions, and what could not be read."""

    labelled: list[EvaluationSet] = field(default_factory=list)
    multilabel: list[MultilabelSet] = field(default_factory=list)
    captioned: list[CaptionSet] = field(default_factory=list)
    skipped: list[SkippedSet] = field(default_factory=list)

    @property
    def digests(self) -> dict[str, str]:
        """Of those that were read, by name."""
        return {found.name: found.digest for found in self.every}

    @property
    def are_in_the_paper(self) -> bool:
        """Whether the paper has figures of any of them."""
        known = [found.known for found in self.every]
        return any(each is not None and each.paper_row for each in known)

    @property
    def classified(self) -> list[EvaluationSet | MultilabelSet]:
        """Those with one label an image, and those with several."""
        return [*self.labelled, *self.multilabel]

    @property
    def every(self) -> list[EvaluationSet | MultilabelSet | CaptionSet]:
        """All that were read."""
        return [*self.classified, *self.captioned]


def read_sets(folders: Iterable[str | Path]) -> FoundSets:
    """Every set, complete or not at all. One that is absent or broken is skipped with its reason, never counted as 0.

    A name may be that of a view (paper27), which stands for all of its sets, and a known set is found under any of its names.
    Raises InputError where two sets have one name, or where sets were named and none could be read.
    """
    sets = FoundSets()
    for folder in _expanded(folders):
        try:
            found = _read(folder)
        except (InputError, OSError) as error:
            sets.skipped.append(SkippedSet(name=folder.name, reason=_reason(folder, error)))
            continue
        if found.name in sets.digests or found.name in RESERVED_NAMES:
            raise InputError(
                f"{folder}: the name {found.name!r} is taken; a set is named after its folder, so rename the folder"
            )
        if isinstance(found, CaptionSet):
            sets.captioned.append(found)
        elif isinstance(found, MultilabelSet):
            sets.multilabel.append(found)
        else:
            sets.labelled.append(found)
    if sets.skipped and not sets.digests:
        more = (
            f" (and {len(sets.skipped) - 1} more sets, none of which can be measured)" if len(sets.skipped) > 1 else ""
        )
        raise InputError(sets.skipped[0].reason + more)
    return sets


def _read(folder: Path) -> EvaluationSet | MultilabelSet | CaptionSet:
    found: EvaluationSet | MultilabelSet | CaptionSet
    if is_caption_set(folder):
        found = read_caption_set(folder)
    else:
        found = read_multilabel_set(folder) if is_multilabel(folder) else read_set(folder)
    _check_names(found)
    return found


def _reason(folder: Path, error: InputError | OSError) -> str:
    """Why a set is skipped: what a reader says, or what the system says of one of its files (no permission, a broken disk)."""
    if isinstance(error, InputError):
        return str(error)
    return f"{error.filename or folder}: cannot be read ({error.strerror or error}); mend or copy the set again"


def _check_names(found: EvaluationSet | MultilabelSet | CaptionSet) -> None:
    """Raises InputError for names of files that are no text: no result could be written that tells them."""
    if isinstance(found, CaptionSet):
        told = [pair.key for pair in found.pairs]
    else:
        told = [*found.class_names, *(sample.key for sample in found.samples)]
        for split in (found.train, found.val):
            told += [sample.key for sample in split.samples] if split is not None else []
    for name in told:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{found.name}: the name {name!r} is not UTF-8; rename the file or folder") from error


def _expanded(folders: Iterable[str | Path]) -> list[Path]:
    """A view is replaced by its sets, beside it; a folder that two names stand for is there once."""
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir() and folder.name in views():
            found |= dict.fromkeys(_beside(folder.parent / name) for name in views()[folder.name].sets)
        else:
            found[_beside(folder)] = None
    return list(found)


def _beside(folder: Path) -> Path:
    """The folder, or the one beside it that has another name of the same known set."""
    known = find(folder.name)
    if folder.is_dir() or known is None or not folder.parent.is_dir():
        return folder
    keys = {key_of(name) for name in (known.name, *known.aliases)}
    others = sorted(other for other in folder.parent.iterdir() if other.is_dir() and key_of(other.name) in keys)
    return others[0] if others else folder
