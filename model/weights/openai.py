"""OpenAI's format: one file with a state dict. The architecture is read from the shapes, as the official code does."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from model.config import ClipConfig, ResNetConfig, TextConfig, VitConfig
from model.errors import InputError
from model.weights.tensors import Weights, count, make_weights, read_tensors

FILE = "model.pt"
HEAD_WIDTH = 64  # of every transformer and attention pool; the format does not hold it
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # in the official archives


def read(path: Path) -> Weights:
    """Read a state dict. Raises InputError if it is not CLIP's."""
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if name not in NOT_WEIGHTS}
    try:
        config = ClipConfig(
            embed_dim=tensors["text_projection"].shape[1],
            vision=_vit(tensors) if "visual.proj" in tensors else _resnet(tensors),
            text=TextConfig(
                context_length=tensors["positional_embedding"].shape[0],
                vocab_size=tensors["token_embedding.weight"].shape[0],
                width=tensors["ln_final.weight"].shape[0],
                layers=count(tensors, "transformer.resblocks."),
                heads=tensors["ln_final.weight"].shape[0] // HEAD_WIDTH,
            ),
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not a CLIP model in OpenAI's format ({error})") from error
    return make_weights(path, config, tensors)


def _vit(tensors: dict[str, Tensor]) -> VitConfig:
    width, patch_px = tensors["visual.conv1.weight"].shape[0], tensors["visual.conv1.weight"].shape[-1]
    grid = round((len(tensors["visual.positional_embedding"]) - 1) ** 0.5)
    return VitConfig(
        image_px=grid * patch_px,
        patch_px=patch_px,
        width=width,
        layers=count(tensors, "visual.transformer.resblocks."),
        heads=width // HEAD_WIDTH,
    )


def _resnet(tensors: dict[str, Tensor]) -> ResNetConfig:
    width = tensors["visual.layer1.0.conv1.weight"].shape[0]
    grid = round((len(tensors["visual.attnpool.positional_embedding"]) - 1) ** 0.5)
    first, second, third, fourth = (count(tensors, f"visual.layer{stage}.") for stage in (1, 2, 3, 4))
    return ResNetConfig(
        image_px=grid * 32, width=width, blocks=(first, second, third, fourth), heads=32 * width // HEAD_WIDTH
    )


def write(folder: Path, weights: Weights, tensors: dict[str, Tensor]) -> None:
    """Write FOLDER/model.pt. Raises InputError for what the format cannot say."""
    config = weights.config
    if config.activation != "quick_gelu":
        raise InputError("OpenAI's format means QuickGELU, this model has GELU; choose --format open_clip")
    for what, width, heads in heads_of(config):
        if heads * HEAD_WIDTH != width:
            raise InputError(
                f"OpenAI's format means heads of {HEAD_WIDTH} channels, {what} has {width // heads}; choose --format open_clip"
            )
    torch.save(tensors, folder / FILE)


def heads_of(config: ClipConfig) -> list[tuple[str, int, int]]:
    """What has attention, its channels and its heads. Raises InputError for a tower of torchvision."""
    text = ("the text transformer", config.text.width, config.text.heads)
    if isinstance(config.vision, VitConfig):
        return [text, ("the vision transformer", config.vision.width, config.vision.heads)]
    if isinstance(config.vision, ResNetConfig):
        return [text, ("the attention pool", 32 * config.vision.width, config.vision.heads)]
    raise InputError(f"{config.vision.name} of torchvision has a place in ONNX only; choose --format onnx")
