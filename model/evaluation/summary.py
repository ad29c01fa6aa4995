"""A whole evaluation in one file: what it depended on, a line for each set, and all that was found."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from model.evaluation.intervals import Share
from model.evaluation.metrics import Metric
from model.evaluation.results import Result, RetrievalResult, SetResult, SkippedSet


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

    Probe and neighbours are in the set's own metric, and None where the set has no training split.
    """

    set: str
    images: int
    accuracy_percent: float
    low_percent: float
    high_percent: float
    chance_percent: float
    metric: Metric
    metric_percent: float
    probe_percent: float | None
    probe_low_percent: float | None
    probe_high_percent: float | None
    neighbours_percent: float | None

    @classmethod
    def of(cls, found: SetResult) -> Row:
        """The line of a set."""
        probe, neighbours = found.learned.probe, found.learned.neighbours
        return cls(
            set=found.name,
            images=found.images,
            accuracy_percent=round(100 * found.top1.value, 1),
            low_percent=round(100 * found.top1.low, 1),
            high_percent=round(100 * found.top1.high, 1),
            chance_percent=round(100 * found.chance_top1, 1),
            metric=found.metric,
            metric_percent=round(100 * found.metric_share.value, 1),
            probe_percent=round(100 * probe.metric.value, 1) if probe else None,
            probe_low_percent=round(100 * probe.metric.low, 1) if probe else None,
            probe_high_percent=round(100 * probe.metric.high, 1) if probe else None,
            neighbours_percent=round(100 * neighbours.metric.value, 1) if neighbours else None,
        )


class Summary(Result):
    """The whole evaluation in one file."""

    name: str
    run: str
    confidence: float
    inputs: Inputs
    temperature: float
    rows: list[Row]
    sets: list[SetResult]
    skipped_sets: tuple[SkippedSet, ...] = ()
    judged_by: Literal["features", "scores", "none"] = "features"
    """How the model tells which text describes an image; scores are mean log-probabilities of its words."""
    zero_shot_skipped: str = ""
    """Why there is no zero-shot accuracy, where sets were named and the model cannot judge texts."""
    retrieval: RetrievalResult

    @property
    def headline(self) -> SetResult | None:
        """The set whose class names the training captions name least; the first of equals."""
        return min(
            self.sets, key=lambda found: found.classes_named_in_training / len(found.shown_classes), default=None
        )


def table(summary: Summary) -> str:
    """The short table for the terminal: set, accuracy, interval, chance, in per cent."""
    rows: list[tuple[str, Share, float]] = []
    for found in summary.sets:
        rows += _lines_of(found)
    retrieval = summary.retrieval
    for direction, recalls in (("image to text", retrieval.image_to_text), ("text to image", retrieval.text_to_image)):
        rows += [(f"{direction} R@{recall.k}", recall.share, recall.chance) for recall in recalls]
    width = max([len(name) for name, _, _ in rows], default=3)
    lines = [f"{'set':<{width}}  accuracy %  {100 * summary.confidence:.4g} % interval  chance %"]
    for name, share, chance in rows:
        interval = f"{100 * share.low:.1f} to {100 * share.high:.1f}"
        lines.append(f"{name:<{width}}  {100 * share.value:>10.1f}  {interval:<13}  {100 * chance:>8.1f}")
    lines += [
        f"linear probe of {found.name} skipped: {found.learned.reason}"
        for found in summary.sets
        if found.learned.status == "skipped"
    ]
    lines += [f"{skipped.name} skipped: {skipped.reason}" for skipped in summary.skipped_sets]
    if summary.zero_shot_skipped:
        lines.append(f"zero-shot skipped: {summary.zero_shot_skipped}")
    if retrieval.status == "skipped":
        lines.append(f"retrieval skipped: {retrieval.reason}")
    return "\n".join(lines)


def _lines_of(found: SetResult) -> list[tuple[str, Share, float]]:
    lines = [(found.name, found.top1, found.chance_top1)]
    by_metric = "" if found.metric == "accuracy" else f", {found.metric.replace('_', ' ')}"
    if by_metric:
        lines.append((f"{found.name}{by_metric}", found.metric_share, found.metric_chance))
    for name, learned in (("linear probe", found.learned.probe), ("neighbours", found.learned.neighbours)):
        if learned is not None:
            lines.append((f"{found.name}, {name}{by_metric}", learned.metric, found.metric_chance))
    return lines
