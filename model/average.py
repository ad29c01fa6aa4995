"""An exponential moving average of the weights, which is smoother than the last of them (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Averages of all weights that learn, by name. Buffers, such as batch norm's statistics, are those of the last step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: weight.detach().clone() for name, weight in self._learning()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step` (from 0), the first ones with more weight than `decay` leaves them."""
        kept = min(self.decay, (1 + step) / (10 + step))
        for name, weight in self._learning():
            self.weights[name].lerp_(weight, 1 - kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averages for its weights."""
        last = {name: weight.detach().clone() for name, weight in self._learning()}
        self.load(self.weights)
        try:
            yield
        finally:
            self.load(last)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Give the model these weights."""
        for name, weight in self._learning():
            weight.copy_(weights[name])

    def _learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)
