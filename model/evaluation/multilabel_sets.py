"""Evaluation sets in which an image shows several classes, as Pascal VOC has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.errors import InputError
from model.evaluation.groups import FILE as FAIRNESS_FILE
from model.evaluation.multilabel_layouts import is_multilabel_table, read_multilabel_table, read_multilabel_wds
from model.evaluation.multilabel_samples import MultilabelImage
from model.evaluation.names import Words, dataset_type, lines, own_class_names, packaged_class_names, templates_of
from model.evaluation.registry import find
from model.evaluation.samples import Layout, digest_of
from model.evaluation.sets import ImageSet
from model.evaluation.voc import read_voc, voc_folders
from model.evaluation.wds import is_wds

METRIC = "mean_average_precision"
"""The one metric of such sets."""


@dataclass(frozen=True)
class MultilabelSet(ImageSet[MultilabelImage]):
    """One set."""


def is_multilabel(folder: Path) -> bool:
    """Whether a folder holds such a set: `dataset_type.txt` says so, its table has `labels`, or it is a kit of Pascal VOC."""
    if kind := dataset_type(folder):
        return kind == "multilabel"
    return folder.is_dir() and (is_multilabel_table(folder) or bool(voc_folders(folder)))


def read_multilabel_set(folder: Path) -> MultilabelSet:
    """The set in `folder`, complete or not at all; no image is looked at. Raises InputError."""
    metric = folder / "metric.txt"
    if metric.is_file() and (told := " ".join(lines(metric, METRIC))) != METRIC:
        raise InputError(
            f"{metric}: {told!r} is no metric of several labels an image; write {METRIC} or remove the file"
        )
    if (folder / FAIRNESS_FILE).is_file():
        raise InputError(f"{folder / FAIRNESS_FILE}: groups are only compared where an image has one label; remove it")
    known = find(folder.resolve().name)
    layout = _read(folder, own_class_names(folder), packaged_class_names(known))
    classes = len(layout.class_names.words)
    if classes < 2:
        raise InputError(
            f"{folder}: {'one class' if classes else 'no class'} in it; images are ranked by a class's probability among all of "
            "them, so two are needed at least"
        )
    templates = templates_of(folder, known)
    splits = [layout.test.digest, *(split.digest if split else None for split in (layout.train, layout.val))]
    return MultilabelSet(
        name=folder.resolve().name,
        class_names=layout.class_names.words,
        templates=templates.words,
        known=known,
        stored_as=layout.stored_as,
        names_source=layout.class_names.source,
        templates_source=templates.source,
        samples=layout.test.samples,
        images_digest=layout.test.digest,
        train=layout.train,
        val=layout.val,
        digest=digest_of([splits, layout.class_names.words, templates.words, METRIC]),
    )


def _read(folder: Path, own: Words | None, packaged: Words | None) -> Layout[MultilabelImage]:
    if is_wds(folder):
        return read_multilabel_wds(folder, own, packaged)
    if is_multilabel_table(folder):
        return read_multilabel_table(folder, own, packaged)
    if voc_folders(folder):
        return read_voc(folder, own, packaged)
    raise InputError(
        f"{folder}: no set of several labels an image in it: neither test/nshards.txt with test/0.tar, nor test.csv or "
        "test.parquet with the columns path and labels, nor VOCdevkit/VOC2007; bring it into one of these layouts"
    )
