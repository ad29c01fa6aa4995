"""report.html: the whole story of a run in one file that opens anywhere, offline, in light and dark.

Nothing in it comes from elsewhere: pictures are data: URIs, charts are inline SVG, and there is no script; a content
policy forbids all else. Captions are the web's words and are escaped.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup

from model.checkpoint import METRICS, read_config
from model.data.manifest import FunnelEntry, Manifest
from model.evaluation import curves, story
from model.evaluation.charts import Bar, bars
from model.evaluation.fairness_view import fairness_view
from model.evaluation.multilabel_view import multilabel_view
from model.evaluation.page import environment
from model.evaluation.paper_view import beside_the_paper
from model.evaluation.pictures import data_uri
from model.evaluation.results import SetResult
from model.evaluation.retrieval_view import retrieval_chart, retrieval_queries
from model.evaluation.set_view import Picture, set_view
from model.evaluation.sets import EvaluationSet
from model.evaluation.shards import Shards, first_pairs
from model.evaluation.summary import Summary
from model.files import write_text

SAMPLES_SHOWN = 24
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


def write_report(path: Path, summary: Summary, run: Path, shards: Shards, sets: Sequence[EvaluationSet]) -> None:
    """Draw `path` from the results and from what they were made of."""
    write_text(path, render(summary, run, shards, sets))


def render(summary: Summary, run: Path, shards: Shards, sets: Sequence[EvaluationSet]) -> str:
    """The page; the same inputs give the same text."""
    run_config = read_config(run)
    stages = _funnel(shards.manifest.funnel)
    samples = first_pairs(shards, "train", SAMPLES_SHOWN)
    by_name = {found.name: found for found in sets}
    views = [set_view(result, by_name[result.name]) for result in summary.sets]
    image_queries, text_queries = retrieval_queries(summary.retrieval, shards)
    best = summary.headline
    return (
        environment()
        .get_template("report.html.j2")
        .render(
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
            fairness=[fairness_view(found, summary.confidence) for found in summary.fairness],
            multilabel=[multilabel_view(result) for result in summary.multilabel],
            beside=beside_the_paper(summary),
            retrieval_sentence=story.retrieval_sentence(summary.retrieval),
            retrieval_chart=retrieval_chart(summary.retrieval),
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
