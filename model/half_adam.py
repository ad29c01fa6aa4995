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

HALF_MAX = torch.finfo(torch.float16).max
LARGEST_KEPT = 2.0**15  # what the largest entry of a statistic becomes in fp16; the smallest is 2 ** -24
RANDOM_BITS = 13  # by how many fp32 has more than fp16


class HalfAdamW(torch.optim.Optimizer):
    """Decoupled weight decay as torch.optim.AdamW's.

    `half_statistics` keeps both moments in fp16. The weights in `half_weights` are numbers of fp16 after every step, rounded
    stochastically from fp32 without a copy that remembers the rest; their tensors stay fp32, as autocast wants them.
    Rounding is keyed by (seed, step, parameter), so it is the same in all processes and after a resume.
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
        first = (state["first"].float() * state["first_scale"]).lerp_(gradient, 1 - beta1)
        second = (state["second_root"].float() * state["second_root_scale"]).square_().mul_(beta2)
        root = second.addcmul_(gradient, gradient, value=1 - beta2).sqrt_()
        weight.mul_(1 - rate * group["weight_decay"])
        divisor = (root / math.sqrt(1 - beta2**step)).add_(group["eps"])
        weight.addcdiv_(first, divisor, value=-rate / (1 - beta1**step))
        if id(weight) in self.half_weights:
            weight.copy_(round_stochastically(weight, self._random("weight", step, number, weight.device)))
        if not self.half_statistics:
            state.update(first=first, second_root=root)
            return
        for name, statistic in (("first", first), ("second_root", root)):
            scale = (statistic.abs().amax() / LARGEST_KEPT).clamp_(min=torch.finfo(torch.float32).tiny)
            state[f"{name}_scale"] = scale
            state[name] = (statistic / scale).half()
            if name == "second_root":
                random = self._random("statistic", step, number, weight.device)
                state[name] = round_stochastically(statistic / scale, random).half()

    def _random(self, what: str, step: int, number: int, device: torch.device) -> torch.Generator:
        key = hashlib.blake2b(repr((what, self.seed, step, number)).encode(), digest_size=8).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(key, "little", signed=True))


def round_stochastically(exact: Tensor, random: torch.Generator) -> Tensor:
    """Each number (fp32) to one of its two neighbours in fp16, to the nearer one more often: the mean is the number itself.

    Exactly so for fp16's normal numbers; among those below 2 ** -14 to 2 ** -13 of their distance. What is beyond fp16
    becomes its largest. The result is fp32.
    """
    exponent = torch.frexp(exact).exponent.clamp_(min=-13) - 11  # of the distance between neighbours
    draw = torch.randint(1 << RANDOM_BITS, exact.shape, generator=random, device=exact.device)
    units = torch.ldexp(exact, -exponent).add_(draw.float() / (1 << RANDOM_BITS)).floor_()
    return torch.ldexp(units, exponent).clamp_(-HALF_MAX, HALF_MAX)
