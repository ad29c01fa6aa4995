"""One evaluation set as the report shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from model.evaluation import story
from model.evaluation.charts import Bar, Cell, bars, class_bars, heat_map
from model.evaluation.images import StoredImage
from model.evaluation.intervals import Share
from model.evaluation.paper_charts import reliability
from model.evaluation.pictures import data_uri
from model.evaluation.results import SetResult, Verdict
from model.evaluation.sets import EvaluationSet

CLASSES_SHOWN = 40
CLASSES_IN_HEAT_MAP = 28


@dataclass(frozen=True)
class Picture:
    """An image in the page and what a screen reader says of it."""

    uri: str
    alt: str


@dataclass(frozen=True)
class Judged:
    """An image, what the model said of it and what it is."""

    picture: Picture
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class SetView:
    """One evaluation set as the page shows it."""

    result: SetResult
    sentences: list[str]
    certainty_chart: Markup
    learned_chart: Markup
    class_chart: Markup
    classes_left_out: int
    map_title: str
    map_chart: Markup
    confused: list[story.Confused]
    successes: list[Judged]
    mistakes: list[Judged]


def set_view(result: SetResult, found: EvaluationSet) -> SetView:
    """The figures of one set as sentences, charts and galleries; `found` has its images."""
    ordered = sorted(result.shown_classes, key=lambda entry: (-entry.share.value, entry.name))
    shown = ordered
    if len(ordered) > CLASSES_SHOWN:
        shown = ordered[: CLASSES_SHOWN // 2] + ordered[-CLASSES_SHOWN // 2 :]
    rows = [
        Bar(entry.name, entry.share.value, entry.share.low, entry.share.high, result.chance_top1) for entry in shown
    ]
    split = story.parts(result)
    title, chart = _confusion_map(result) if split is None else _parts_map(result, split)
    images = {sample.key: sample.image for sample in found.samples}
    return SetView(
        result=result,
        sentences=[
            story.ensemble_sentence(result),
            *([story.parts_sentence(result, split)] if split else []),
            story.learned_sentence(result),
            story.origin_sentence(result),
        ],
        certainty_chart=_certainty_chart(result),
        learned_chart=_learned_chart(result),
        class_chart=class_bars(
            f"classes-{result.name}",
            f"Accuracy of each class of {result.name}, from {rows[0].label} ({story.percent(rows[0].value)}) "
            f"to {rows[-1].label} ({story.percent(rows[-1].value)}).",
            rows,
        ),
        classes_left_out=len(ordered) - len(shown),
        map_title=title,
        map_chart=chart,
        confused=story.most_confused(result),
        successes=[_judged(verdict, result, images) for verdict in result.successes],
        mistakes=[_judged(verdict, result, images) for verdict in result.mistakes],
    )


def _certainty_chart(result: SetResult) -> Markup:
    points = [(found.certainty, found.accuracy, found.images / result.images) for found in result.certainty]
    spoken = "; ".join(f"{story.percent(x, 0)} sure, {story.percent(y, 0)} right" for x, y, _ in points)
    return reliability(f"certainty-{result.name}", f"Reliability diagram of {result.name}. {spoken}", points)


def _learned_chart(result: SetResult) -> Markup:
    """From no labels to all of them, in the set's metric; nothing if it has no training split."""
    learned = result.learned
    if learned.probe is None or learned.neighbours is None:
        return Markup("")
    shares = [("zero-shot", result.metric_share)]
    shares += [
        (
            f"{shot.examples} of each class" + (", mean and range" if len(shot.values) > 1 else ""),
            Share(value=shot.mean, low=min(shot.values), high=max(shot.values)),
        )
        for shot in learned.few_shot
        if shot.mean is not None
    ]
    shares.append(("linear probe on all", learned.probe.metric))
    shares.append((f"{learned.neighbours.neighbours} nearest neighbours", learned.neighbours.metric))
    rows = [Bar(label, share.value, share.low, share.high, result.metric_chance) for label, share in shares]
    spoken = "; ".join(f"{row.label}: {story.percent(row.value)}" for row in rows)
    return bars(f"learned-{result.name}", f"What labels add in {result.name}. {spoken}", rows)


def _confusion_map(result: SetResult) -> tuple[str, Markup]:
    wrong = [0] * len(result.classes)
    for label, predicted, images in result.confusion:
        if label != predicted:
            wrong[label] += images
            wrong[predicted] += images
    chosen = sorted(range(len(wrong)), key=lambda label: (-wrong[label], label))[:CLASSES_IN_HEAT_MAP]
    columns = {label: index for index, label in enumerate(sorted(chosen))}
    rows = {label: index for index, label in enumerate(label for label in columns if result.classes[label].images)}
    cells = [
        Cell(rows[label], columns[predicted], images / result.classes[label].images, str(images), label == predicted)
        for label, predicted, images in result.confusion
        if label in rows and predicted in columns
    ]
    title = "Which class is taken for which"
    if len(chosen) < len(wrong):
        title += f" (the {len(chosen)} classes with the most mistakes of {len(wrong)})"
    description = f"Confusion matrix of {result.name}; the pairs with the most mistakes are listed beside it."
    return title, heat_map(
        f"map-{result.name}", description, _names(result, rows), _names(result, columns), cells, ("is", "taken for")
    )


def _names(result: SetResult, labels: Iterable[int]) -> list[str]:
    return [result.classes[label].name for label in labels]


def _parts_map(result: SetResult, split: story.Parts) -> tuple[str, Markup]:
    cells = []
    for entry in result.shown_classes:
        first, second = entry.name.split()
        share = entry.share.value
        cells.append(Cell(split.firsts.index(first), split.seconds.index(second), share, f"{100 * share:.0f}"))
    description = f"Accuracy of each combination of {result.name} in per cent; {story.parts_sentence(result, split)}"
    chart = heat_map(f"map-{result.name}", description, split.firsts, split.seconds, cells, ("", ""))
    return "Accuracy of each combination, in per cent", chart


def _judged(verdict: Verdict, result: SetResult, images: Mapping[str, StoredImage]) -> Judged:
    label, predicted = result.classes[verdict.label].name, result.classes[verdict.predicted].name
    picture = Picture(data_uri(images[verdict.key]), f"{label} ({verdict.key})")
    return Judged(picture, label, predicted, verdict.probability)
