"""AdamW with statistics and weights in half precision (section 2.5 of the paper, after Dhariwal et al. 2020, arXiv:2005.00341).

The paper names the technique and gives no details; these are ours. The first moment is rounded to the nearest number. Of the
second its square root is kept, which has half the range, rounded stochastically: its change in a step may be less than
half a unit in the last place, and would be lost to the nearest. Each tensor has a scale of its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

from model.parts import cut, largest, own

HALF_MAX = torch.finfo(torch.float16).max
LARGEST_KEPT = 2.0**15  # what the largest entry of a statistic becomes in fp16; the smallest is 2 ** -24
RANDOM_BITS = 13  # by how many fp32 has more than fp16


class HalfAdamW(torch.optim.Optimizer):
    """Decoupled weight decay as torch.optim.AdamW's.

    `half_statistics` keeps both moments in fp16. The weights in `half_weights` are numbers of fp16 after every step, rounded
    stochastically from fp32 without a copy that remembers the rest; their tensors stay fp32, as autocast wants them.
    Rounding is keyed by (seed, step, parameter), so it is the same in all processes and after a resume, also where each process
    holds a part of a parameter (model/parts.py).
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        seed: int,
        half_statistics: bool,
        half_weights: Iterable[nn.Parameter] = (),
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.seed, self.half_statistics = seed, half_statistics
        self.half_weights = {id(weight) for weight in half_weights}

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; there is no use for a closure."""
        number = 0
        for group in self.param_groups:
            for weight in group["params"]:
                number += 1
                if weight.grad is not None:
                    self._update(weight, weight.grad, group, number)
        return None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does, which makes all states fp32."""
        super().load_state_dict(state_dict)
        if self.half_statistics:
            for state in self.state.values():
                for name in ("first", "second_root"):
                    state[name] = state[name].half()

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any], number: int) -> None:
        (beta1, beta2), rate, state = group["betas"], group["lr"], self.state[weight]
        if not state:
            kept = torch.zeros_like(weight, dtype=torch.float16 if self.half_statistics else torch.float32)
            state.update(step=0, first=kept, second_root=kept.clone())
            state.update({f"{name}_scale": torch.ones((), device=weight.device) for name in ("first", "second_root")})
        state["step"] += 1
        step: int = state["step"]
        exact, gradient = own(weight), own(gradient)
        first = (own(state["first"]).float() * state["first_scale"]).lerp_(gradient, 1 - beta1)
        second = (own(state["second_root"]).float() * state["second_root_scale"]).square_().mul_(beta2)
        root = second.addcmul_(gradient, gradient, value=1 - beta2).sqrt_()
        exact.mul_(1 - rate * group["weight_decay"])
        divisor = (root / math.sqrt(1 - beta2**step)).add_(group["eps"])
        exact.addcdiv_(first, divisor, value=-rate / (1 - beta1**step))
        if id(weight) in self.half_weights:
            exact.copy_(_rounded(exact, self._draw("weight", step, number, weight)))
        if self.half_statistics:
            scale_2 = largest(torch.stack([_most(first), _most(root)]), weight) / LARGEST_KEPT
            state["first_scale"], state["second_root_scale"] = scale_2.clamp_(min=torch.finfo(torch.float32).tiny)
            first, root = first / state["first_scale"], root / state["second_root_scale"]
            root = _rounded(root, self._draw("statistic", step, number, weight))
        own(state["first"]).copy_(first)
        own(state["second_root"]).copy_(root)

    def _draw(self, what: str, step: int, number: int, weight: Tensor) -> Tensor:
        key = hashlib.blake2b(repr((what, self.seed, step, number)).encode(), digest_size=8).digest()
        random = torch.Generator(weight.device).manual_seed(int.from_bytes(key, "little", signed=True))
        return own(cut(_drawn(weight, random), weight))


def _most(statistic: Tensor) -> Tensor:
    return statistic.abs().amax() if statistic.numel() else statistic.new_zeros(())


def round_stochastically(exact: Tensor, random: torch.Generator) -> Tensor:
    """Each number (fp32) to one of its two neighbours in fp16, to the nearer one more often: the mean is the number itself.

    Exactly so for fp16's normal numbers; among those below 2 ** -14 to 2 ** -13 of their distance. What is beyond fp16
    becomes its largest. The result is fp32.
    """
    return _rounded(exact, _drawn(exact, random))


def _drawn(like: Tensor, random: torch.Generator) -> Tensor:
    return torch.randint(1 << RANDOM_BITS, like.shape, generator=random, device=like.device)


def _rounded(exact: Tensor, draw: Tensor) -> Tensor:
    exponent = torch.frexp(exact).exponent.clamp_(min=-13) - 11  # of the distance between neighbours
    units = torch.ldexp(exact, -exponent).add_(draw.float() / (1 << RANDOM_BITS)).floor_()
    return torch.ldexp(units, exponent).clamp_(-HALF_MAX, HALF_MAX)
