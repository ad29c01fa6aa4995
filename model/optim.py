"""The optimiser of the paper (section 2.5, table 18): AdamW, linear warm-up, cosine to zero."""

from __future__ import annotations

import math

import torch
from torch import nn

from model.config import TrainConfig

NORMS = (nn.LayerNorm, nn.BatchNorm2d)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of step `step` (from 0) of `steps`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on all weights that are not gains or biases."""
    decayed, exempt = split_parameters(model)
    groups = [
        {"params": list(decayed.values()), "weight_decay": config.weight_decay},
        {"params": list(exempt.values()), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_eps, fused=True
    )


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


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
