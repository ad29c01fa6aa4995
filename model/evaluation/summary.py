"""A whole evaluation in one file: what it depended on, a line for each set, and all that was found."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from model.evaluation.fairness import Fairness
from model.evaluation.intervals import Share
from model.evaluation.metrics import Metric
from model.evaluation.multilabel_results import MultilabelResult
from model.evaluation.overlap import Overlap
from model.evaluation.results import ProbedSet, Result, RetrievalResult, SetResult, SkippedSet
from model.evaluation.robustness import Shift


class Inputs(Result):
    """Everything a result depends on; its digest is the evaluation's fingerprint."""

    version: int
    config: dict[str, object]
    weights_sha256: str
    metrics_sha256: str
    shards_sha256: str
    sets: dict[str, str]
    skipped_sets: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


class Row(Result):
    """A set in a line, for tables: what `summary.json` shows first. In per cent, one decimal.

    Zero-shot is None where the model judges no texts; probe and neighbours, in the set's own metric, where the set has no
    training split; the paper's figures where it has none for the set. `paper_model` is the nearest one (reference.py).
    """

    set: str
    images: int
    accuracy_percent: float | None
    low_percent: float | None
    high_percent: float | None
    chance_percent: float
    metric: Metric
    metric_percent: float | None
    metric_chance_percent: float
    probe_percent: float | None
    probe_low_percent: float | None
    probe_high_percent: float | None
    neighbours_percent: float | None
    paper_model: str
    paper_percent: float | None
    paper_measured_again_percent: float | None
    paper_probe_percent: float | None
    paper_flag: str

    @classmethod
    def of(cls, found: SetResult | ProbedSet | MultilabelResult) -> Row:
        """The line of a set."""
        probe, beside = found.learned.probe, found.reference
        neighbours = None if isinstance(found, MultilabelResult) else found.learned.neighbours
        top1 = found.top1 if isinstance(found, SetResult) else None
        metric = None if isinstance(found, ProbedSet) else found.metric_share
        chance = found.chance_top1 if isinstance(found, SetResult) else found.metric_chance
        return cls(
            set=found.name,
            images=found.images,
            accuracy_percent=_percent(top1.value) if top1 else None,
            low_percent=_percent(top1.low) if top1 else None,
            high_percent=_percent(top1.high) if top1 else None,
            chance_percent=_percent(chance),
            metric=found.metric,
            metric_percent=_percent(metric.value) if metric else None,
            metric_chance_percent=_percent(found.metric_chance),
            probe_percent=_percent(probe.metric.value) if probe else None,
            probe_low_percent=_percent(probe.metric.low) if probe else None,
            probe_high_percent=_percent(probe.metric.high) if probe else None,
            neighbours_percent=_percent(neighbours.metric.value) if neighbours else None,
            paper_model=beside.model if beside else "",
            paper_percent=beside.zero_shot_percent if beside else None,
            paper_measured_again_percent=beside.measured_again_percent if beside else None,
            paper_probe_percent=beside.probe_percent if beside else None,
            paper_flag=beside.flag if beside else "",
        )


def _percent(share: float) -> float:
    return round(100 * share, 1)


class Summary(Result):
    """The whole evaluation in one file."""

    name: str
    run: str
    confidence: float
    inputs: Inputs
    temperature: float
    rows: list[Row]
    sets: list[SetResult]
    probed: tuple[ProbedSet, ...] = ()
    """The sets instead of `sets`, where the model judges no texts."""
    multilabel: tuple[MultilabelResult, ...] = ()
    """The sets whose images show several classes."""
    shifts: tuple[Shift, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    fairness: tuple[Fairness, ...] = ()
    """Rates by group, of the sets that ask for them."""
    skipped_sets: tuple[SkippedSet, ...] = ()
    image_gflop: float | None = None
    """Of the image tower's forward pass for one image; counted where a set has figures of the paper beside it."""
    judged_by: Literal["features", "scores", "none"] = "features"
    """How the model tells which text describes an image; scores are mean log-probabilities of its words."""
    zero_shot_skipped: str = ""
    """Why there is no zero-shot accuracy, where sets were named and the model cannot judge texts."""
    retrieval: RetrievalResult
    retrieval_sets: tuple[RetrievalResult, ...] = ()

    @property
    def every_set(self) -> list[SetResult | ProbedSet]:
        """Those that were measured with texts, and those without."""
        return [*self.sets, *self.probed]

    @property
    def headline(self) -> SetResult | None:
        """The set whose class names the training captions name least; the first of equals."""
        return min(
            self.sets, key=lambda found: found.classes_named_in_training / len(found.shown_classes), default=None
        )


def table(summary: Summary) -> str:
    """The short table for the terminal: whose it is, then set, accuracy, interval, chance, in per cent."""
    retrieval = summary.retrieval
    found_by = (*summary.every_set, *summary.multilabel, retrieval, *summary.retrieval_sets)
    rows = [line for found in found_by for line in lines_of(found)]
    width = max([len(name) for name, _, _ in rows], default=3)
    lines = [f"evaluation {summary.name} of the run {summary.run}"]
    lines += [f"{'set':<{width}}  accuracy %  {100 * summary.confidence:.4g} % interval  chance %"]
    for name, share, chance in rows:
        interval = f"{100 * share.low:.1f} to {100 * share.high:.1f}"
        lines.append(f"{name:<{width}}  {100 * share.value:>10.1f}  {interval:<13}  {100 * chance:>8.1f}")
    lines += [
        f"{found.name or 'retrieval'}: {len(found.unreadable)} of {found.images + len(found.unreadable)} images cannot be read "
        f"and are left out, the first is {found.unreadable[0].key} ({found.unreadable[0].reason})"
        for found in found_by
        if found.unreadable
    ]
    lines += [
        f"linear probe of {found.name} skipped: {found.learned.reason}"
        for found in (*summary.every_set, *summary.multilabel)
        if found.learned.status == "skipped"
    ]
    lines += [f"{skipped.name} skipped: {skipped.reason}" for skipped in summary.skipped_sets]
    lines += [f"{found.name} skipped: {found.reason}" for found in summary.retrieval_sets if found.reason]
    if summary.zero_shot_skipped:
        lines.append(f"zero-shot skipped: {summary.zero_shot_skipped}")
    if retrieval.status == "skipped":
        lines.append(f"retrieval skipped: {retrieval.reason}")
    return "\n".join(lines)


def lines_of(found: SetResult | ProbedSet | MultilabelResult | RetrievalResult) -> list[tuple[str, Share, float]]:
    """The figures of a set, or of the validation split: what it is, how high, and what guessing would give."""
    if isinstance(found, RetrievalResult):
        start = f"{found.name}, " if found.name else ""
        directions = (("image to text", found.image_to_text), ("text to image", found.text_to_image))
        return [
            (f"{start}{direction} R@{recall.k}", recall.share, recall.chance)
            for direction, recalls in directions
            for recall in recalls
        ]
    if isinstance(found, MultilabelResult):
        starts = {judged_by: "" if judged_by == "zero-shot" else f", {judged_by}" for judged_by in found.shares}
        return [
            (f"{found.name}{starts[judged_by]}, mean average precision", share, found.metric_chance)
            for judged_by, share in found.shares.items()
        ]
    lines: list[tuple[str, Share, float]] = []
    by_metric = "" if found.metric == "accuracy" else f", {found.metric.replace('_', ' ')}"
    if isinstance(found, SetResult):
        lines.append((found.name, found.top1, found.chance_top1))
        if by_metric:
            lines.append((f"{found.name}{by_metric}", found.metric_share, found.metric_chance))
    for name, learned in (("linear probe", found.learned.probe), ("neighbours", found.learned.neighbours)):
        if learned is not None:
            lines.append((f"{found.name}, {name}{by_metric}", learned.metric, found.metric_chance))
    return lines
