"""What an evaluation found of a set whose images show several classes."""

from __future__ import annotations

from typing import Literal

from model.evaluation.intervals import Share
from model.evaluation.results import Origin, Reference, Result, SweepPoint, Unreadable


class MultilabelClass(Result):
    """One class: images that show it, images that count neither way, and its 11-point average precision; None where no image
    shows it, or where it was not measured so.
    """

    name: str
    images: int
    ignored: int
    average_precision: float | None = None
    probe_average_precision: float | None = None


class OneVsRestResult(Result):
    """A linear classifier of each class against the rest, all at one penalty; `metric` is the mean average precision."""

    train_images: int
    val_images: int
    dimensions: int
    penalty: float
    iterations: int
    is_converged: bool
    sweep: list[SweepPoint]
    metric: Share


class MultilabelLearned(Result):
    """What the training split adds; `reason` says why it was skipped."""

    status: Literal["measured", "skipped"]
    reason: str = ""
    is_val_carved: bool = False
    unreadable: tuple[Unreadable, ...] = ()
    probe: OneVsRestResult | None = None


class MultilabelResult(Result):
    """The set in mean average precision; `metric_share` is zero-shot, None where the model judges no texts.

    `metric_chance` is what a blind order gives in many images: the mean share of images that show a class.
    """

    name: str
    digest: str
    images: int
    unreadable: list[Unreadable]
    templates: list[str]
    metric: Literal["mean_average_precision"] = "mean_average_precision"
    metric_share: Share | None
    metric_chance: float
    classes: list[MultilabelClass]
    origin: Origin
    reference: Reference | None
    learned: MultilabelLearned

    @property
    def shares(self) -> dict[str, Share]:
        """What was measured of it, by what judged: zero-shot, linear probe."""
        probe = self.learned.probe
        found = {"zero-shot": self.metric_share, "linear probe": None if probe is None else probe.metric}
        return {name: share for name, share in found.items() if share is not None}
