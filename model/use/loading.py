"""A model ready to be asked: of a run of ours, or of a folder in the format of open_clip, Hugging Face or OpenAI."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import CONFIG, DONE, load_run
from model.clip import CLIP
from model.errors import InputError
from model.evaluation.embed import Embedder
from model.weights.folders import read_weights
from model.weights.tensors import Weights

BATCH = 64
"""Images looked at together. Answers come so many at a time; a larger batch is hardly faster."""


@dataclass(frozen=True)
class Loaded:
    """A model on its device, and the factor between its cosines and its logits."""

    name: str
    embedder: Embedder
    scale: float


def load_model(path: Path) -> Loaded:
    """The model at `path`, on a GPU if there is one. Raises InputError if it is none, or cannot judge texts by features."""
    if not path.exists():
        raise InputError(f"{path}: no such run or folder; name a run, or a folder with a model in it")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if _is_run(path):
        run = load_run(path)
        objective = run.objective.to(device)
        if objective.zero_shot != "features":
            raise InputError(
                f"{path}: a run of the objective {run.config.objective.kind}, which has no features of texts to compare images "
                "with; name a run of contrastive, bag_of_words_contrastive, convirt or sigmoid"
            )
        image_px = run.config.model.vision.image_px
        embedder = Embedder(objective, run.tokenizer, run.model_sha256, image_px, device, BATCH)
        return Loaded(run.config.name, embedder, objective.scale)
    weights, tokenizer = read_weights(path)
    model = CLIP(weights.config)
    model.load_state_dict(weights.tensors)
    model.eval().to(device)
    embedder = Embedder(model, tokenizer, _sha256(weights), weights.config.vision.image_px, device, BATCH)
    return Loaded(path.name, embedder, model.logit_scale.exp().item())


def _is_run(path: Path) -> bool:
    """Hugging Face's folders have a config.json and a tokenizer.json as well."""
    return (path / CONFIG).is_file() and ((path / DONE).is_file() or (path / "checkpoints").is_dir())


def _sha256(weights: Weights) -> str:
    """Of names, shapes and values, whatever file they came in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
