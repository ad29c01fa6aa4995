"""Who is measured: the model of a run on its device, and which of the paper's models is the nearest to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import load_run
from model.evaluation.embed import Embedder
from model.evaluation.reference import PaperTower, image_gflop, nearest_tower
from model.objectives.objective import Objective


@dataclass(frozen=True)
class Subject:
    """A model; `name` is its run's, `kind` its objective's. `image_gflop` and `tower` only where a set is in the paper."""

    name: str
    kind: str
    objective: Objective
    embedder: Embedder
    image_gflop: float | None
    tower: PaperTower | None


def load_subject(run: Path, weights_sha256: str, batch: int, is_beside_the_paper: bool) -> Subject:
    """The model of a finished run, on the GPU if there is one. Raises InputError."""
    loaded = load_run(run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = loaded.objective.to(device)
    vision = loaded.config.model.vision
    embedder = Embedder(
        towers=objective,
        tokenizer=loaded.tokenizer,
        weights_sha256=weights_sha256,
        image_px=vision.image_px,
        device=device,
        batch=batch,
    )
    # Counted where it is asked for: only sets of the paper have figures of its models.
    gflop = image_gflop(objective, vision.image_px, device) if is_beside_the_paper else None
    tower = nearest_tower(vision.kind == "vit", gflop) if gflop is not None else None
    return Subject(loaded.config.name, loaded.config.objective.kind, objective, embedder, gflop, tower)
