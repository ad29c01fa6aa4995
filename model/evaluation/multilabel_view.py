"""A set whose images show several classes, as the report shows it."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from model.evaluation import story
from model.evaluation.charts import Bar, class_bars
from model.evaluation.multilabel_results import MultilabelClass, MultilabelResult
from model.evaluation.set_view import CLASSES_SHOWN


@dataclass(frozen=True)
class MultilabelView:
    """One set; `classes` are those that an image shows, the best first."""

    result: MultilabelResult
    sentences: list[str]
    chart_title: str
    chart: Markup
    classes: list[MultilabelClass]
    classes_left_out: int


def multilabel_view(result: MultilabelResult) -> MultilabelView:
    """The figures of one set as sentences and a chart; of the probe's precision where there is no zero-shot one."""
    is_zero_shot = result.metric_share is not None
    values = {
        entry.name: value
        for entry in result.classes
        if (value := entry.average_precision if is_zero_shot else entry.probe_average_precision) is not None
    }
    ordered = sorted((entry for entry in result.classes if entry.images), key=lambda entry: _place(entry, values))
    shown = [entry for entry in ordered if entry.name in values]
    drawn = shown
    if len(shown) > CLASSES_SHOWN:
        drawn = shown[: CLASSES_SHOWN // 2] + shown[-CLASSES_SHOWN // 2 :]
    rows = [_bar(entry.name, values[entry.name], result.metric_chance) for entry in drawn]
    spoken = "; ".join(f"{row.label}: {story.percent(row.value)}" for row in rows)
    title = f"Average precision of each class{'' if is_zero_shot else ', linear probe'}"
    return MultilabelView(
        result=result,
        sentences=[multilabel_sentence(result), _learned_sentence(result), story.origin_sentence(result)],
        chart_title=title,
        chart=class_bars(f"classes-{result.name}", f"{title} of {result.name}. {spoken}", rows) if rows else Markup(""),
        classes=ordered,
        classes_left_out=len(shown) - len(drawn),
    )


def multilabel_sentence(found: MultilabelResult) -> str:
    """What zero-shot gives, or that there is none."""
    classes = sum(entry.images > 0 for entry in found.classes)
    labels = sum(entry.images for entry in found.classes)
    ignored = sum(entry.ignored for entry in found.classes)
    left_out = f" {ignored:,} labels are too unclear to count for their class or against it." if ignored else ""
    start = (
        f"{found.images:,} images show {labels / found.images:.2f} of {classes} classes each on average. For each class all "
        f"are ranked by its probability.{left_out} "
    )
    if found.metric_share is None:
        return start + "This model ranks none by texts."
    return (
        f"{start}The mean of the classes' 11-point average precision is {story.percent(found.metric_share.value)} (interval "
        f"{story.percent(found.metric_share.low)} to {story.percent(found.metric_share.high)}); a blind order gives "
        f"{story.percent(found.metric_chance)}."
    )


def _learned_sentence(found: MultilabelResult) -> str:
    probe = found.learned.probe
    if probe is None:
        return f"The linear probe was skipped: {found.learned.reason}."
    held = "held out of the training split" if found.learned.is_val_carved else "of the set's own validation split"
    ended = "" if probe.is_converged else f", which {probe.iterations:,} iterations did not bring to its optimum"
    return (
        f"With labels, linear classifiers of each class against the rest reach {story.percent(probe.metric.value)} on the image "
        f"tower's {probe.dimensions:,} features (interval {story.percent(probe.metric.low)} to "
        f"{story.percent(probe.metric.high)}). They saw {probe.train_images + probe.val_images:,} images; their one penalty of "
        f"{story.strength(probe.penalty)} was the best on {probe.val_images:,} images {held}{ended}."
    )


def _bar(name: str, value: float, chance: float) -> Bar:
    """Without an interval: only the mean of the classes has one."""
    return Bar(name, value, value, value, chance)


def _place(entry: MultilabelClass, values: dict[str, float]) -> tuple[float, str]:
    return -values.get(entry.name, -1.0), entry.name
