"""From what a configuration names to sets that were read, and those that were not, each with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from model.errors import InputError
from model.evaluation.registry import find, key_of, views
from model.evaluation.results import SkippedSet
from model.evaluation.sets import EvaluationSet, read_set

RESERVED_NAMES = ("retrieval", "robustness", "overlap")
"""Of files in results/ that are not of one set."""


def read_sets(folders: Iterable[str | Path]) -> tuple[list[EvaluationSet], list[SkippedSet]]:
    """Every set, complete or not at all. One that is absent or broken is skipped with its reason, never counted as 0.

    A name may be that of a view (paper27), which stands for all of its sets, and a known set is found under any of its names.
    Raises InputError where two sets have one name, or where sets were named and none could be read.
    """
    sets: dict[str, EvaluationSet] = {}
    skipped: list[SkippedSet] = []
    for folder in _expanded(folders):
        try:
            found = read_set(folder)
        except InputError as error:
            skipped.append(SkippedSet(name=folder.name, reason=str(error)))
            continue
        if found.name in sets or found.name in RESERVED_NAMES:
            raise InputError(
                f"{folder}: the name {found.name!r} is taken; a set is named after its folder, so rename the folder"
            )
        sets[found.name] = found
    if skipped and not sets:
        more = f" (and {len(skipped) - 1} more sets, none of which can be measured)" if len(skipped) > 1 else ""
        raise InputError(skipped[0].reason + more)
    return list(sets.values()), skipped


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
