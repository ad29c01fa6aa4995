"""What a run is judged by while it trains: checked before its first step.

All processes read the same and find the same errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.config import PretrainConfig
from model.data import Dataset
from model.errors import InputError
from model.objectives.objective import Objective

if TYPE_CHECKING:
    from model.evaluation.sets import EvaluationSet


def require_judged(config: PretrainConfig, dataset: Dataset, objective: Objective) -> None:
    """Raise InputError if the best weights are to be kept, but nothing tells which are."""
    keep_best = config.train.keep_best
    if keep_best == "none":
        return
    if not len(dataset.val) or not config.train.validation_samples:
        raise InputError(
            f"train.keep_best is {keep_best}, but nothing is validated; build the data set with shards.val_share above 0 and "
            "set train.validation_samples above 0, or leave it at none"
        )
    if keep_best != "loss" and objective.zero_shot != "features":
        raise InputError(
            f"train.keep_best is {keep_best}, which the objective {config.objective.kind} does not have; set it to loss"
        )


def evaluation_sets_of(config: PretrainConfig, objective: Objective) -> list[EvaluationSet]:
    """The sets of train.evaluation_sets. Raises InputError if one of them cannot be read."""
    paths = config.train.evaluation_sets
    if not paths:
        return []
    if objective.zero_shot == "none":
        raise InputError(
            f"train.evaluation_sets has {paths[0]}, but the objective {config.objective.kind} learns no match of an image and "
            "a text; leave it empty"
        )
    from model.evaluation.locate import read_sets  # it imports scipy, which takes a second

    sets = read_sets(paths)
    # Nobody looks into the log of a run of days for what was skipped at its start.
    if sets.skipped:
        raise InputError(f"train.evaluation_sets: {sets.skipped[0].reason}")
    if sets.captioned:
        raise InputError(
            f"train.evaluation_sets has {sets.captioned[0].name}, a set of captions; give it to wit evaluate instead, here only "
            "sets with labels are measured"
        )
    if sets.multilabel:
        raise InputError(
            f"train.evaluation_sets has {sets.multilabel[0].name}, whose images have several labels; give it to wit evaluate "
            "instead, here only sets with one label an image are measured"
        )
    return sets.labelled
