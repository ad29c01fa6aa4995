"""Was a set's accuracy helped by images that training saw? The paper's analysis (section 5).

The build of a data set reports which evaluation images look like an image of the shards (overlap.parquet, docs/shards.md). With
them a set is split in Overlap and Clean; the gain is All less Clean. The test is one-sided: how likely Overlap has this many
right answers or more, if it were as hard as Clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow.parquet as pq
from scipy.special import bdtrc

from model.errors import InputError
from model.evaluation.intervals import Share, share_of
from model.evaluation.results import Result
from model.evaluation.sets import EvaluationSet
from model.evaluation.shards import Shards

FILE = "overlap.parquet"
COLUMNS = ["evaluation_set", "evaluation_image"]


class Overlap(Result):
    """A set with and without the images that are like one of the training data; `reason` says why it was not split.

    `gain` is All less Clean. `p_value`, of the one-sided binomial test, is None where one of the two is empty.
    """

    set: str
    reason: str = ""
    images: int = 0
    overlapping: int = 0
    all: Share | None = None
    clean: Share | None = None
    overlap: Share | None = None
    gain: float | None = None
    p_value: float | None = None


def overlapping_images(shards: Shards) -> dict[str, set[str]]:
    """Of each set that the build compared with, the images that look like one of the shards. Raises InputError."""
    compared: dict[str, set[str]] = {name: set() for name in shards.manifest.evaluation_overlap.sets}
    if not compared:
        return {}
    try:
        with shards.folder.open(FILE) as file:
            # On this thread alone: nothing is to run in the background when the command ends.
            table = pq.read_table(file, columns=COLUMNS, use_threads=False, pre_buffer=False)
    except FileNotFoundError as error:
        raise InputError(
            f"{shards.folder.path}/{FILE}: no such file, but manifest.json tells of it; build the data set again"
        ) from error
    for name, image in zip(*(table[column].to_pylist() for column in COLUMNS), strict=True):
        compared.setdefault(name, set()).add(image)
    return compared


def overlap_of(
    found: EvaluationSet,
    keys: Sequence[str],
    is_right: Sequence[bool],
    compared: Mapping[str, set[str]],
    confidence: float,
) -> Overlap:
    """Split the measured images of a set (`keys`, and whether each was given the right class)."""
    if found.name not in compared:
        return Overlap(
            set=found.name,
            reason="the data set was not compared with it; name it in images.evaluation_sets and build again",
        )
    if found.stored_as.startswith("torchvision"):
        return Overlap(
            set=found.name, reason="its images have no names of their own in torchvision; store it as folders"
        )
    seen, own = compared[found.name], {sample.key for sample in found.samples}
    if found.stored_as == "wds":
        # A member of a tar is named with its ending there, a sample without it.
        seen = {_without_ending(image) for image in seen}
    else:
        # Of files the build looks at all that lie below the folder, whatever their split.
        own |= {sample.key for split in (found.train, found.val) if split is not None for sample in split.samples}
    # A table may name some of the images that lie there; the build looks at all of them.
    if found.stored_as != "table" and (lost := seen - own):
        reason = f"the shards were compared with another copy of it, which has {sorted(lost)[0]!r}; build with this one"
        return Overlap(set=found.name, reason=reason)
    overlap = [right for key, right in zip(keys, is_right, strict=True) if key in seen]
    clean = [right for key, right in zip(keys, is_right, strict=True) if key not in seen]
    every, without = sum(is_right) / len(keys), sum(clean) / len(clean) if clean else None
    return Overlap(
        set=found.name,
        images=len(keys),
        overlapping=len(overlap),
        all=share_of(sum(is_right), len(keys), confidence),
        clean=share_of(sum(clean), len(clean), confidence) if clean else None,
        overlap=share_of(sum(overlap), len(overlap), confidence) if overlap else None,
        gain=None if without is None else every - without,
        p_value=None if without is None or not overlap else float(bdtrc(sum(overlap) - 1, len(overlap), without)),
    )


def not_split(name: str) -> Overlap:
    """The line of a set whose images show several classes."""
    return Overlap(set=name, reason="its images show several classes, so none of them is right or wrong as a whole")


def _without_ending(image: str) -> str:
    folder, slash, name = image.rpartition("/")
    return folder + slash + name.partition(".")[0]
