"""This run beside the paper: the table and the figures that the report shows of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from model.evaluation import story
from model.evaluation.domain_view import DomainView, domain_view
from model.evaluation.intervals import Share
from model.evaluation.multilabel_results import MultilabelResult
from model.evaluation.overlap import Overlap
from model.evaluation.paper_charts import Difference, Point, Shots, differences, scatter, shots
from model.evaluation.reference import paper
from model.evaluation.results import ProbedSet, Reference, SetResult
from model.evaluation.robustness import Shift
from model.evaluation.summary import Summary


@dataclass(frozen=True)
class PaperRow:
    """A set that the paper measured too: ours in the set's metric (zero-shot, probe), and the paper's."""

    name: str
    title: str
    zero_shot: Share | None
    probe: Share | None
    chance: float
    reference: Reference


@dataclass(frozen=True)
class Panel:
    """A figure, what it is, and what to read from it."""

    title: str
    chart: Markup
    note: str


@dataclass(frozen=True)
class Beside:
    """The section; `is_shown` if any of it has something to say."""

    rows: list[PaperRow]
    panels: list[Panel]
    shifts: Sequence[Shift]
    overlaps: list[Overlap]
    overlaps_skipped: list[Overlap]
    domains: DomainView | None

    @property
    def is_shown(self) -> bool:
        return bool(self.rows or self.panels or self.shifts or self.overlaps)


def beside_the_paper(summary: Summary) -> Beside:
    """All of it, from the results alone."""
    rows = [_row(found) for found in (*summary.every_set, *summary.multilabel) if found.reference is not None]
    probed = [found for found in summary.every_set if found.learned.probe is not None]
    panels = [
        panel
        for panel in (
            _few_shot(probed),
            _against_resnet50([*summary.sets, *summary.multilabel]),
            _zero_shot_against_probe([*summary.sets, *summary.multilabel]),
            _robustness(summary.shifts),
            _overlap(summary.overlaps),
        )
        if panel is not None
    ]
    # What a template is worth is in the words on each set; as a figure it needs something to stand beside.
    gain = _prompt_gain(summary.sets) if rows or panels else None
    return Beside(
        rows,
        [gain, *panels] if gain is not None else panels,
        summary.shifts,
        [found for found in summary.overlaps if not found.reason],
        [found for found in summary.overlaps if found.reason],
        domain_view(summary),
    )


def _row(found: SetResult | ProbedSet | MultilabelResult) -> PaperRow:
    assert found.reference is not None
    return PaperRow(
        found.name,
        found.origin.title,
        None if isinstance(found, ProbedSet) else found.metric_share,
        found.learned.probe.metric if found.learned.probe else None,
        found.metric_chance,
        found.reference,
    )


def _prompt_gain(sets: Sequence[SetResult]) -> Panel | None:
    rows = [Difference(found.name, found.ensemble_gain) for found in sets if len(found.templates) > 1]
    if not rows:
        return None
    mean = statistics.fmean(row.value for row in rows)
    spoken = "; ".join(f"{row.label} {story.points(row.value)}" for row in rows)
    return Panel(
        "What an ensemble of prompts gains (figure 4)",
        differences("prompt-gain", f"Gain of the ensemble over the first prompt. {spoken}", rows),
        f"The mean over {len(rows)} sets is {story.points(mean)}. The paper's gain, context and ensemble against the bare "
        f"name, is about {paper().headline['prompt_and_ensemble_gain']:.0f} points over 36 sets.",
    )


def _few_shot(probed: Sequence[SetResult | ProbedSet]) -> Panel | None:
    lines = []
    for found in probed:
        own = [(shot.examples, shot.mean) for shot in found.learned.few_shot if shot.mean is not None]
        if own:
            if isinstance(found, SetResult):
                own.insert(0, (0, found.metric_share.value))
            lines.append(Shots(found.name, [count for count, _ in own], [value for _, value in own]))
    if not lines:
        return None
    # Over the sets that have all numbers of examples, so that every point of the mean is of the same sets.
    whole = max((tuple(line.examples) for line in lines), key=len)
    same = [line for line in lines if tuple(line.examples) == whole]
    means = [statistics.fmean(values) for values in zip(*(line.values for line in same), strict=True)]
    lines.append(Shots("mean", whole, means, is_mean=True))
    spoken = "; ".join(
        f"{count or 'zero-shot'}: {story.percent(value)}" for count, value in zip(whole, means, strict=True)
    )
    matched = next((count for count, value in zip(whole, means, strict=True) if count and value >= means[0]), None)
    found_at = f"Here zero-shot is reached with {matched} of each class." if matched else "Here it is not reached."
    return Panel(
        "Examples of each class against none (figure 6)",
        shots(
            "few-shot",
            f"Mean over sets by examples of each class. {spoken}",
            lines,
            "each set's metric; bold: the mean",
        ),
        f"Mean of {len(same)} sets. In the paper zero-shot equals a probe on 4 examples of each class. "
        f"{found_at if 0 in whole else 'This model has no zero-shot accuracy.'}",
    )


def _against_resnet50(sets: Sequence[SetResult | MultilabelResult]) -> Panel | None:
    of_paper = paper().zero_shot_minus_resnet50
    rows = []
    for found in sets:
        reference, share = found.reference, found.metric_share
        if reference is not None and reference.resnet50_probe_percent is not None and share is not None:
            base = reference.resnet50_probe_percent / 100
            mark = of_paper.get(reference.row)
            rows.append(
                Difference(
                    found.name,
                    share.value - base,
                    None if mark is None else mark / 100,
                    share.low - base,
                    share.high - base,
                )
            )
    if not rows:
        return None
    wins = sum(row.value > 0 for row in rows)
    spoken = "; ".join(f"{row.label} {story.points(row.value)}" for row in rows)
    return Panel(
        "Zero-shot less a probe on a ResNet-50 of ImageNet (figure 5)",
        differences("less-resnet50", f"Zero-shot less the paper's probe on ResNet-50. {spoken}", rows),
        f"This run wins on {wins} of {len(rows)} sets; the paper's best model (the ticks) on 16 of 27.",
    )


def _zero_shot_against_probe(sets: Sequence[SetResult | MultilabelResult]) -> Panel | None:
    ours = [
        Point(found.learned.probe.metric.value, found.metric_share.value, found.name)
        for found in sets
        if found.learned.probe is not None and found.metric_share is not None
    ]
    if not ours:
        return None
    models = sorted({found.reference.model for found in sets if found.reference is not None})
    theirs = [
        Point(row.linear_probe[model] / 100, row.zero_shot[model] / 100, is_ours=False)
        for model in models[:1]
        for row in paper().sets.values()
        if model in row.linear_probe and model in row.zero_shot
    ]
    spoken = "; ".join(f"{point.label} {story.percent(point.y)} against {story.percent(point.x)}" for point in ours)
    beside = f" Rings: the paper's {models[0]} on its sets." if theirs else ""
    return Panel(
        "Zero-shot against a linear probe (figure 8)",
        scatter(
            "zero-against-probe",
            f"Zero-shot over linear probe. {spoken}",
            [*theirs, *ours],
            ("linear probe", "zero-shot"),
        ),
        f"On the line a label would add nothing. In the paper r = 0.82, most sets lying 10 to 25 points below the line.{beside}",
    )


def _robustness(shifts: Sequence[Shift]) -> Panel | None:
    rows = [
        Difference(shift.set, shift.effective.value, None, shift.effective.low, shift.effective.high)
        for shift in shifts
        if shift.effective is not None
    ]
    if not rows:
        return None
    spoken = "; ".join(f"{row.label} {story.points(row.value)}" for row in rows)
    return Panel(
        "Effective robustness (figures 13 and 14)",
        differences("robustness", f"Accuracy on each variant of ImageNet less what is expected. {spoken}", rows),
        "Above 0: more accurate on the variant than classifiers trained on ImageNet with the same accuracy there. Expected is "
        "a line through three such classifiers of the paper, so it is coarse, most of all far below their 76 to 88 %.",
    )


def _overlap(overlaps: Sequence[Overlap]) -> Panel | None:
    rows = [Difference(found.set, found.gain) for found in overlaps if found.gain is not None and found.overlapping]
    if not rows:
        return None
    spoken = "; ".join(f"{row.label} {story.points(row.value)}" for row in rows)
    return Panel(
        "What overlap with the training data is worth (figure 17)",
        differences("overlap", f"Accuracy on all images less that on clean ones. {spoken}", rows),
        "All images less those that look like none of the training data. In the paper it is 0.6 points at most.",
    )
