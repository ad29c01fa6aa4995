"""Both towers as ONNX, for any number of images or texts at once: image.onnx, text.onnx, tokenizer.json, model.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from model.checkpoint import TOKENIZER, Run
from model.data.images import MEAN_RGB, STD_RGB
from model.errors import InputError
from model.tokenizer import PAD_ID

ABOUT = "model.json"
TRACED_BATCH = 2


class Tower(nn.Module):
    """One side of the model as a module."""

    def __init__(self, model: nn.Module, encode: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.encode = encode

    def forward(self, batch: Tensor) -> Tensor:
        return self.encode(batch)


def write(folder: Path, run: Run) -> None:
    """Write the towers, in fp32: features (B, D), not normalised. Raises InputError without the extra `export`."""
    model, config = run.model.requires_grad_(False), run.config.model
    side, length = config.vision.image_px, config.text.context_length
    image_BCHW = torch.zeros(TRACED_BATCH, 3, side, side)
    tokens_BL = torch.full((TRACED_BATCH, length), run.tokenizer.end_id)
    for name, encode, batch in (
        ("image", model.encode_image, image_BCHW),
        ("text", model.encode_text, tokens_BL),
    ):
        try:
            torch.onnx.export(
                Tower(model, encode).eval(),
                (batch,),
                folder / f"{name}.onnx",
                input_names=["pixels" if name == "image" else "tokens"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
        except ModuleNotFoundError as error:
            raise InputError(f"{error.name} is not installed; install this project with its extra: export") from error
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
