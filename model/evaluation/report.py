"""report.html: the whole story of a run in one file that opens anywhere, offline, in light and dark.

Nothing in it comes from elsewhere: pictures are data: URIs, charts are inline SVG, and there is no script; a content
policy forbids all else. Captions are the web's words and are escaped.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from model.checkpoint import METRICS, read_config
from model.data.manifest import FunnelEntry, Manifest
from model.evaluation import curves, story
from model.evaluation.charts import Bar, Cell, bars, class_bars, heat_map
from model.evaluation.images import StoredImage
from model.evaluation.intervals import Share
from model.evaluation.pictures import data_uri
from model.evaluation.results import Query, SetResult, Summary, Verdict, write_text
from model.evaluation.sets import EvaluationSet
from model.evaluation.shards import Pair, Shards, first_pairs

SAMPLES_SHOWN = 24
CLASSES_SHOWN = 40
CLASSES_IN_HEAT_MAP = 28
PACKAGES = ("torch", "numpy", "scipy", "pillow", "simplejpeg", "safetensors", "matplotlib")


@dataclass(frozen=True)
class Stage:
    """A row of the funnel; shares are of the largest stage."""

    name: str
    rows_in: int
    rows_kept: int
    dropped: list[tuple[str, int]]
    share_in: float
    share_kept: float


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
    learned_chart: Markup
    class_chart: Markup
    classes_left_out: int
    map_title: str
    map_chart: Markup
    confused: list[story.Confused]
    successes: list[Judged]
    mistakes: list[Judged]


@dataclass(frozen=True)
class ImageQuery:
    """An image, its own captions, and the texts found for it."""

    picture: Picture
    captions: Sequence[str]
    query: Query


@dataclass(frozen=True)
class TextQuery:
    """A text and the images found for it."""

    query: Query
    pictures: list[Picture]


def write_report(path: Path, summary: Summary, run: Path, shards: Shards, sets: Sequence[EvaluationSet]) -> None:
    """Draw `path` from the results and from what they were made of."""
    write_text(path, render(summary, run, shards, sets))


def render(summary: Summary, run: Path, shards: Shards, sets: Sequence[EvaluationSet]) -> str:
    """The page; the same inputs give the same text."""
    environment = Environment(
        loader=PackageLoader("model.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": story.percent, "points": story.points, "level": story.level}
    run_config = read_config(run)
    stages = _funnel(shards.manifest.funnel)
    samples = first_pairs(shards, "train", SAMPLES_SHOWN)
    views = [
        _set_view(result, found)
        for result, found in zip(summary.sets, [] if summary.zero_shot_skipped else sets, strict=True)
    ]
    image_queries, text_queries = _retrieval(summary, shards)
    best = summary.headline
    return environment.get_template("report.html.j2").render(
        summary=summary,
        best=best,
        headline=story.headline(best, summary.confidence) if best else "",
        pairs=shards.manifest.samples("train"),
        dataset=shards.manifest.name,
        stages=stages,
        samples=[(Picture(data_uri(pair.image), pair.captions[0]), pair.captions) for pair in samples],
        curves=curves.draw(curves.read_curves(run / METRICS), run_config),
        set_chart=_set_chart(summary.sets),
        views=views,
        retrieval_sentence=story.retrieval_sentence(summary.retrieval),
        retrieval_chart=_retrieval_chart(summary),
        image_queries=image_queries,
        text_queries=text_queries,
        provenance=_provenance(summary, shards.manifest),
        configurations=[
            ("evaluation", _json(summary.inputs.config)),
            ("run", _json(run_config.model_dump(mode="json"))),
            ("data set", _json(shards.manifest.config)),
        ],
        steps=story.next_steps(summary, dict(_largest_losses(stages))),
    )


def _funnel(rows: Sequence[FunnelEntry]) -> list[Stage]:
    largest = max([row.rows_in for row in rows], default=0) or 1
    return [
        Stage(
            name=row.stage.replace("_", " "),
            rows_in=row.rows_in,
            rows_kept=row.rows_kept,
            dropped=sorted(row.dropped.items(), key=lambda item: (-item[1], item[0])),
            share_in=row.rows_in / largest,
            share_kept=row.rows_kept / largest,
        )
        for row in rows
    ]


def _largest_losses(stages: Sequence[Stage]) -> list[tuple[str, int]]:
    return [stage.dropped[0] for stage in stages if stage.dropped and stage.dropped[0][1]]


def _set_chart(results: Sequence[SetResult]) -> Markup:
    rows = [Bar(found.name, found.top1.value, found.top1.low, found.top1.high, found.chance_top1) for found in results]
    spoken = "; ".join(f"{row.label}: {story.percent(row.value)}, chance {story.percent(row.chance)}" for row in rows)
    return bars("set-bars", f"Zero-shot accuracy of each set with its interval. {spoken}", rows)


def _set_view(result: SetResult, found: EvaluationSet) -> SetView:
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
        ],
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


def _learned_chart(result: SetResult) -> Markup:
    """From no labels to all of them, in the set's metric; nothing if it has no training split."""
    learned = result.learned
    if learned.probe is None or learned.neighbours is None:
        return Markup("")
    shares = [("zero-shot", result.metric_share)]
    shares += [
        (
            f"{shot.examples} of each class, mean and range",
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


def _retrieval_chart(summary: Summary) -> Markup:
    found = summary.retrieval
    rows = [
        Bar(
            f"{direction}, among the first {recall.k}",
            recall.share.value,
            recall.share.low,
            recall.share.high,
            recall.chance,
        )
        for direction, recalls in (("image to text", found.image_to_text), ("text to image", found.text_to_image))
        for recall in recalls
    ]
    spoken = "; ".join(f"{row.label}: {story.percent(row.value)}, chance {story.percent(row.chance)}" for row in rows)
    return bars("retrieval-bars", f"Recall with its interval. {spoken}", rows) if rows else Markup("")


def _retrieval(summary: Summary, shards: Shards) -> tuple[list[ImageQuery], list[TextQuery]]:
    found = summary.retrieval
    if found.status == "skipped":
        return [], []
    limit = found.images + len(found.unreadable)
    pairs = {pair.key: pair for pair in first_pairs(shards, "val", limit)}
    shown = {pair_key: _picture(pairs[pair_key]) for pair_key in _shown_keys(found.image_queries, found.text_queries)}
    images = [ImageQuery(shown[query.query], pairs[query.query].captions, query) for query in found.image_queries]
    texts = [TextQuery(query, [shown[entry.answer] for entry in query.found]) for query in found.text_queries]
    return images, texts


def _shown_keys(image_queries: Sequence[Query], text_queries: Sequence[Query]) -> set[str]:
    return {query.query for query in image_queries} | {entry.answer for query in text_queries for entry in query.found}


def _picture(pair: Pair) -> Picture:
    return Picture(data_uri(pair.image), pair.captions[0])


def _provenance(summary: Summary, manifest: Manifest) -> list[tuple[str, str]]:
    tools = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    tools |= {f"{name} (data set)": found for name, found in manifest.tools.items()}
    return [
        ("evaluation", summary.name),
        ("fingerprint", summary.inputs.fingerprint),
        ("run", summary.run),
        ("weights, sha256", summary.inputs.weights_sha256),
        ("temperature", f"{summary.temperature:.5f}"),
        (
            "data set",
            f"{manifest.name}: {manifest.samples('train'):,} training and {manifest.samples('val'):,} validation samples",
        ),
        ("data set, digest", manifest.digest),
        *[(f"set {name}, digest", digest) for name, digest in summary.inputs.sets.items()],
        *sorted(tools.items()),
    ]


def _json(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
