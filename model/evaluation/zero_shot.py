"""Zero-shot classification: class names become vectors through prompts, an image takes the nearest (section 3.1).

Axes: N images, C classes, T templates, D dimensions of the shared space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.evaluation.calibration import certainty_bins
from model.evaluation.feature_cache import Embedded
from model.evaluation.intervals import mean_of_classes, share_of
from model.evaluation.mentions import Mentions
from model.evaluation.metrics import measured, metric_chance
from model.evaluation.results import ClassResult, LearnedResult, Origin, Reference, SetResult, Unreadable, Verdict
from model.evaluation.sets import EvaluationSet, NamedClasses

EXAMPLES = 8


@dataclass(frozen=True)
class Predictions:
    """Per image (N): the predicted class, its probability, and the place of the right class (0 = first)."""

    label: Tensor
    probability: Tensor
    rank: Tensor


def class_vectors(prompts_CTD: Tensor) -> Tensor:
    """The classifier (C, D): prompts normalised, their mean over the templates, normalised again (section 3.1.4)."""
    return functional.normalize(functional.normalize(prompts_CTD, dim=-1).mean(dim=1), dim=-1)


def logits(images_ND: Tensor, classes_CD: Tensor, scale: float) -> Tensor:
    """Scaled cosines (N, C)."""
    return scale * (functional.normalize(images_ND, dim=-1) @ classes_CD.T)


def choose(logits_NC: Tensor, labels_N: Tensor) -> Predictions:
    """The class of the highest logit. Equals go to the class of the lower number, whatever the label is."""
    order_NC = logits_NC.argsort(dim=1, descending=True, stable=True)
    predicted_N = order_NC[:, 0]
    probability_NC = logits_NC.softmax(dim=1)
    return Predictions(
        label=predicted_N,
        probability=probability_NC.gather(1, predicted_N[:, None])[:, 0],
        rank=(order_NC == labels_N[:, None]).nonzero()[:, 1],
    )


def ensemble_logits(images_ND: Tensor, prompts_CTD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Logits (N, C) by all templates and by the first alone, from features of images and prompts."""
    whole_NC, single_NC = (
        logits(images_ND, class_vectors(own_CTD), scale) for own_CTD in (prompts_CTD, prompts_CTD[:, :1])
    )
    return whole_NC, single_NC


def ensemble_scores(scores: Embedded, found: NamedClasses) -> tuple[Tensor, Tensor]:
    """The same from a score for each image and prompt (classes, then templates); templates are averaged."""
    score_NCT = scores.features.view(len(scores.rows), len(found.class_names), len(found.templates))
    return score_NCT.mean(dim=2), score_NCT[:, :, 0]


def result_of(
    found: EvaluationSet,
    rows: Sequence[int],
    unreadable: Sequence[Unreadable],
    whole_NC: Tensor,
    single_NC: Tensor,
    confidence: float,
    mentions: Mentions,
    learned: LearnedResult,
    reference: Reference | None = None,
) -> SetResult:
    """Every figure of one set, from the logits by all templates and by the first alone.

    `rows` are the numbers of the samples that the logits belong to, `mentions` is about the set's class names, `learned` is
    what its training split gave, `reference` what the paper says of it.
    """
    labels_N = torch.tensor([found.samples[row].label for row in rows], dtype=torch.long)
    whole, single = choose(whole_NC, labels_N), choose(single_NC, labels_N)
    right_N, right_single_N = whole.rank == 0, single.rank == 0
    classes, images = len(found.class_names), len(rows)
    images_C = labels_N.bincount(minlength=classes).tolist()
    correct_C = labels_N[right_N].bincount(minlength=classes).tolist()
    verdicts = _verdicts(found, rows, labels_N, whole)
    return SetResult(
        name=found.name,
        digest=found.digest,
        images=images,
        unreadable=list(unreadable),
        templates=list(found.templates),
        metric=found.metric,
        metric_share=measured(found.metric, whole_NC, labels_N, confidence),
        metric_chance=metric_chance(found.metric, classes),
        top1=share_of(int(right_N.sum()), images, confidence),
        top5=share_of(int((whole.rank < 5).sum()), images, confidence),
        mean_per_class=mean_of_classes(correct_C, images_C, confidence),
        chance_top1=1 / classes,
        chance_top5=min(5, classes) / classes,
        largest_class_share=max(images_C) / images,
        first_template_top1=share_of(int(right_single_N.sum()), images, confidence),
        mended_by_ensemble=int((right_N & ~right_single_N).sum()),
        broken_by_ensemble=int((~right_N & right_single_N).sum()),
        captions_read=mentions.captions_read,
        classes=[
            ClassResult(
                name=found.class_names[label],
                images=images_C[label],
                correct=correct_C[label],
                share=share_of(correct_C[label], images_C[label], confidence),
                captions_naming_it=mentions.captions_naming[label],
                words_occur=mentions.words_occur[label],
            )
            for label in range(classes)
        ],
        confusion=confusion(labels_N, whole.label, classes),
        origin=origin_of(found),
        reference=reference,
        successes=_most_confident([verdict for verdict in verdicts if verdict.label == verdict.predicted]),
        mistakes=_most_confident([verdict for verdict in verdicts if verdict.label != verdict.predicted]),
        certainty=certainty_bins(whole_NC, labels_N),
        learned=learned,
    )


def origin_of(found: NamedClasses) -> Origin:
    """What is known of a set beside its figures."""
    known = found.known
    return Origin(
        title=known.title if known else "",
        domain=known.domain if known else "",
        trap=known.trap if known else "",
        paper_images=known.test_images if known else None,
        stored_as=found.stored_as,
        class_names_from=found.names_source,
        prompts_from=found.templates_source,
    )


def confusion(labels_N: Tensor, predicted_N: Tensor, classes: int) -> list[tuple[int, int, int]]:
    """(label, predicted, images) of every pair that occurs."""
    counts = (labels_N * classes + predicted_N).bincount(minlength=classes * classes)
    return [(cell // classes, cell % classes, int(counts[cell])) for cell in counts.nonzero()[:, 0].tolist()]


def _verdicts(found: EvaluationSet, rows: Sequence[int], labels_N: Tensor, whole: Predictions) -> list[Verdict]:
    columns = zip(rows, labels_N.tolist(), whole.label.tolist(), whole.probability.tolist(), strict=True)
    return [
        Verdict(key=found.samples[row].key, label=label, predicted=predicted, probability=probability)
        for row, label, predicted, probability in columns
    ]


def _most_confident(verdicts: list[Verdict]) -> list[Verdict]:
    """The surest of each predicted class first, so that a gallery shows more than one class."""
    ordered = sorted(verdicts, key=lambda verdict: (-verdict.probability, verdict.key))
    turns: dict[int, int] = {}
    turn = []
    for verdict in ordered:
        turns[verdict.label] = turns.get(verdict.label, 0) + 1
        turn.append(turns[verdict.label])
    by_turn = sorted(range(len(ordered)), key=lambda index: (turn[index], index))
    return [ordered[index] for index in by_turn[:EXAMPLES]]
