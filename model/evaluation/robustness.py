"""ImageNet under other conditions (section 3.3): accuracy on the shared classes, and effective robustness.

Effective robustness is how far the accuracy on a shift lies above what classifiers trained on ImageNet have on it that are as
good as this model on ImageNet (Taori et al. 2020). That expectation is a straight line between the logits of both accuracies,
fitted by least squares to the baselines of `known/paper.json`: the three classifiers whose figures the paper prints, not the
204 of its figures, so it is a coarse line.

Axes: N images, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.evaluation.intervals import Share, share_of
from model.evaluation.reference import paper
from model.evaluation.results import Result, SetResult
from model.evaluation.sets import EvaluationSet

IMAGENET = "imagenet1k"
LEAST = 1e-3
"""Accuracies are kept this far from 0 and 1, where a logit is infinite."""


class Shift(Result):
    """A variant of ImageNet. Shares are top-1 accuracies; `imagenet` is that of the same model on ImageNet, if it was measured.

    `imagenet_same_classes` is among the classes of the variant alone, on their images; None where its names are not all names of
    ImageNet. `expected` is what the baselines would have, `effective` the difference to it and its interval that of `share`.
    """

    set: str
    row: str
    classes: int
    share: Share
    imagenet: Share | None = None
    imagenet_same_classes: Share | None = None
    expected: float | None = None
    effective: Share | None = None
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """logit(accuracy on a shift) = at_zero + slope * logit(accuracy on ImageNet)."""

    at_zero: float
    slope: float

    def expected(self, imagenet: float) -> float:
        """The accuracy on the shift of a baseline that has this one on ImageNet."""
        return 1 / (1 + math.exp(-(self.at_zero + self.slope * logit(imagenet))))


def logit(accuracy: float) -> float:
    """The logarithm of the odds."""
    kept = min(max(accuracy, LEAST), 1 - LEAST)
    return math.log(kept / (1 - kept))


def baseline(row: str) -> Line | None:
    """The line for a variant, None if the paper prints no baselines for it."""
    models = [figures for figures in paper().robustness["baselines"].values() if row in figures]
    if len(models) < 2:
        return None
    x, y = ([logit(figures[name] / 100) for figures in models] for name in ("ImageNet", row))
    slope, at_zero = np.polyfit(x, y, 1)
    return Line(float(at_zero), float(slope))


def classes_of(variant: EvaluationSet) -> set[str]:
    """The names of a variant's classes. A copy that names more than it is known to have (all 1,000 of ImageNet, where it has
    200) has those that its images show. Case and blanks do not count.
    """
    known = variant.known.classes if variant.known is not None else None
    shown = {sample.label for sample in variant.samples}
    has_more = known is not None and len(variant.class_names) > known
    return {_plain(name) for label, name in enumerate(variant.class_names) if not has_more or label in shown}


def same_classes(variant: EvaluationSet, imagenet: EvaluationSet) -> set[str] | None:
    """The names of a variant's classes if all of them are names of ImageNet's, else None."""
    names = classes_of(variant)
    return names if names <= {_plain(name) for name in imagenet.class_names} else None


def accuracy_among(
    found: EvaluationSet, logits_NC: Tensor, labels_N: Tensor, names: set[str], confidence: float
) -> Share:
    """Top 1 on the images of these classes, when only these can be chosen.

    ImageNet has names that two classes share: they count as one class.
    """
    plain = [_plain(name) for name in found.class_names]
    number = {name: index for index, name in enumerate(dict.fromkeys(plain))}
    columns = torch.tensor([label for label, name in enumerate(plain) if name in names])
    class_of_C = torch.tensor([number[name] for name in plain])
    kept_N = torch.isin(labels_N, columns)
    predicted_N = columns[logits_NC[kept_N][:, columns].argmax(dim=1)]
    right = int((class_of_C[predicted_N] == class_of_C[labels_N[kept_N]]).sum())
    return share_of(right, int(kept_N.sum()), confidence)


def shift_of(variant: EvaluationSet, share: Share, imagenet: SetResult | None, among: Share | None) -> Shift:
    """The line of a variant; `share` is its accuracy among its classes, `among` that of ImageNet among the same."""
    row = (variant.known.paper_row if variant.known else None) or ""
    begun = Shift(set=variant.name, row=row, classes=len(classes_of(variant)), share=share)
    if imagenet is None:
        return begun.model_copy(
            update={"reason": "ImageNet itself was not measured; add imagenet1k to evaluation_sets"}
        )
    line = baseline(row)
    if line is None:
        return begun.model_copy(update={"imagenet": imagenet.top1, "reason": "the paper prints no baselines for it"})
    expected = line.expected(imagenet.top1.value)
    return begun.model_copy(
        update={
            "imagenet": imagenet.top1,
            "imagenet_same_classes": among,
            "expected": expected,
            "effective": Share(value=share.value - expected, low=share.low - expected, high=share.high - expected),
        }
    )


def is_imagenet(found: EvaluationSet) -> bool:
    """Whether it is ImageNet itself."""
    return found.known is not None and found.known.name == IMAGENET


def variants_of_imagenet(sets: Sequence[EvaluationSet]) -> list[EvaluationSet]:
    """Those among `sets`."""
    return [found for found in sets if found.known is not None and found.known.variant_of == IMAGENET]


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
