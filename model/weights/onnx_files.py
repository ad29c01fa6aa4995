"""Both towers as ONNX, for any number of images or texts at once: image.onnx, text.onnx, tokenizer.json, model.json."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from model.checkpoint import TOKENIZER, Run
from model.clip import CLIP
from model.data.images import MEAN_RGB, STD_RGB
from model.errors import InputError
from model.tokenizer import PAD_ID

ABOUT = "model.json"
TRACED_BATCH = 2


class TextTower(nn.Module):
    """The text side of a model, as a module of its own."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Features (B, D), not normalised."""
        return self.model.encode_text(tokens_BL)


def write(folder: Path, run: Run) -> None:
    """Write the towers, in fp32: features (B, D), not normalised. Raises InputError without the extra `export`."""
    model, config = run.model, run.config.model
    side, length = config.vision.image_px, config.text.context_length
    write_tower(folder / "image.onnx", model.visual, "pixels", torch.zeros(TRACED_BATCH, 3, side, side))
    tokens_BL = torch.full((TRACED_BATCH, length), run.tokenizer.end_id)
    write_tower(folder / "text.onnx", TextTower(model), "tokens", tokens_BL)
    about = {
        "pixels": {
            "shape": ["batch", 3, side, side],
            "mean": MEAN_RGB,
            "std": STD_RGB,
            "resize": "short side, bicubic",
        },
        "tokens": {"shape": ["batch", length], "pad": PAD_ID, "end": run.tokenizer.end_id},
        "features": {"shape": ["batch", config.embed_dim], "scale": model.logit_scale.exp().item()},
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
    (folder / TOKENIZER).write_text(run.tokenizer.to_json(), encoding="utf-8")


def write_tower(path: Path, tower: nn.Module, takes: str, batch: Tensor) -> None:
    """Write a module of one input, named `takes`, whose first axis may have any length."""
    try:
        torch.onnx.export(
            tower.eval().requires_grad_(False),  # with gradients it is traced forth and back
            (batch,),
            path,
            input_names=[takes],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; install this project with its extra: export") from error
