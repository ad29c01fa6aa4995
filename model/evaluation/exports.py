"""The results for other readers: Markdown for people, CSV for spreadsheets, CLIP_benchmark's JSON for its tools."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from model.evaluation.domains import domains_of
from model.evaluation.fairness_view import fairness_csv, fairness_lines
from model.evaluation.intervals import Share
from model.evaluation.multilabel_results import MultilabelResult
from model.evaluation.registry import find
from model.evaluation.results import ProbedSet, Recall, SetResult
from model.evaluation.summary import Row, Summary
from model.files import write_text

CLIP_BENCHMARK = "clip_benchmark"
FAIRNESS = "fairness.csv"
DASH = "–"


def write_exports(out: Path, summary: Summary) -> None:
    """report.md, results.csv, fairness.csv and clip_benchmark/*.json; those of an earlier evaluation go."""
    write_text(out / "report.md", markdown([summary]))
    write_text(out / "results.csv", as_csv([summary]))
    if summary.fairness:
        write_text(out / FAIRNESS, fairness_csv(summary))
    else:
        (out / FAIRNESS).unlink(missing_ok=True)
    dumps = dict(clip_benchmark_dumps(summary))
    for stale in (out / CLIP_BENCHMARK).glob("*.json"):
        if stale.name not in dumps:
            stale.unlink()
    for name, dump in dumps.items():
        write_text(out / CLIP_BENCHMARK / name, json.dumps(dump, indent=1))


def as_csv(summaries: Sequence[Summary]) -> str:
    """A line for each run and set; empty where there is nothing to tell."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["evaluation", "run", *Row.model_fields], lineterminator="\n")
    writer.writeheader()
    for summary in summaries:
        for row in summary.rows:
            writer.writerow({"evaluation": summary.name, "run": summary.run, **row.model_dump()})
    return buffer.getvalue()


def markdown(summaries: Sequence[Summary]) -> str:
    """The tables of one run, or of several side by side."""
    parts = [f"# {', '.join(_cell(summary.name) for summary in summaries)}", _main_table(summaries)]
    for summary in summaries:
        title = f" of {_cell(summary.name)}" if len(summaries) > 1 else ""
        parts += [f"## {name}{title}\n\n{text}" for name, text in _details(summary) if text]
    return "\n\n".join(parts) + "\n"


def clip_benchmark_dumps(summary: Summary) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name, content) of one task on one set, as `clip_benchmark eval` writes them and `clip_benchmark build` reads them."""
    pretrained = summary.inputs.weights_sha256[:12]
    # Two folders may hold the same known set (cifar10, wds_cifar10): each file then has the folder's name.
    every: list[SetResult | ProbedSet | MultilabelResult] = [*summary.every_set, *summary.multilabel]
    times = Counter(known.name for found in every if (known := find(found.name)) is not None)
    for found in every:
        known = find(found.name)
        name = known.name if known is not None and times[known.name] == 1 else found.name
        if isinstance(found, MultilabelResult):
            yield from _multilabel_dumps(summary, name, pretrained, found)
            continue
        probe = found.learned.probe
        if isinstance(found, SetResult):
            yield _dump(summary, name, pretrained, "zeroshot_classification", _zero_shot_metrics(found))
        if probe is not None:
            metrics = {
                "lp_acc1": probe.top1.value,
                "lp_mean_per_class_recall": probe.mean_per_class.value,
                "weight_decay": probe.penalty,
            }
            yield _dump(summary, name, pretrained, "linear_probe", metrics)
    for retrieved in (summary.retrieval, *summary.retrieval_sets):
        if retrieved.status == "measured":
            known = find(retrieved.name)
            name = known.name if known is not None else retrieved.name or f"{summary.name}_val"
            directions = (("text", retrieved.image_to_text), ("image", retrieved.text_to_image))
            recalls = {
                f"{found_kind}_retrieval_recall@{recall.k}": recall.share.value
                for found_kind, own in directions
                for recall in own
            }
            yield _dump(summary, name, pretrained, "zeroshot_retrieval", recalls)


def _multilabel_dumps(
    summary: Summary, name: str, pretrained: str, found: MultilabelResult
) -> Iterator[tuple[str, dict[str, Any]]]:
    if found.metric_share is not None:
        metrics = {"mean_average_precision": found.metric_share.value}
        yield _dump(summary, name, pretrained, "zeroshot_classification", metrics)
    if found.learned.probe is not None:
        metrics = {
            "lp_mean_average_precision": found.learned.probe.metric.value,
            "weight_decay": found.learned.probe.penalty,
        }
        yield _dump(summary, name, pretrained, "linear_probe", metrics)


def _zero_shot_metrics(found: SetResult) -> dict[str, float]:
    metrics = {"acc1": found.top1.value, "acc5": found.top5.value, "mean_per_class_recall": found.mean_per_class.value}
    if found.metric == "mean_average_precision":
        metrics["mean_average_precision"] = found.metric_share.value
    return metrics


def _dump(
    summary: Summary, name: str, pretrained: str, task: str, metrics: dict[str, float]
) -> tuple[str, dict[str, Any]]:
    about = {"dataset": name, "model": summary.run, "pretrained": pretrained, "task": task}
    parts = (name, pretrained, summary.run, "en", task)
    return "_".join(part.replace("/", "-") for part in parts) + ".json", about | {"metrics": metrics, "language": "en"}


def _main_table(summaries: Sequence[Summary]) -> str:
    sets = list(dict.fromkeys(row.set for summary in summaries for row in summary.rows))
    if not sets:
        return "No evaluation set was measured."
    heads = [f"{summary.name}: {what}" for summary in summaries for what in ("zero-shot", "probe")]
    lines = [_line(["set", "images", "metric", "chance", *heads, "paper: zero-shot", "probe", "model", "flag"])]
    lines.append(_line(["---", *["---:"] * (len(heads) + 7)]))
    for name in sets:
        rows = [next((row for row in summary.rows if row.set == name), None) for summary in summaries]
        first = next(row for row in rows if row is not None)
        cells = [name, f"{first.images:,}", first.metric, f"{first.metric_chance_percent:.1f}"]
        for row in rows:
            cells += [_number(row.metric_percent if row else None), _number(row.probe_percent if row else None)]
        paper = [_number(first.paper_percent), _number(first.paper_probe_percent), first.paper_model or DASH]
        lines.append(_line([*cells, *paper, first.paper_flag or DASH]))
    return "In per cent, in each set's metric.\n\n" + "\n".join(lines)


def _details(summary: Summary) -> Iterator[tuple[str, str]]:
    level = f"{100 * summary.confidence:.4g} %"
    lines = [
        f"- {_cell(found.name)}: top 1 {_interval(found.top1)}, top 5 {_interval(found.top5)}, mean per class "
        f"{_interval(found.mean_per_class)}; names from {found.origin.class_names_from}, prompts from {found.origin.prompts_from}"
        for found in summary.sets
    ]
    lines += [_multilabel_line(found) for found in summary.multilabel]
    yield f"Zero-shot, with {level} intervals", "\n".join(lines)
    yield "By domain", _domain_table(summary)
    recalls = []
    for retrieved in (summary.retrieval, *summary.retrieval_sets):
        start = f"{_cell(retrieved.name)}, " if retrieved.name else ""
        directions = (("image to text", retrieved.image_to_text), ("text to image", retrieved.text_to_image))
        recalls += [
            f"- {start}{name}: " + ", ".join(_recall(recall) for recall in own) for name, own in directions if own
        ]
        recalls += [f"- {start}skipped: {_cell(retrieved.reason)}"] if retrieved.reason else []
    yield "Retrieval", "\n".join(recalls)
    yield (
        "Shifts of ImageNet",
        "\n".join(
            f"- {_cell(shift.set)}: {_interval(shift.share)} among {shift.classes} classes"
            + (f", {100 * shift.effective.value:+.1f} points of effective robustness" if shift.effective else "")
            for shift in summary.shifts
        ),
    )
    yield (
        "Overlap with the training data",
        "\n".join(
            f"- {_cell(found.set)}: {found.overlapping:,} of {found.images:,} images"
            + (f", gain {100 * found.gain:+.2f} points" if found.gain is not None else "")
            + (f", p = {found.p_value:.2g}" if found.p_value is not None else "")
            for found in summary.overlaps
            if not found.reason
        ),
    )
    yield "Fairness probes", "\n".join(f"- {_cell(line)}" for line in fairness_lines(summary))
    yield "Skipped", "\n".join(f"- {_cell(each.name)}: {_cell(each.reason)}" for each in summary.skipped_sets)


def _domain_table(summary: Summary) -> str:
    """Empty where there are too few domains."""
    domains = domains_of(summary)
    if not domains:
        return ""
    lines = [_line(["domain", "sets", "zero-shot", "paper", "chance", "probe", "paper", "not measured"])]
    lines.append(_line(["---", "---:", "---:", "---:", "---:", "---:", "---:", "---"]))
    for domain in domains:
        count = f"{len(domain.measured)} of {len(domain.measured) + len(domain.absent)}"
        figures = [DASH] * 5
        if domain.zero_shot is not None:
            score = domain.zero_shot
            figures[:3] = [_number(100 * share) for share in (score.ours, score.paper, score.chance)]
        if domain.probe is not None:
            figures[3:] = [_number(100 * share) for share in (domain.probe.ours, domain.probe.paper)]
        lines.append(_line([domain.name, count, *figures, ", ".join(domain.absent) or DASH]))
    return "Means over the sets that were measured, in per cent.\n\n" + "\n".join(lines)


def _multilabel_line(found: MultilabelResult) -> str:
    told = ", ".join(f"{judged_by} {_interval(share)}" for judged_by, share in found.shares.items())
    return f"- {_cell(found.name)}, mean average precision: {told or 'not measured'}"


def _recall(recall: Recall) -> str:
    return f"R@{recall.k} {_interval(recall.share)}"


def _interval(share: Share) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) if cell not in ("---", "---:") else cell for cell in cells) + " |"


def _cell(text: str) -> str:
    """Words of others stay words: no table, no link, no element is made by them."""
    for mark in "\\|[]<>`*_":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")
