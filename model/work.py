"""How much a device does of what it could: the arithmetic of a pair, the peak of a GPU, the memory in use."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.compiling import uncompiled
from model.config import Precision
from model.data import Batch
from model.objectives.objective import Inputs, Objective

FORWARD_AND_BACKWARD = 3
"""A backward pass takes two products for each one of the forward pass."""

PEAKS = {
    "NVIDIA B200": (2_250e12, 75e12),
    "NVIDIA H200": (989e12, 67e12),
    "NVIDIA H100 80GB HBM3": (989e12, 67e12),
    "NVIDIA H100 PCIe": (756e12, 51e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 19.5e12),
    "NVIDIA A100-SXM4-40GB": (312e12, 19.5e12),
    "NVIDIA A100 80GB PCIe": (312e12, 19.5e12),
    "NVIDIA A100-PCIE-40GB": (312e12, 19.5e12),
    "NVIDIA L40S": (362e12, 91.6e12),
    "NVIDIA L4": (121e12, 30.3e12),
    "Tesla V100-SXM2-16GB": (125e12, 15.7e12),
    "Tesla V100-SXM2-32GB": (125e12, 15.7e12),
    "Tesla T4": (65e12, 8.1e12),
}
"""FLOP/s of dense products by the name that torch gives a GPU: in half precision, in fp32. From NVIDIA's data sheets."""


def peak_flop_per_s(device: torch.device, precision: Precision) -> float | None:
    """What the device can do at most; None if this file does not know it, as for CPUs."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if name not in PEAKS:
        return None
    half, full = PEAKS[name]
    return full if precision == "fp32" else half


class Work:
    """The floating-point operations of a step, counted by torch for one pair of each length of texts."""

    def __init__(self, objective: Objective, in_any: Callable[[bool], bool] = bool) -> None:
        """`in_any`: whether it is true in any of the processes that a forward pass takes, as far as it takes several."""
        self.objective, self.in_any = objective, in_any
        self._of_length: dict[int, int] = {}

    def flop(self, batch: Batch, inputs_of: Callable[[Batch], Inputs]) -> int:
        """Of forward and backward pass of a share, without the loss; what is computed twice counts once."""
        pairs, length = batch.tokens_BL.shape
        if self.in_any(length not in self._of_length):
            device = next(self.objective.parameters()).device
            one = Inputs(*(part[:1] for part in inputs_of(batch)))
            self._of_length[length] = FORWARD_AND_BACKWARD * self._forward(one.to(device))
        return self._of_length[length] * pairs

    @torch.no_grad()
    def _forward(self, inputs: Inputs) -> int:
        from torch.utils.flop_counter import FlopCounterMode  # it imports Triton, and a run on a CPU never counts

        was_training = self.objective.training
        self.objective.eval()
        # As plain products: torch does not count all kernels of attention.
        with uncompiled(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.objective(inputs)
        self.objective.train(was_training)
        return int(counter.get_total_flops())


def peak_memory_gb(device: torch.device) -> float:
    """The most memory that this process had in use: of the GPU, or else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9
