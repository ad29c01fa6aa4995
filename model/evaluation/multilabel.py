"""A set whose images show several classes: zero-shot and a linear probe of each class, in mean average precision.

Axes: N images, C classes, T templates, D dimensions of the shared space.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from model.errors import InputError
from model.evaluation.embed import Say
from model.evaluation.feature_cache import Embedded
from model.evaluation.intervals import Share
from model.evaluation.measure_sets import MeasuredSet
from model.evaluation.multilabel_metrics import (
    IGNORED,
    average_precisions,
    mean_average_precision,
    mean_average_precision_share,
    mean_prevalence,
    relevance_of,
)
from model.evaluation.multilabel_results import (
    MultilabelClass,
    MultilabelLearned,
    MultilabelResult,
    OneVsRestResult,
)
from model.evaluation.multilabel_samples import MultilabelImage
from model.evaluation.multilabel_sets import MultilabelSet
from model.evaluation.one_vs_rest import OneVsRest
from model.evaluation.overlap import not_split
from model.evaluation.prepare import Evaluation
from model.evaluation.probe import carve, search
from model.evaluation.prompts import prompt_features, prompts_of, warn_of_equal_classes
from model.evaluation.reference import reference_of
from model.evaluation.results import Unreadable
from model.evaluation.samples import Split
from model.evaluation.subject import Subject
from model.evaluation.wanted import Wanted
from model.evaluation.zero_shot import class_vectors, ensemble_scores, logits, origin_of

AveragePrecisions = list[float | None]


@dataclass(frozen=True)
class _Marked:
    """Features (N, D) before the projection, on the device that computes, and relevance (N, C) on the CPU."""

    features_ND: Tensor
    relevance_NC: Tensor

    @classmethod
    def of(cls, split: Split[MultilabelImage], embedded: Embedded, classes: int, device: torch.device) -> _Marked:
        shown = [split.samples[row] for row in embedded.rows]
        return cls(embedded.before.to(device), relevance_of(shown, classes))

    def __add__(self, other: _Marked) -> _Marked:
        features_ND = torch.cat([self.features_ND, other.features_ND])
        return _Marked(features_ND, torch.cat([self.relevance_NC, other.relevance_NC]))

    def at(self, rows: list[int]) -> _Marked:
        return _Marked(self.features_ND[rows], self.relevance_NC[rows])


def measure_multilabel_set(found: MultilabelSet, evaluation: Evaluation, subject: Subject, say: Say) -> MeasuredSet:
    """Measure a set whose images have several labels. Raises InputError if it cannot be measured."""
    config, classes = evaluation.config, len(found.class_names)
    embedded = Wanted.of_split(evaluation.features, found.name, found.test).by(subject.embedder, say)
    test = _Marked.of(found.test, embedded, classes, subject.embedder.device)
    shown_C = (test.relevance_NC == 1).sum(dim=0).tolist()
    if not any(shown_C):
        raise InputError(f"{found.name}: no image that is measured shows any of its classes; label some")
    share: Share | None = None
    by_class: AveragePrecisions = [None] * classes
    if subject.objective.zero_shot != "none":
        likelihood_NC = _likelihood(found, embedded, subject, say)
        share = mean_average_precision_share(likelihood_NC, test.relevance_NC, config.confidence)
        by_class = average_precisions(likelihood_NC, test.relevance_NC)
    learned, learned_by_class = _learn(found, test, evaluation, subject, say)
    ignored_C = (test.relevance_NC == IGNORED).sum(dim=0).tolist()
    result = MultilabelResult(
        name=found.name,
        digest=found.digest,
        images=len(embedded.rows),
        unreadable=embedded.unreadable,
        templates=list(found.templates),
        metric_share=share,
        metric_chance=mean_prevalence(test.relevance_NC),
        classes=[
            MultilabelClass(
                name=name,
                images=images,
                ignored=ignored,
                average_precision=average,
                probe_average_precision=learned_average,
            )
            for name, images, ignored, average, learned_average in zip(
                found.class_names, shown_C, ignored_C, by_class, learned_by_class, strict=True
            )
        ],
        origin=origin_of(found),
        reference=reference_of(found.known, subject.tower),
        learned=learned,
    )
    return MeasuredSet(result, overlap=not_split(found.name) if evaluation.compared else None)


def _likelihood(found: MultilabelSet, embedded: Embedded, subject: Subject, say: Say) -> Tensor:
    """Logarithms of probabilities (N, C). Images are ranked by these: logits are not comparable from image to image."""
    embedder, objective = subject.embedder, subject.objective
    warn_of_equal_classes(found, embedder, say)
    if objective.zero_shot == "scores":
        images = [(found.samples[row].key, found.samples[row].image) for row in embedded.rows]
        judged = embedder.scores(objective.score_texts, found.name, images, prompts_of(found), say)
        assert not judged.unreadable, f"{found.name}: images that were read a moment ago cannot be read"
        whole_NC, _ = ensemble_scores(judged, found)
    else:
        whole_NC = logits(embedded.features, class_vectors(prompt_features(embedder, found)), objective.scale)
    return whole_NC.double().log_softmax(dim=1)


def _learn(
    found: MultilabelSet, test: _Marked, evaluation: Evaluation, subject: Subject, say: Say
) -> tuple[MultilabelLearned, AveragePrecisions]:
    """The probe, and its average precision in each class."""
    config = evaluation.config
    nothing: AveragePrecisions = [None] * len(found.class_names)
    if not config.probe or found.train is None:
        reason = "the set has no training split" if config.probe else "the configuration says probe = false"
        return MultilabelLearned(status="skipped", reason=reason), nothing
    embed = partial(_embed, found, evaluation=evaluation, subject=subject, say=say)
    train, keys, lost = embed("train", found.train)
    if found.val is None:
        # As one class: an image has several, so none of them can be held out alone.
        train_rows, val_rows = carve(keys, torch.zeros(len(keys), dtype=torch.long), config.probe_val_share)
        train, val = train.at(train_rows), train.at(val_rows)
    else:
        val, _, lost_val = embed("val", found.val)
        lost += lost_val
    reason = _why_not(train, val)
    if reason:
        return MultilabelLearned(status="skipped", reason=reason, unreadable=tuple(lost)), nothing
    say(
        f"fitting the linear probes of {found.name}: {len(train.features_ND)} training, {len(val.features_ND)} validation images"
    )
    chosen = search(
        OneVsRest.of(train.features_ND, train.relevance_NC),
        val.features_ND,
        partial(mean_average_precision, relevance_NC=val.relevance_NC),
    )
    both = train + val
    fits = OneVsRest.of(both.features_ND, both.relevance_NC).fit([chosen.chosen.penalty])
    scores_NC = fits.logits(0, test.features_ND).cpu()
    probe = OneVsRestResult(
        train_images=len(train.features_ND),
        val_images=len(val.features_ND),
        dimensions=train.features_ND.shape[1],
        penalty=chosen.chosen.penalty,
        iterations=fits.iterations[0],
        is_converged=fits.is_converged[0],
        sweep=chosen.sweep,
        metric=mean_average_precision_share(scores_NC, test.relevance_NC, config.confidence),
    )
    learned = MultilabelLearned(status="measured", is_val_carved=found.val is None, unreadable=tuple(lost), probe=probe)
    return learned, average_precisions(scores_NC, test.relevance_NC)


def _why_not(train: _Marked, val: _Marked) -> str:
    shown_NC, other_NC = train.relevance_NC == 1, train.relevance_NC == 0
    if not (shown_NC.any(dim=0) & other_NC.any(dim=0)).any():
        return "in its training split no class is shown by some images and not by others"
    return "" if (val.relevance_NC == 1).any() else "no validation image shows a class"


def _embed(
    found: MultilabelSet, name: str, split: Split[MultilabelImage], evaluation: Evaluation, subject: Subject, say: Say
) -> tuple[_Marked, list[str], list[Unreadable]]:
    embedded = Wanted.of_split(evaluation.features, found.name, split, name).by(subject.embedder, say)
    lost = [Unreadable(key=f"{name}/{each.key}", reason=each.reason) for each in embedded.unreadable]
    marked = _Marked.of(split, embedded, len(found.class_names), subject.embedder.device)
    return marked, [split.samples[row].key for row in embedded.rows], lost
