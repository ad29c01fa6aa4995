"""Several evaluations side by side: `python -m model.evaluation.compare OUT_DIR EVALUATION_DIR EVALUATION_DIR ...`.

OUT_DIR gets compare.html, compare.md and compare.csv; each EVALUATION_DIR holds the summary.json of a finished evaluation.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from pydantic import ValidationError

from model.errors import InputError
from model.evaluation import story
from model.evaluation.exports import as_csv, markdown
from model.evaluation.multilabel_results import MultilabelResult
from model.evaluation.page import environment
from model.evaluation.paper_charts import Shots, Size, scaling, shots
from model.evaluation.prepare import MARKER
from model.evaluation.reference import paper
from model.evaluation.results import ProbedSet, SetResult
from model.evaluation.summary import Row, Summary
from model.files import write_text

EXIT_INPUT = 2


@dataclass(frozen=True)
class Line:
    """A set, and its row in each evaluation or None; `best` has the numbers of those whose zero-shot metric is the highest."""

    set: str
    first: Row
    rows: list[Row | None]
    best: frozenset[int]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the comparison is there, 2 when something must be mended first."""
    parser = argparse.ArgumentParser(
        prog="python -m model.evaluation.compare", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("out", type=Path, help="folder of the comparison")
    parser.add_argument("evaluations", type=Path, nargs="+", help="folders of finished evaluations")
    chosen = parser.parse_args(arguments)
    try:
        summaries = [read_summary(folder) for folder in chosen.evaluations]
        for folder in chosen.evaluations:
            if not (folder / MARKER).is_file():
                print(
                    f"warning: {folder} is not finished ({MARKER} is absent): compared is its last report; to measure what "
                    "is missing, evaluate again"
                )
        compare(chosen.out, summaries)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    print(f"comparison: {chosen.out / 'compare.html'}")
    return 0


def read_summary(folder: Path) -> Summary:
    """What an evaluation found. Raises InputError."""
    path = folder / "summary.json"
    try:
        return Summary.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give folders of finished evaluations") from error
    except ValidationError as error:
        raise InputError(
            f"{path}: damaged, or of another version ({error.error_count()} faults); evaluate again"
        ) from error


def compare(out: Path, summaries: Sequence[Summary]) -> None:
    """Write the comparison. Raises InputError if two evaluations have one name."""
    names = [summary.name for summary in summaries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"two evaluations are called {', '.join(sorted(twice))}; compare evaluations of different names"
        )
    write_text(out / "compare.md", markdown(summaries))
    write_text(out / "compare.csv", as_csv(summaries))
    write_text(out / "compare.html", render(summaries))


def render(summaries: Sequence[Summary]) -> str:
    """The page; the same summaries give the same text."""
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            summaries=summaries,
            lines=[_line(name, summaries) for name in _sets(summaries)],
            charts=[chart for chart in (_scaling(summaries), _few_shot(summaries)) if chart],
        )
    )


def _sets(summaries: Sequence[Summary]) -> list[str]:
    return list(dict.fromkeys(row.set for summary in summaries for row in summary.rows))


def _line(name: str, summaries: Sequence[Summary]) -> Line:
    rows = [next((row for row in summary.rows if row.set == name), None) for summary in summaries]
    values = [row.metric_percent if row is not None and row.metric_percent is not None else -1.0 for row in rows]
    best = {number for number, value in enumerate(values) if value == max(values) and value >= 0}
    return Line(name, next(row for row in rows if row is not None), rows, frozenset(best if len(rows) > 1 else ()))


def _scaling(summaries: Sequence[Summary]) -> Markup | None:
    """Mean zero-shot error of each run over the sets that all of them and the paper have, by the work of its image tower."""
    runs = [(summary, errors) for summary in summaries if summary.image_gflop and (errors := _errors_of(summary))]
    shared = set.intersection(*(set(errors) for _, errors in runs)) if runs else set[str]()
    rows = sorted(row for row in shared if len(paper().sets[row].zero_shot) > 1)
    if not rows:
        return None
    sizes = [
        Size(summary.image_gflop or 0, statistics.fmean(errors[row] for row in rows), summary.name, True)
        for summary, errors in runs
    ]
    sizes += [
        Size(
            tower.image_gflop,
            statistics.fmean(1 - paper().sets[row].zero_shot[tower.name] / 100 for row in rows),
            tower.name,
            False,
        )
        for tower in paper().models
    ]
    spoken = "; ".join(f"{size.label}: {story.percent(size.error)}" for size in sizes)
    label = f"mean zero-shot error over {len(rows)} set{'s' if len(rows) > 1 else ''}"
    return scaling("scaling", f"{label}, by GFLOP of the image tower. {spoken}", sizes, label)


def _errors_of(summary: Summary) -> dict[str, float]:
    """Zero-shot errors by the paper's names of the sets."""
    results: list[SetResult | MultilabelResult] = [*summary.sets, *summary.multilabel]
    return {
        found.reference.row: 1 - found.metric_share.value
        for found in results
        if found.reference is not None and found.metric_share is not None
    }


def _few_shot(summaries: Sequence[Summary]) -> Markup | None:
    """Each run's mean over the sets in which all runs have the same numbers of examples."""
    curves = [
        {found.name: values for found in summary.every_set if (values := _shots_of(found))} for summary in summaries
    ]
    counts = {
        name: {tuple(own[name]) for own in curves if name in own} for name in {name for own in curves for name in own}
    }
    same = sorted(name for name, told in counts.items() if len(told) == 1 and all(name in own for own in curves))
    if not same:
        return None
    examples = list(curves[0][same[0]])
    same = [name for name in same if list(curves[0][name]) == examples]
    lines = [
        Shots(
            summary.name,
            examples,
            [statistics.fmean(own[name][count] for name in same) for count in examples],
            is_mean=number == len(summaries) - 1,
        )
        for number, (summary, own) in enumerate(zip(summaries, curves, strict=True))
    ]
    spoken = "; ".join(f"{line.label} {story.percent(line.values[-1])} at {examples[-1]}" for line in lines)
    return shots(
        "few-shot", f"Mean by examples of each class. {spoken}", lines, f"few-shot; bold: {summaries[-1].name}"
    )


def _shots_of(found: SetResult | ProbedSet) -> dict[int, float]:
    return {shot.examples: shot.mean for shot in found.learned.few_shot if shot.mean is not None}


if __name__ == "__main__":
    sys.exit(main())
