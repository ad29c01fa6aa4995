"""What the paper printed for a set, and for which of its models: the figures that stand beside ours.

`known/paper.json` holds facts of the paper's tables and says where each is from. The nearest model is that of the same kind of
image tower (a ViT for a ViT, else a ResNet) whose forward pass for one image is the nearest to ours, as a ratio: the paper's
own axis (figures 9 and 10). Data and training are not compared, so this is a place on a scale, not a goal.
"""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import files
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.evaluation.registry import FOLDER, PACKAGE, KnownSet
from model.evaluation.results import Reference, RetrievalReference
from model.objectives.objective import Objective

RESNET50 = "ResNet-50 (ImageNet-1k, baseline)"
"""Of table 10: the classifier that figure 5 compares zero-shot with."""
Percents = dict[str, float]
"""By model."""


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PaperTower(_Fact):
    """One of the nine models; `recipe` is its name in model/paper.py."""

    name: str
    recipe: str
    image_gflop: float

    @property
    def is_vit(self) -> bool:
        return self.recipe.startswith("vit-")


class PaperSet(_Fact):
    """Figures of one set, in per cent. `flag` tells how near the same weights come when measured again."""

    flag: Literal["firm", "near", "loose"]
    zero_shot: Percents
    linear_probe: Percents
    measured_again: Percents
    examples_to_match_zero_shot: float | None = None


class PaperRetrieval(_Fact):
    """Recall in per cent by name (text_R@1): of ViT-L/14-336px in the paper, and of each model measured again."""

    paper: Percents
    measured_again: dict[str, Percents]


class Paper(_Fact):
    """The whole of it; `sources` says where each part is from."""

    models: list[PaperTower]
    sets: dict[str, PaperSet]
    retrieval: dict[str, PaperRetrieval]
    robustness: dict[str, dict[str, Percents]]
    zero_shot_minus_resnet50: Percents
    headline: Percents
    sources: dict[str, str]


@cache
def paper() -> Paper:
    """The paper's figures."""
    return Paper.model_validate(json.loads(files(PACKAGE).joinpath(FOLDER, "paper.json").read_text("utf-8")))


def image_gflop(objective: Objective, image_px: int, device: torch.device) -> float:
    """Two per product and sum of the image tower's forward pass for one image, in 1e9."""
    # Imported where it is needed: it takes as long as all the rest.
    from torch.utils.flop_counter import FlopCounterMode

    image_BCHW = torch.zeros(1, 3, image_px, image_px, device=device)
    # As plain products: torch does not count all kernels of attention.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        objective.encode_image_twice(image_BCHW)
    return float(counter.get_total_flops()) / 1e9


def nearest_tower(is_vit: bool, gflop: float) -> PaperTower:
    """The paper's model of this kind whose image tower does as much for an image; of equally near ones the smaller."""
    alike = sorted((tower for tower in paper().models if tower.is_vit == is_vit), key=lambda tower: tower.image_gflop)
    return min(alike, key=lambda tower: abs(math.log(tower.image_gflop / gflop)))


def reference_of(known: KnownSet | None, tower: PaperTower | None) -> Reference | None:
    """What stands beside the figures of a set, or None if the paper has none."""
    row = paper().sets.get(known.paper_row or "") if known is not None else None
    if known is None or row is None or tower is None:
        return None
    return Reference(
        row=known.paper_row or "",
        flag=row.flag,
        model=tower.name,
        zero_shot_percent=row.zero_shot.get(tower.name),
        measured_again_percent=row.measured_again.get(tower.name),
        probe_percent=row.linear_probe.get(tower.name),
        resnet50_probe_percent=row.linear_probe.get(RESNET50),
    )


def retrieval_reference_of(known: KnownSet | None, tower: PaperTower | None) -> RetrievalReference | None:
    """What stands beside the recalls of a set, or None if the paper has none."""
    row = paper().retrieval.get(known.paper_row or "") if known is not None else None
    if row is None or tower is None:
        return None
    return RetrievalReference(
        paper_percent=row.paper, model=tower.name, measured_again_percent=row.measured_again[tower.name]
    )
