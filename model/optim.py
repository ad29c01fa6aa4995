"""The optimiser of the paper (section 2.5, table 18): AdamW, linear warm-up, cosine to zero."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from model.clip import CLIP
from model.config import TrainConfig
from model.errors import InputError
from model.half_adam import HalfAdamW
from model.parts import cut

NORMS = (nn.LayerNorm, nn.BatchNorm2d)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of step `step` (from 0) of `steps`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with decoupled weight decay on all weights that are not gains or biases.

    Raises InputError if the text encoder's weights are to be fp16 and the model has no text encoder.
    """
    decayed, exempt = split_parameters(model)
    groups = [
        {"params": _learning(decayed), "weight_decay": config.weight_decay},
        {"params": _learning(exempt), "weight_decay": 0.0},
    ]
    rate, betas, eps = config.learning_rate, (config.adam_beta1, config.adam_beta2), config.adam_eps
    if config.adam_statistics == config.text_weights == "fp32":
        return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=eps, fused=True)
    half_weights = [] if config.text_weights == "fp32" else text_weights(model)
    return HalfAdamW(groups, rate, betas, eps, config.seed, config.adam_statistics == "fp16", half_weights)


def _learning(weights: dict[str, nn.Parameter]) -> list[nn.Parameter]:
    return [weight for weight in weights.values() if weight.requires_grad]


def text_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of a model's text encoder that are not gains or biases. Raises InputError if it has none."""
    decayed, _ = split_parameters(model)
    of_text = {id(weight) for part in model.modules() if isinstance(part, CLIP) for weight in part.text_parameters()}
    found = [weight for weight in decayed.values() if id(weight) in of_text]
    if not found:
        raise InputError(
            "train.text_weights is fp16_stochastic, but this objective has no text encoder; set it to fp32 "
            "(--train.text-weights fp32)"
        )
    return found


def split_parameters(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Parameters by name: those that decay; gains (of norms, and the logit scale) and biases, which do not.

    Embeddings of classes, positions and tokens are weights: they decay.
    """
    gains = {
        f"{module_name}.{name}"
        for module_name, module in model.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
    decayed: dict[str, nn.Parameter] = {}
    exempt: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        is_exempt = name in gains or name.endswith(("bias", "logit_scale"))
        (exempt if is_exempt else decayed)[name] = parameter
    return decayed, exempt


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser a state that was saved whole, of weights in any layout of memory; where a process holds a part of a
    weight, it takes that part of it.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    of_weights = {
        number: {name: _like(weights[number], value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": of_weights})


def _like(weight: Tensor, value: Any) -> Any:
    if not isinstance(value, Tensor) or value.shape != weight.shape:
        return value
    # The fused kernel goes through the memory of both side by side.
    return torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(cut(value, weight))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
