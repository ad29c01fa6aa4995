"""A labelled set, measured: zero-shot, with its labels, by group, and what it adds to the figures across sets.

Axes: N images, C classes, E further classes, T templates, D dimensions of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from model.errors import InputError
from model.evaluation.embed import Say, check_readable
from model.evaluation.fairness import Fairness, fairness_of
from model.evaluation.feature_cache import Embedded
from model.evaluation.intervals import Share
from model.evaluation.learned import measure_learned
from model.evaluation.mentions import count_mentions
from model.evaluation.metrics import metric_chance
from model.evaluation.multilabel_results import MultilabelResult
from model.evaluation.overlap import Overlap, overlap_of
from model.evaluation.prepare import Evaluation
from model.evaluation.prompts import prompt_features, prompts_of, warn_of_equal_classes
from model.evaluation.reference import reference_of
from model.evaluation.results import ProbedSet, RetrievalResult, SetResult
from model.evaluation.robustness import (
    Shift,
    accuracy_among,
    classes_of,
    is_imagenet,
    same_classes,
    shift_of,
    variants_of_imagenet,
)
from model.evaluation.sets import EvaluationSet
from model.evaluation.shards import training_captions
from model.evaluation.subject import Subject
from model.evaluation.wanted import Wanted
from model.evaluation.zero_shot import (
    choose,
    class_vectors,
    ensemble_logits,
    ensemble_scores,
    logits,
    origin_of,
    result_of,
)

AnyResult = SetResult | ProbedSet | MultilabelResult | RetrievalResult


@dataclass(frozen=True)
class MeasuredSet:
    """What was found of one name: its own figures, and what it adds to those across sets.

    `among` is the accuracy among the classes that it shares with ImageNet, by set; `overlap` is None where the data set was
    compared with no set, `fairness` where the set asks for no rates by group.
    """

    result: AnyResult
    among: dict[str, Share] = field(default_factory=dict)
    overlap: Overlap | None = None
    fairness: Fairness | None = None


def measure_set(found: EvaluationSet, evaluation: Evaluation, subject: Subject, say: Say) -> MeasuredSet:
    """Measure a labelled set. Raises InputError if it cannot be measured."""
    config, features = evaluation.config, evaluation.features
    embedder, objective = subject.embedder, subject.objective
    embedded = Wanted.of_split(features, found.name, found.test).by(embedder, say)
    if found.metric == "roc_auc" and len({found.samples[row].label for row in embedded.rows}) < 2:
        raise InputError(
            f"{found.name}: the images that can be read show one class, and roc_auc needs both; copy the set again or write "
            "another metric into metric.txt"
        )
    learn = partial(measure_learned, found, embedded, embedder=embedder, features=features, config=config, say=say)
    reference = reference_of(found.known, subject.tower)
    if objective.zero_shot == "none":
        learned, probe_NC = learn(zero_shot=None)
        return MeasuredSet(
            ProbedSet(
                name=found.name,
                digest=found.digest,
                images=len(embedded.rows),
                classes=len(found.class_names),
                unreadable=embedded.unreadable,
                metric=found.metric,
                metric_chance=metric_chance(found.metric, len(found.class_names)),
                origin=origin_of(found),
                reference=reference,
                learned=learned,
            ),
            fairness=_fairness(found, embedded, None, None, probe_NC, config.confidence),
        )
    warn_of_equal_classes(found, embedder, say)
    mentions = count_mentions(found.class_names, training_captions(evaluation.shards))
    judged = embedded
    if objective.zero_shot == "scores":
        images = [(sample.key, sample.image) for sample in found.samples]
        judged = embedder.scores(objective.score_texts, found.name, images, prompts_of(found), say)
        check_readable(found.name, judged.unreadable, len(images))
        learned, probe_NC = learn(zero_shot=None)
        whole_NC, single_NC = ensemble_scores(judged, found)
    else:
        prompts_CTD = prompt_features(embedder, found)
        classes_CD = class_vectors(prompts_CTD)
        learned, probe_NC = learn(zero_shot=partial(logits, classes_CD=classes_CD, scale=objective.scale))
        whole_NC, single_NC = ensemble_logits(embedded.features, prompts_CTD, objective.scale)
    result = result_of(
        found,
        judged.rows,
        judged.unreadable,
        whole_NC,
        single_NC,
        config.confidence,
        mentions,
        learned,
        reference,
    )
    extra_NE = _extra_logits(found, judged, subject, say)
    compared = evaluation.compared
    return MeasuredSet(
        result,
        _among(found, evaluation.sets.labelled, judged, whole_NC, config.confidence),
        _overlap(found, judged, whole_NC, compared, config.confidence) if compared else None,
        _fairness(found, judged, whole_NC, extra_NE, probe_NC, config.confidence),
    )


def _labels(found: EvaluationSet, judged: Embedded) -> Tensor:
    return torch.tensor([found.samples[row].label for row in judged.rows], dtype=torch.long)


def _among(
    found: EvaluationSet, sets: Sequence[EvaluationSet], judged: Embedded, whole_NC: Tensor, confidence: float
) -> dict[str, Share]:
    """Of ImageNet, its accuracy among the classes of each variant; of a variant, that among its own, under its name."""
    variants = variants_of_imagenet(sets)
    labels_N = _labels(found, judged)
    if is_imagenet(found):
        shared = {variant.name: same_classes(variant, found) for variant in variants}
        return {
            name: accuracy_among(found, whole_NC, labels_N, names, confidence)
            for name, names in shared.items()
            if names
        }
    if any(variant.name == found.name for variant in variants):
        return {found.name: accuracy_among(found, whole_NC, labels_N, classes_of(found), confidence)}
    return {}


def _overlap(
    found: EvaluationSet, judged: Embedded, whole_NC: Tensor, compared: dict[str, set[str]], confidence: float
) -> Overlap:
    right_N = choose(whole_NC, _labels(found, judged)).rank == 0
    return overlap_of(found, [found.samples[row].key for row in judged.rows], right_N.tolist(), compared, confidence)


def _extra_logits(found: EvaluationSet, judged: Embedded, subject: Subject, say: Say) -> Tensor | None:
    """Zero-shot logits (N, E) of the classes that a fairness probe adds; None if it adds none."""
    if found.groups is None or not found.groups.extra_classes:
        return None
    embedder, objective = subject.embedder, subject.objective
    extra = replace(found, class_names=found.groups.extra_classes)
    if objective.zero_shot == "features":
        return logits(judged.features, class_vectors(prompt_features(embedder, extra)), objective.scale)
    images = [(found.samples[row].key, found.samples[row].image) for row in judged.rows]
    scores = embedder.scores(objective.score_texts, found.name, images, prompts_of(extra), say)
    return ensemble_scores(scores, extra)[0]


def _fairness(
    found: EvaluationSet,
    judged: Embedded,
    whole_NC: Tensor | None,
    extra_NE: Tensor | None,
    probe_NC: Tensor | None,
    confidence: float,
) -> Fairness | None:
    """The rates by group, of a set that asks for them."""
    if found.groups is None:
        return None
    labels_N = _labels(found, judged)
    return fairness_of(found.name, found.groups, judged.rows, labels_N, whole_NC, extra_NE, probe_NC, confidence)


def shifts_of(sets: Sequence[EvaluationSet], measured: Mapping[str, MeasuredSet]) -> list[Shift]:
    """The line of each variant of ImageNet that was measured, by name; beside ImageNet's, if that was too."""
    imagenet = next((measured[found.name] for found in sets if is_imagenet(found) and found.name in measured), None)
    whole = imagenet.result if imagenet is not None and isinstance(imagenet.result, SetResult) else None
    shifts = []
    for variant in variants_of_imagenet(sets):
        own = measured.get(variant.name)
        if own is not None and isinstance(own.result, SetResult):
            among = imagenet.among.get(variant.name) if imagenet else None
            shifts.append(shift_of(variant, own.among[variant.name], whole, among))
    return shifts
