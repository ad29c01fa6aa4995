"""The curves of a run, read from its `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from model.config import PretrainConfig
from model.evaluation.charts import Series, curve
from model.metrics import read_metrics

RECALL = "image_to_text_recall_at_1"
PICKING = ("contrastive", "bag_of_words_contrastive", "convirt")
"""Objectives whose loss is that of picking one of a batch's texts, or images."""

POINTS = 400
"""Points drawn of a line at most; a longer one is thinned evenly."""


@dataclass(frozen=True)
class Metrics:
    """The lines of `metrics.jsonl` by kind."""

    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]


def read_curves(path: Path) -> Metrics:
    """Empty where the run wrote none. Raises InputError if a line is not one of metrics."""
    lines = read_metrics(path) if path.is_file() else []
    return Metrics(*([line for line in lines if line["kind"] == kind] for kind in ("train", "validation")))


def draw(metrics: Metrics, config: PretrainConfig) -> list[Markup]:
    """Loss, recall, learning rate and temperature, those that there are.

    A contrastive model that cannot tell the pairs of a step apart has the logarithm of their number as its loss.
    """
    kind, batch = config.objective.kind, config.train.global_batch
    charts = []
    if metrics.train:
        train = _line(metrics.train, "training", "loss")
        validation = _line(metrics.validation, "validation", "loss", True)
        lines = [train, validation] if validation.x else [train]
        label = f"{kind.replace('_', ' ')} loss"
        if kind in PICKING:
            label += f" (knowing nothing: {math.log(batch):.2f})"
        spoken = "; ".join(_ends(line) for line in lines)
        charts.append(curve("curve-loss", f"{label} over the steps of training: {spoken}.", lines, label))
    if metrics.validation and RECALL in metrics.validation[0]:
        to_text = _line(metrics.validation, "image to text", RECALL)
        to_image = _line(metrics.validation, "text to image", "text_to_image_recall_at_1", True)
        samples = metrics.validation[-1]["samples"]
        charts.append(
            curve(
                "curve-recall",
                f"Recall at 1 on the validation split over the steps of training: {_ends(to_text)}; {_ends(to_image)}.",
                [to_text, to_image],
                f"validation recall@1 among {samples:,} pairs",
                is_share=True,
            )
        )
    if metrics.train:
        charts.append(_single(metrics.train, "learning_rate", "learning rate"))
        charts.append(_single(metrics.train, "logit_scale", "logit scale (1 / temperature)"))
    return charts


def _single(records: Sequence[dict[str, Any]], field: str, label: str) -> Markup:
    line = _line(records, label, field)
    return curve(f"curve-{field}", f"{label} over the steps of training: {_ends(line)}.", [line], label)


def _line(records: Sequence[dict[str, Any]], label: str, field: str, is_second: bool = False) -> Series:
    stride = math.ceil(len(records) / POINTS) or 1
    # Counted from the end, so that the last point is always drawn.
    kept = list(reversed(list(reversed(records))[::stride]))
    return Series(label, [record["step"] for record in kept], [record[field] for record in kept], is_second)


def _ends(line: Series) -> str:
    if not line.y:
        return f"{line.label}: none"
    return f"{line.label} from {line.y[0]:.3g} to {line.y[-1]:.3g}"
