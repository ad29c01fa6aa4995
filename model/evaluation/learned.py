"""What the labels of a set's training split add to zero-shot: linear probe, few-shot, neighbours, calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.config import EvaluateConfig
from model.evaluation.calibration import calibrate
from model.evaluation.embed import Embedder, Say
from model.evaluation.feature_cache import Embedded
from model.evaluation.knn import neighbour_votes
from model.evaluation.metrics import measured
from model.evaluation.probe import Labelled, carve, few_shot_probe, linear_probe
from model.evaluation.results import FewShotResult, LearnedResult, NeighboursResult, Unreadable
from model.evaluation.samples import LabelledImage, Split
from model.evaluation.sets import EvaluationSet
from model.evaluation.wanted import Wanted


@dataclass(frozen=True)
class _Part:
    """The readable images of a split: features before and after the projection, and names."""

    before: Labelled
    after: Labelled
    keys: list[str]

    @classmethod
    def of(cls, split: Split[LabelledImage], embedded: Embedded, device: torch.device) -> _Part:
        own = [split.samples[row] for row in embedded.rows]
        labels_N = torch.tensor([sample.label for sample in own], dtype=torch.long)
        return cls(
            Labelled(embedded.before.to(device), labels_N),
            Labelled(embedded.features.to(device), labels_N),
            [sample.key for sample in own],
        )

    def at(self, rows: list[int]) -> _Part:
        return _Part(self.before.at(rows), self.after.at(rows), [self.keys[row] for row in rows])


def measure_learned(
    found: EvaluationSet,
    tested: Embedded,
    zero_shot: Callable[[Tensor], Tensor] | None,
    embedder: Embedder,
    features: Path,
    config: EvaluateConfig,
    say: Say,
) -> tuple[LearnedResult, Tensor | None]:
    """Measure all of it on the test images `tested`; features are cached below `features`. With it come the probe's logits
    (N, C), None where it was skipped.

    Probes see the features before the projection (appendix A.2), neighbours those after it, where the model was taught
    what is alike. `zero_shot` makes logits (N, C) of such features, and its temperature is fitted too; None where texts are
    not judged by features.
    """
    if not config.probe:
        return LearnedResult(status="skipped", reason="the configuration says probe = false"), None
    if found.train is None:
        reason = "the set has no training split (train beside test, in the layout of the set)"
        return LearnedResult(status="skipped", reason=reason), None
    train, lost = _embed(found, "train", found.train, embedder, features, say)
    if found.val is None:
        train_rows, val_rows = carve(train.keys, train.after.labels_N, config.probe_val_share)
        train, val = train.at(train_rows), train.at(val_rows)
    else:
        val, lost_val = _embed(found, "val", found.val, embedder, features, say)
        lost += lost_val
    shown = len(set(train.after.labels_N.tolist()))
    if shown < 2 or not val.keys:
        reason = f"its training split shows {shown} class" if shown < 2 else "no class has two training images"
        return LearnedResult(status="skipped", reason=reason, unreadable=lost), None
    if found.metric == "roc_auc" and len(set(val.after.labels_N.tolist())) < 2:
        reason = "its validation images show one class, and roc_auc needs both"
        return LearnedResult(status="skipped", reason=reason, unreadable=lost), None
    test = _Part.of(found.test, tested, embedder.device)
    classes, labels_N = len(found.class_names), test.after.labels_N
    say(f"fitting the linear probe of {found.name}: {len(train.keys)} training, {len(val.keys)} validation images")
    probe, probe_NC = linear_probe(train.before, val.before, test.before, classes, found.metric, config.confidence)
    few_shot: list[FewShotResult] = []
    for examples in config.few_shot:
        say(f"fitting few-shot probes of {found.name}: {examples} of each class, {config.few_shot_seeds} times")
        few_shot.append(
            few_shot_probe(
                train.before,
                val.before,
                test.before,
                (train.keys, val.keys),
                classes,
                found.metric,
                examples,
                config.few_shot_seeds,
            )
        )
    known = train.after + val.after
    votes_NC = neighbour_votes(
        known.features_ND,
        known.labels_N.to(embedder.device),
        test.after.features_ND,
        classes,
        config.neighbours,
    ).cpu()
    result = LearnedResult(
        status="measured",
        is_val_carved=found.val is None,
        unreadable=lost,
        probe=probe,
        few_shot=few_shot,
        neighbours=NeighboursResult(
            neighbours=min(config.neighbours, len(known.labels_N)),
            metric=measured(found.metric, votes_NC, labels_N, config.confidence),
            top1=measured("accuracy", votes_NC, labels_N, config.confidence),
        ),
        zero_shot_calibration=None
        if zero_shot is None
        else calibrate(
            zero_shot(val.after.features_ND.cpu()), val.after.labels_N, zero_shot(tested.features), labels_N
        ),
    )
    return result, probe_NC


def _embed(
    found: EvaluationSet, name: str, split: Split[LabelledImage], embedder: Embedder, features: Path, say: Say
) -> tuple[_Part, list[Unreadable]]:
    embedded = Wanted.of_split(features, found.name, split, name).by(embedder, say)
    lost = [Unreadable(key=f"{name}/{each.key}", reason=each.reason) for each in embedded.unreadable]
    return _Part.of(split, embedded, embedder.device), lost
