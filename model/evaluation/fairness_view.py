"""A fairness probe as the report, Markdown and CSV show it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from model.evaluation import story
from model.evaluation.charts import Bar, class_bars
from model.evaluation.fairness import LEAST_IMAGES, Fairness, Gap, GroupRate, GroupRates
from model.evaluation.intervals import Share
from model.evaluation.summary import Summary

GROUPS_DRAWN = 40
FIELDS = [
    "evaluation",
    "run",
    "set",
    "judged_by",
    "rate",
    "columns",
    "group",
    "images",
    "percent",
    "low_percent",
    "high_percent",
]


@dataclass(frozen=True)
class RatesView:
    """One kind of rate: a chart of the groups of single columns, sentences on the gaps, and all groups by their columns."""

    title: str
    rates: GroupRates
    chart: Markup
    sentences: list[str]
    tables: list[tuple[str, list[tuple[str, GroupRate]]]]


@dataclass(frozen=True)
class FairnessView:
    """One set."""

    result: Fairness
    rates: list[RatesView]


def fairness_view(result: Fairness, confidence: float) -> FairnessView:
    """The rates of one set as charts, sentences and tables."""
    views = [_rates_view(result, number, rates, confidence) for number, rates in enumerate(result.rates)]
    return FairnessView(result, views)


def title_of(rates: GroupRates) -> str:
    """What is counted, and of which classifier."""
    return f"{rates.judged_by}: " + (f"images taken for {rates.category}" if rates.category else "accuracy")


def _labelled(rate: GroupRate) -> str:
    return ", ".join(f"{column}: {value}" for column, value in rate.group.items())


def name_of(rate: GroupRate) -> str:
    """The values of a group."""
    return ", ".join(rate.group.values())


def gap_sentence(found: Gap, confidence: float) -> str:
    """The largest gap between groups of these columns, and whether it can be told from none."""
    columns = " and ".join(found.columns)
    if found.gap is None or found.highest is None or found.lowest is None:
        return f"{columns}: fewer than two groups have {LEAST_IMAGES} images, so none are compared."
    many = f" for all pairs of {found.groups_compared} groups together" if found.groups_compared > 2 else ""
    ends = " to ".join(f"{100 * end:.1f}".replace("-", "\u2212") for end in (found.gap.low, found.gap.high))
    verdict = "" if found.gap.low > 0 else "; it holds 0, so no gap is shown"
    return (
        f"{columns}: from {story.percent(found.lowest.share.value)} ({name_of(found.lowest)}, {found.lowest.images:,} images) to "
        f"{story.percent(found.highest.share.value)} ({name_of(found.highest)}, {found.highest.images:,} images), a gap of "
        f"{100 * found.gap.value:.1f} points ({story.level(confidence)} interval{many}: {ends}{verdict})."
    )


def gap_lines(found: Fairness) -> Iterator[tuple[str, Share]]:
    """The largest gap of each rate between groups of the same columns, where there is one: what it is, and how large."""
    for rates in found.rates:
        for gap in rates.gaps:
            if gap.gap is not None and gap.highest is not None and gap.lowest is not None:
                between = f"{name_of(gap.highest)} less {name_of(gap.lowest)}"
                yield f"{found.set}, {title_of(rates)}, {' and '.join(gap.columns)}: {between}", gap.gap


def fairness_csv(summary: Summary) -> str:
    """A line for each set, rate and group."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS, lineterminator="\n")
    writer.writeheader()
    for found in summary.fairness:
        for rates in found.rates:
            for rate in rates.groups:
                cells = [summary.name, summary.run, found.set, rates.judged_by, rates.category or "accuracy"]
                cells += [" and ".join(rate.group), name_of(rate), str(rate.images)]
                cells += [f"{100 * share:.2f}" for share in (rate.share.value, rate.share.low, rate.share.high)]
                writer.writerow(dict(zip(FIELDS, cells, strict=True)))
    return buffer.getvalue()


def fairness_lines(summary: Summary) -> Iterator[str]:
    """A line for each set, rate and columns."""
    for found in summary.fairness:
        for rates in found.rates:
            for gap in rates.gaps:
                yield f"{found.set}, {title_of(rates)}; {gap_sentence(gap, summary.confidence)}"


def _rates_view(result: Fairness, number: int, rates: GroupRates, confidence: float) -> RatesView:
    singles = [rate for rate in rates.groups if len(rate.group) == 1][:GROUPS_DRAWN]
    bars = [
        Bar(_labelled(rate), rate.share.value, rate.share.low, rate.share.high, rates.overall.value) for rate in singles
    ]
    spoken = "; ".join(f"{bar.label}: {story.percent(bar.value)}" for bar in bars)
    title = title_of(rates)
    return RatesView(
        title=title[0].upper() + title[1:],
        rates=rates,
        chart=class_bars(f"fairness-{result.set}-{number}", f"{title} by group of {result.set}. {spoken}", bars),
        sentences=[gap_sentence(gap, confidence) for gap in rates.gaps],
        tables=[
            (" and ".join(gap.columns), [(name_of(rate), rate) for rate in rates.of(gap.columns)]) for gap in rates.gaps
        ],
    )
