"""Mixed precision: what is computed in half precision, and the scale that keeps small gradients above fp16's zero."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.amp.grad_scaler import GradScaler

from model.config import Precision

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Where matrix products are in half precision; weights stay as they are."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, HALVES[precision])


def build_scaler(precision: Precision, device: torch.device) -> GradScaler:
    """Torch's scaler of losses for fp16; it leaves those of the others alone."""
    return GradScaler(device.type, enabled=precision == "fp16")
