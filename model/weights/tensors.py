"""A model's weights as they pass from one format to another: our names, which are those of the official checkpoints."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.clip import CLIP
from model.config import ClipConfig
from model.errors import InputError
from model.transformer import Attention

SHOWN = 3


@dataclass(frozen=True)
class Weights:
    """An architecture and its tensors, in fp32."""

    config: ClipConfig
    tensors: dict[str, Tensor]


def make_weights(source: Path, config: ClipConfig, tensors: dict[str, Tensor]) -> Weights:
    """The tensors in fp32. Raises InputError if they are not those of the architecture."""
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in CLIP(config).state_dict().items()}
    problems = [
        *(f"{name} is missing" for name in wanted if name not in tensors),
        *(f"{name} is unknown" for name in tensors if name not in wanted),
        *(
            f"{name} is {tuple(tensors[name].shape)}, not {tuple(shape)}"
            for name, shape in wanted.items()
            if name in tensors and tensors[name].shape != shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(
            f"{source}: not the weights of the CLIP model that it describes: {'; '.join(problems[:SHOWN])}{more}"
        )
    return Weights(
        config, {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a state dict that torch has saved. Raises InputError if it is neither."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; copy it there")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path}: damaged, or not safetensors ({error}); copy it again") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{path}: not a plain state dict ({str(error).splitlines()[0]}). If it is one of OpenAI's TorchScript archives, "
            f"which you trust, turn it into one: torch.save(torch.jit.load({path.name!r}, 'cpu').state_dict(), 'model.pt')"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InputError(
            f"{path}: not a plain state dict, names to tensors; save one with torch.save(model.state_dict())"
        )
    return found


def in_fp16(weights: Weights) -> dict[str, Tensor]:
    """The tensors as the official fp16 models have them: convolutions, linear layers and projections in fp16, the rest
    (norms, embeddings, temperature) in fp32.
    """
    with torch.device("meta"):
        model = CLIP(weights.config)
    half = {"text_projection", "visual.proj"}
    for module_name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | Attention):
            half |= {f"{module_name}.{name}" for name, _ in module.named_parameters(recurse=False)}
    return {name: tensor.half() if name in half else tensor for name, tensor in weights.tensors.items()}


def count(names: Iterable[str], prefix: str) -> int:
    """How many numbered modules there are right below `prefix`."""
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})
