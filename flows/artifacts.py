"""What a person sees in the Prefect UI beside states and logs: the funnel, the curves, progress, results."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from pipeline.errors import InputError
from pipeline.stage import Counts

# A progress artifact costs about ten milliseconds; a person reads no faster than this.
UPDATE_EVERY_S = 2.0
CURVE_POINTS = 60
# The UI puts charts on black, and mermaid's own first colour is nearly white.
CHART_COLOURS = (
    '%%{init: {"themeVariables": {"xyChart": '
    '{"backgroundColor": "#ffffff", "plotColorPalette": "#2459d4, #b3261e"}}}}%%'
)


def key_of(kind: str, name: str) -> str:
    """An artifact key: lower-case letters, numbers and dashes only."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{name}".lower()).strip("-")


def publish_funnel(name: str, funnel: Sequence[tuple[str, Counts]]) -> None:
    """Show what became of every row, stage by stage, as a table, and as a chart with all reasons."""
    rows = [
        {
            "stage": stage,
            "rows in": counts.rows_in,
            "dropped": sum(counts.dropped.values()),
            "kept": counts.rows_kept,
            "reasons": ", ".join(f"{reason} {rows:,}" for reason, rows in by_size(counts.dropped)),
        }
        for stage, counts in funnel
    ]
    create_table_artifact(rows, key=key_of("funnel", name), description=f"What became of every row of `{name}`")
    stages = ", ".join(f'"{stage}"' for stage, _ in funnel)
    bars = _chart("Rows kept", f"x-axis [{stages}]", "bar", [counts.rows_kept for _, counts in funnel])
    reasons = [
        f"| {stage} | {reason} | {rows:,} |" for stage, counts in funnel for reason, rows in by_size(counts.dropped)
    ]
    table = "\n".join(["| stage | dropped because | rows |", "|---|---|---:|", *reasons])
    create_markdown_artifact(
        f"# Funnel of {name}\n\n{bars}\n{table}\n",
        key=key_of("funnel-diagram", name),
        description=f"The funnel of `{name}` as a chart, and every reason with its rows",
    )


def publish_card(name: str, markdown: str) -> None:
    """Show the card of a data set."""
    create_markdown_artifact(markdown, key=key_of("card", name), description=f"What is in `{name}`")


def by_size(dropped: Mapping[str, int]) -> list[tuple[str, int]]:
    """Reasons with their rows, most rows first."""
    return sorted(dropped.items(), key=lambda item: (-item[1], item[0]))


def publish_curves(name: str, metrics: Path) -> None:
    """Show the loss curves of a run and its last validation."""
    lines = read_metrics(metrics)
    training = _thin([line for line in lines if line["kind"] == "train"])
    validation = _thin([line for line in lines if line["kind"] == "validation"])
    charts = [_curve("Training loss", training), _curve("Validation loss", validation)]
    last = {key: value for key, value in (validation[-1] if validation else {}).items() if key != "kind"}
    table = "\n".join(f"| {key} | {value:,.4g} |" for key, value in last.items())
    create_markdown_artifact(
        f"# Run {name}\n\n" + "\n".join(charts) + f"\n\n| last validation | |\n|---|---:|\n{table}\n",
        key=key_of("curves", name),
        description=f"How `{name}` learned, and its last validation",
    )


def read_metrics(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut off by a kill is left out. Raises InputError naming file and line."""
    try:
        *whole, _cut_off = metrics.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise InputError(
            f"{metrics}: no such file, so the run has no curves; copy it back, or make an empty one to do without"
        ) from error
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(whole, 1):
        try:
            lines.append(_metrics_line(line))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{metrics} line {number}: not a line of metrics ({error}); remove that line, the run does not need it"
            ) from error
    return lines


def _metrics_line(line: bytes) -> dict[str, Any]:
    """One record; what is drawn and shown of it are numbers."""
    record: dict[str, Any] = json.loads(line.decode("utf-8"))
    kind = record["kind"]
    values = [record["step"], *([record["loss"]] if kind in ("train", "validation") else [])]
    if kind == "validation":  # of these the last is shown whole
        values += [value for name, value in record.items() if name != "kind"]
    if not all(isinstance(value, (int, float)) for value in values):
        raise TypeError("a value is not a number")
    return record


def _thin(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """About CURVE_POINTS of the lines, evenly spaced, the last one always among them."""
    every = max(1, len(lines) // CURVE_POINTS)
    return lines[::-every][::-1]


def _curve(title: str, lines: list[dict[str, Any]]) -> str:
    if len(lines) < 2:
        return ""
    axis = f'x-axis "step" {lines[0]["step"]} --> {lines[-1]["step"]}'
    return _chart(title, axis, "line", [line["loss"] for line in lines])


def _chart(title: str, axis: str, kind: str, values: Sequence[float], line: Sequence[float] = ()) -> str:
    """A mermaid chart in a fenced block, with a line over it; Prefect's UI draws it (its older UI shows the text)."""
    highest = max([*values, *line]) * 1.05 or 1
    second = f"  line [{_numbers(line)}]\n" if line else ""
    return (
        f'```mermaid\n{CHART_COLOURS}\nxychart-beta\n  title "{title}"\n  {axis}\n'
        f'  y-axis "{title}" 0 --> {highest:.6g}\n  {kind} [{_numbers(values)}]\n{second}```\n'
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def publish_figures(evaluation: str, name: str, figures: Sequence[Mapping[str, Any]]) -> None:
    """Show what was measured on one set: figures, their intervals and, but for gaps, what guessing would give, in per cent."""
    rows = [
        {
            "figure": figure["figure"],
            **{f"{part} %": _percent(figure[part]) for part in ("value", "low", "high", "chance")},
        }
        for figure in figures
    ]
    create_table_artifact(rows, key=key_of("set", f"{evaluation} {name}"), description=f"`{name}` in `{evaluation}`")


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def publish_results(name: str, summary: Mapping[str, Any], report: Path) -> None:
    """Show the scorecard of an evaluation as a table and as charts, which sets it lacks and why, and where its report lies."""
    rows = summary["rows"]
    if rows:
        create_table_artifact(
            [dict(row) for row in rows], key=key_of("results", name), description=f"Results of `{name}`"
        )
    # An accuracy, but where an image shows several classes.
    ranked = [row for row in rows if row["accuracy_percent"] is None]
    charts = [
        _scores(title, own, field, chance)
        for title, own, field, chance in (
            ("Zero-shot accuracy, %", rows, "accuracy_percent", "chance_percent"),
            ("Zero-shot mean average precision, %", ranked, "metric_percent", "metric_chance_percent"),
            ("Linear probe, %", rows, "probe_percent", "metric_chance_percent"),
        )
    ]
    unmeasured = [*summary["skipped_sets"], *(found for found in summary["retrieval_sets"] if found["reason"])]
    lost = "".join(f"- {found['name']} skipped: {found['reason']}\n" for found in unmeasured)
    text = "\n".join([f"# Evaluation {name}\n", *filter(None, charts), lost, f"The report: `{report}`"])
    create_markdown_artifact(
        text, key=key_of("report", name), description=f"The scorecard of `{name}` as charts, and where its report lies"
    )


def publish_comparison(name: str, table: Path) -> None:
    """Show several evaluations side by side."""
    create_markdown_artifact(
        table.read_text(encoding="utf-8"), key=key_of("compare", name), description="Several evaluations side by side"
    )


def _scores(title: str, rows: Sequence[Mapping[str, Any]], field: str, chance: str) -> str:
    """A bar for each set that has the figure, and a line for what guessing gives."""
    told = [row for row in rows if row[field] is not None]
    if not told:
        return ""
    sets = ", ".join(f'"{row["set"]}"' for row in told)
    chart = _chart(title, f"x-axis [{sets}]", "bar", [row[field] for row in told], [row[chance] for row in told])
    return f"{chart}\nThe red line is what guessing gives.\n"


class Progress:
    """A progress artifact that is updated no more often than a person can read."""

    def __init__(self, key: str, description: str) -> None:
        self._id = cast(UUID, create_progress_artifact(0.0, key=key, description=description))
        self._shown_at = time.monotonic()

    def update(self, share: float, description: str) -> None:
        """Show `share` (0 to 1) of the work as done."""
        now = time.monotonic()
        if share < 1 and now - self._shown_at < UPDATE_EVERY_S:
            return
        self._shown_at = now
        update_progress_artifact(self._id, progress=round(100 * share, 1), description=description)
