"""What an evaluation found, as JSON that a person can read and the report is drawn from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from model.evaluation.intervals import Share


class Result(BaseModel):
    """Base of all results: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Unreadable(Result):
    """An image that was not measured, and why."""

    key: str
    reason: str


class ClassResult(Result):
    """One class: its images, how many were named right, and what the training captions say of its name."""

    name: str
    images: int
    correct: int
    share: Share
    captions_naming_it: int
    words_occur: bool


class Verdict(Result):
    """What the model said of one image; `probability` is that of the predicted class at the model's temperature."""

    key: str
    label: int
    predicted: int
    probability: float


class SetResult(Result):
    """Zero-shot classification of one evaluation set."""

    name: str
    digest: str
    images: int
    unreadable: list[Unreadable]
    templates: list[str]
    top1: Share
    top5: Share
    mean_per_class: Share
    chance_top1: float
    chance_top5: float
    largest_class_share: float
    first_template_top1: Share
    mended_by_ensemble: int
    broken_by_ensemble: int
    captions_read: int
    classes: list[ClassResult]
    confusion: list[tuple[int, int, int]]
    successes: list[Verdict]
    mistakes: list[Verdict]

    @property
    def ensemble_gain(self) -> float:
        """Top-1 accuracy of all templates together less that of the first alone."""
        return self.top1.value - self.first_template_top1.value

    @property
    def shown_classes(self) -> list[ClassResult]:
        """The classes that its images show; the others are only there to be chosen wrongly."""
        return [result for result in self.classes if result.images]

    @property
    def classes_named_in_training(self) -> int:
        """How many of the shown classes stand in a training caption."""
        return sum(result.captions_naming_it > 0 for result in self.shown_classes)


class Recall(Result):
    """The share of queries with a right answer among the first `k`, and what guessing would give."""

    k: int
    share: Share
    chance: float


class Found(Result):
    """One answer: the image's key or the text, its cosine similarity, and whether it is right."""

    answer: str
    similarity: float
    is_hit: bool


class Query(Result):
    """One query and its first answers. `rank` is that of the first right one, from 1; ties count against the model."""

    query: str
    rank: int
    found: list[Found]


class RetrievalResult(Result):
    """Image-text retrieval on the validation split; `reason` says why it was skipped."""

    status: Literal["measured", "skipped"]
    reason: str = ""
    images: int = 0
    texts: int = 0
    unreadable: list[Unreadable] = []
    image_to_text: list[Recall] = []
    text_to_image: list[Recall] = []
    image_queries: list[Query] = []
    text_queries: list[Query] = []


class Inputs(Result):
    """Everything a result depends on; its digest is the evaluation's fingerprint."""

    version: int
    config: dict[str, object]
    weights_sha256: str
    metrics_sha256: str
    shards_sha256: str
    sets: dict[str, str]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


class Row(Result):
    """A set in a line, for tables: what `summary.json` shows first. In per cent, one decimal."""

    set: str
    images: int
    accuracy_percent: float
    low_percent: float
    high_percent: float
    chance_percent: float

    @classmethod
    def of(cls, found: SetResult) -> Row:
        """The line of a set."""
        return cls(
            set=found.name,
            images=found.images,
            accuracy_percent=round(100 * found.top1.value, 1),
            low_percent=round(100 * found.top1.low, 1),
            high_percent=round(100 * found.top1.high, 1),
            chance_percent=round(100 * found.chance_top1, 1),
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


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def table(summary: Summary) -> str:
    """The short table for the terminal: set, accuracy, interval, chance, in per cent."""
    rows = [(found.name, found.top1, found.chance_top1) for found in summary.sets]
    retrieval = summary.retrieval
    for direction, recalls in (("image to text", retrieval.image_to_text), ("text to image", retrieval.text_to_image)):
        rows += [(f"{direction} R@{recall.k}", recall.share, recall.chance) for recall in recalls]
    width = max([len(name) for name, _, _ in rows], default=3)
    lines = [f"{'set':<{width}}  accuracy %  {100 * summary.confidence:.4g} % interval  chance %"]
    for name, share, chance in rows:
        interval = f"{100 * share.low:.1f} to {100 * share.high:.1f}"
        lines.append(f"{name:<{width}}  {100 * share.value:>10.1f}  {interval:<13}  {100 * chance:>8.1f}")
    if summary.zero_shot_skipped:
        lines.append(f"zero-shot skipped: {summary.zero_shot_skipped}")
    if retrieval.status == "skipped":
        lines.append(f"retrieval skipped: {retrieval.reason}")
    return "\n".join(lines)
