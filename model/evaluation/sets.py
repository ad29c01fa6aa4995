"""Evaluation sets: class names, prompts, metric, and labelled images, in whichever layout a folder holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from model.errors import InputError
from model.evaluation.folders import classes_in, read_image_folder
from model.evaluation.groups import Groups, read_groups
from model.evaluation.metrics import METRICS, Metric
from model.evaluation.names import (
    DATASET_TYPE,
    dataset_type,
    fill,
    lines,
    own_class_names,
    packaged_class_names,
    templates_of,
)
from model.evaluation.registry import KnownSet, find
from model.evaluation.samples import LabelledImage, Layout, SampleT, Split, digest_of
from model.evaluation.tables import is_table, read_table
from model.evaluation.torchvision_sets import FILE as TORCHVISION_FILE
from model.evaluation.torchvision_sets import read_torchvision, torchvision_source
from model.evaluation.wds import is_wds, read_wds


@dataclass(frozen=True)
class NamedClasses:
    """The words of a set. `known` is what the registry says of it, `names_source` and `templates_source` tell where class
    names and prompts are from.
    """

    name: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    known: KnownSet | None
    stored_as: str
    names_source: str
    templates_source: str

    def prompts(self, label: int) -> list[str]:
        """The class's name in every template."""
        return [fill(template, self.class_names[label]) for template in self.templates]


@dataclass(frozen=True)
class ImageSet(NamedClasses, Generic[SampleT]):
    """Images to be classified. `images_digest` identifies those that are measured and their labels, `digest` all else too: names,
    templates, other splits.

    `train` and `val` are None where the folder has none; they are what a linear probe is fitted on.
    """

    samples: tuple[SampleT, ...]
    images_digest: str
    train: Split[SampleT] | None
    val: Split[SampleT] | None
    digest: str

    @property
    def test(self) -> Split[SampleT]:
        """The split that is measured."""
        return Split(self.samples, self.images_digest)


@dataclass(frozen=True)
class EvaluationSet(ImageSet[LabelledImage]):
    """A set with one label an image. `groups` is what a fairness probe asks about, None where the set asks for none."""

    metric: Metric
    groups: Groups | None = None


def read_set(folder: Path) -> EvaluationSet:
    """The set in `folder`, complete or not at all: labels and class names are checked, no image is looked at.

    Raises InputError.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give evaluation_sets the path of a folder in the wds layout "
            "(classnames.txt, zeroshot_classification_templates.txt, test/0.tar), of folders of images (test/CLASS/1.jpg), "
            "with a table (test.csv: path, label) or of a data set of torchvision"
        )
    kind = dataset_type(folder)
    if kind not in ("", "classification"):
        raise InputError(
            f"{folder / DATASET_TYPE}: {kind!r} cannot be measured here; only classification, multilabel and retrieval "
            "sets can"
        )
    known = find(folder.resolve().name)
    layout = _read(folder, known)
    templates = templates_of(folder, known)
    classes = len(layout.class_names.words)
    if classes < 2:
        raise InputError(
            f"{folder}: its one class is {layout.class_names.words[0]!r}, and any image would be it for certain; a set has two "
            "classes at least"
        )
    metric = _metric(folder / "metric.txt", known, classes, layout.test)
    groups = read_groups(folder, layout)
    splits = [layout.test.digest, *(split.digest if split else None for split in (layout.train, layout.val))]
    return EvaluationSet(
        name=folder.resolve().name,
        class_names=layout.class_names.words,
        templates=templates.words,
        metric=metric,
        samples=layout.test.samples,
        images_digest=layout.test.digest,
        train=layout.train,
        val=layout.val,
        digest=digest_of(
            [splits, layout.class_names.words, templates.words, metric, groups.told if groups is not None else None]
        ),
        groups=groups,
        known=known,
        stored_as=layout.stored_as,
        names_source=layout.class_names.source,
        templates_source=templates.source,
    )


def _read(folder: Path, known: KnownSet | None) -> Layout[LabelledImage]:
    """By the first layout that the folder means to be of: torchvision if it says so, tars, a table, folders of images."""
    own, packaged = own_class_names(folder), packaged_class_names(known)
    source = torchvision_source(folder, known)
    if source is not None and (folder / TORCHVISION_FILE).is_file():
        return read_torchvision(folder, source, own, packaged)
    if is_wds(folder):
        return read_wds(folder, own, packaged)
    if is_table(folder):
        return read_table(folder, own, packaged)
    classes = classes_in(folder)
    # What torchvision unpacks may be folders of images too, one level up or down.
    if classes and (source is None or known is None or classes == known.classes):
        return read_image_folder(folder, own, packaged)
    if source is not None:
        return read_torchvision(folder, source, own, packaged)
    raise InputError(
        f"{folder}: no set in it: neither test/nshards.txt with test/0.tar, nor test.csv or test.parquet, nor "
        f"test/CLASS/image.jpg, nor {TORCHVISION_FILE}; bring it into one of these layouts"
    )


def _metric(path: Path, known: KnownSet | None, classes: int, test: Split[LabelledImage]) -> Metric:
    """What `metric.txt` names, else what the set is known to be measured by, else accuracy."""
    is_pair = classes == 2 and len({sample.label for sample in test.samples}) == 2
    if not path.is_file():
        usual = known.metric if known is not None else "accuracy"
        return "accuracy" if usual == "recall" or (usual == "roc_auc" and not is_pair) else usual
    (name, *more) = lines(path, f"one of {', '.join(METRICS)}")
    metric = next((metric for metric in METRICS if metric == name), None)
    if metric is None or more:
        raise InputError(f"{path}: {' '.join([name, *more])!r} is no metric; write one of {', '.join(METRICS)}")
    if metric == "roc_auc" and not is_pair:
        raise InputError(f"{path}: roc_auc needs two classes and test images of both; write another metric")
    return metric
