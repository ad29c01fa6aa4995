"""From the configuration of an objective to the objective."""

from __future__ import annotations

from model.config import PretrainConfig
from model.objectives.contrastive import Contrastive
from model.objectives.objective import Objective


def build_objective(config: PretrainConfig) -> Objective:
    """The objective of a run, with its towers, freshly initialised."""
    return Contrastive(config)
