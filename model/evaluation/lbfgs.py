"""L-BFGS on many problems of one shape at once (Liu and Nocedal 1989): they share each evaluation of the objective.

Axes: P problems, M pairs of steps that are remembered, K the numbers of one problem.
Each problem has a history, a line search and an end of its own. One that has ended is taken out of the batch.
The two loops go over the products of the remembered vectors, M x M numbers, instead of the vectors (Chen, Wang and Zhou 2014):
the vectors are read twice for a direction, once for their products with what is new and once to sum them up.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY = 10
"""As in scipy, and so in scikit-learn."""
SUFFICIENT = 1e-4
"""Armijo: the share of the decrease promised by the slope that a step must bring (Nocedal and Wright, section 3.1)."""
NOISE = 1e-8
"""Relative error of the value of an objective that is a sum in float64 of terms in float32."""
RELATIVE_DECREASE = 1e-4
"""Half the slope along Newton's direction is what the value is above its minimum, so this bounds the excess; a bound on the
derivatives alone says little where the minimum is low."""
NEXT_TO_NOTHING = 0.01
"""A mean loss below this is held to the same bound as this."""
PATIENCE = 10
"""Evaluations in a row that bring less than rounding: the derivatives are no more than rounding, or next to it."""

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(points (P, K), numbers of their problems (P)) -> (values (P) in float64, gradients (P, K))."""


@dataclass(frozen=True)
class Minima:
    """Where each problem ended. It converged, ran out of iterations, or no step brought it lower (`is_stalled`)."""

    points_PK: Tensor
    iterations_P: Tensor
    is_converged_P: Tensor
    is_stalled_P: Tensor


@dataclass
class _State:
    """The problems that go on, each in one row of every tensor; the names of the mathematics are Nocedal and Wright's."""

    problem_P: Tensor
    x_PK: Tensor
    value_P: Tensor
    gradient_PK: Tensor
    inverse_hessian_PK: Tensor
    scale_P: Tensor
    s_PMK: Tensor
    y_PMK: Tensor
    s_y_PMM: Tensor
    y_hy_PMM: Tensor
    newest_P: Tensor
    direction_PK: Tensor
    slope_P: Tensor
    step_P: Tensor
    iterations_P: Tensor
    mark_P: Tensor
    idle_P: Tensor

    def keep(self, chosen_P: Tensor) -> None:
        for name, tensor in vars(self).items():
            setattr(self, name, tensor[chosen_P])


def minimise(
    objective: Objective,
    start_PK: Tensor,
    inverse_hessian_PK: Tensor,
    gradient_size: Callable[[Tensor], Tensor],
    tolerance: float,
    max_iterations: int,
) -> Minima:
    """Minimise P smooth convex functions from `start_PK`, each until `gradient_size` of its gradient is at most `tolerance`.

    `inverse_hessian_PK` is a positive guess at the diagonal of the inverse Hessian; only its proportions matter.
    A step is halved, or more by interpolation, until the value falls enough. On convex functions that does without the
    curvature condition of Wolfe, so one evaluation serves each problem wherever it stands in its own line search.
    """
    points_PK = start_PK.clone()
    iterations_P = torch.zeros(len(start_PK), dtype=torch.long, device=start_PK.device)
    is_converged_P = torch.zeros_like(iterations_P, dtype=torch.bool)
    is_stalled_P = torch.zeros_like(is_converged_P)
    state = _start(objective, start_PK, inverse_hessian_PK)
    while len(state.problem_P):
        _advance(objective, state)
        small_P = -state.slope_P <= RELATIVE_DECREASE * state.value_P.abs().clamp(min=NEXT_TO_NOTHING)
        if small_P.any():
            small_P &= gradient_size(state.gradient_PK) <= tolerance
        stalled_P = (state.idle_P > PATIENCE) & ~small_P
        ended_P = small_P | stalled_P | (state.iterations_P >= max_iterations)
        if ended_P.any():
            ended = state.problem_P[ended_P]
            points_PK[ended] = state.x_PK[ended_P]
            iterations_P[ended] = state.iterations_P[ended_P]
            is_converged_P[ended] = small_P[ended_P]
            is_stalled_P[ended] = stalled_P[ended_P]
            state.keep(~ended_P)
    return Minima(points_PK, iterations_P, is_converged_P, is_stalled_P)


def _start(objective: Objective, start_PK: Tensor, inverse_hessian_PK: Tensor) -> _State:
    problems, device = len(start_PK), start_PK.device
    problem_P = torch.arange(problems, device=device)
    value_P, gradient_PK = objective(start_PK, problem_P)
    direction_PK = -inverse_hessian_PK * gradient_PK
    history = (problems, MEMORY, start_PK.shape[1])
    products_PMM = torch.zeros(problems, MEMORY, MEMORY, dtype=torch.float64, device=device)
    return _State(
        problem_P=problem_P,
        x_PK=start_PK.clone(),
        value_P=value_P,
        gradient_PK=gradient_PK,
        inverse_hessian_PK=inverse_hessian_PK,
        scale_P=torch.ones(problems, dtype=start_PK.dtype, device=device),
        s_PMK=torch.zeros(history, dtype=start_PK.dtype, device=device),
        y_PMK=torch.zeros(history, dtype=start_PK.dtype, device=device),
        s_y_PMM=products_PMM,
        y_hy_PMM=products_PMM.clone(),
        newest_P=torch.zeros_like(problem_P),
        direction_PK=direction_PK,
        slope_P=_dot(gradient_PK, direction_PK),
        step_P=torch.ones_like(value_P),
        iterations_P=torch.zeros_like(problem_P),
        mark_P=value_P,
        idle_P=torch.zeros_like(problem_P),
    )


def _advance(objective: Objective, state: _State) -> None:
    """Try one point of every problem: take it and choose the next direction, or shorten the step."""
    tried_PK = state.x_PK + state.step_P[:, None].to(state.x_PK.dtype) * state.direction_PK
    value_P, gradient_PK = objective(tried_PK, state.problem_P)
    promised_P = state.value_P + SUFFICIENT * state.step_P * state.slope_P
    is_taken_P = value_P <= promised_P + NOISE * state.value_P.abs()
    s_PK, y_PK = tried_PK - state.x_PK, gradient_PK - state.gradient_PK
    shorter_P = _shorter(state, value_P)
    state.x_PK = torch.where(is_taken_P[:, None], tried_PK, state.x_PK)
    state.gradient_PK = torch.where(is_taken_P[:, None], gradient_PK, state.gradient_PK)
    state.value_P = torch.where(is_taken_P, value_P, state.value_P)
    state.step_P = torch.where(is_taken_P, 1.0, shorter_P)
    state.iterations_P = state.iterations_P + is_taken_P
    rounding = torch.finfo(state.x_PK.dtype).eps
    is_lower_P = state.value_P < state.mark_P - rounding * state.mark_P.abs()
    state.mark_P = torch.where(is_lower_P, state.value_P, state.mark_P)
    state.idle_P = torch.where(is_lower_P, 0, state.idle_P + 1)
    # For a problem whose step was shortened nothing has changed, so its direction comes out the same.
    state.direction_PK = _direction(state, *_remember(state, s_PK, y_PK, is_taken_P))
    state.slope_P = _dot(state.gradient_PK, state.direction_PK)


def _remember(state: _State, s_PK: Tensor, y_PK: Tensor, is_taken_P: Tensor) -> tuple[Tensor, Tensor]:
    """Put the new pair in the place of the oldest. Returns the products (P, M) of all s with g, and of all y with H g."""
    curvature_P = (s_PK * y_PK).sum(dim=1)
    row = (is_taken_P & (curvature_P > 0)).nonzero()[:, 0]
    newest = (state.newest_P[row] + 1) % MEMORY
    state.newest_P[row] = newest
    state.s_PMK[row, newest] = s_PK[row]
    state.y_PMK[row, newest] = y_PK[row]
    hy_PK, hg_PK = state.inverse_hessian_PK * y_PK, state.inverse_hessian_PK * state.gradient_PK
    s_y_PM, s_g_PM = (state.s_PMK @ torch.stack([y_PK, state.gradient_PK], dim=2)).double().unbind(dim=2)
    y_s_PM, y_hy_PM, y_hg_PM = (state.y_PMK @ torch.stack([s_PK, hy_PK, hg_PK], dim=2)).double().unbind(dim=2)
    state.s_y_PMM[row, :, newest] = s_y_PM[row]
    state.s_y_PMM[row, newest, :] = y_s_PM[row]
    state.y_hy_PMM[row, :, newest] = y_hy_PM[row]
    state.y_hy_PMM[row, newest, :] = y_hy_PM[row]
    state.scale_P[row] = curvature_P[row] / y_hy_PM[row, newest].to(curvature_P.dtype)
    return s_g_PM, y_hg_PM


def _shorter(state: _State, value_P: Tensor) -> Tensor:
    """The minimum of the parabola through value, slope and the value tried, within a tenth and a half of the step."""
    step_P = state.step_P
    parabola_P = -state.slope_P * step_P**2 / (2 * (value_P - state.value_P - state.slope_P * step_P))
    return torch.where(parabola_P.isfinite(), parabola_P.clamp(0.1 * step_P, 0.5 * step_P), 0.5 * step_P)


def _direction(state: _State, s_g_PM: Tensor, y_hg_PM: Tensor) -> Tensor:
    """The two loops of L-BFGS, each of which solves a triangular system in the shares of the vectors, the newest first."""
    order_PM = (state.newest_P[:, None] - torch.arange(MEMORY, device=state.newest_P.device)) % MEMORY
    s_y_PMM = _in_order(state.s_y_PMM, order_PM).tril()
    curvature_PM = s_y_PMM.diagonal(dim1=1, dim2=2)
    s_y_PMM = s_y_PMM + torch.diag_embed((curvature_PM == 0).double())  # a place that is still empty changes nothing
    s_g_PM1 = s_g_PM.gather(1, order_PM)[..., None]
    alpha_PM1 = torch.linalg.solve_triangular(s_y_PMM, s_g_PM1, upper=False)
    scale_P1 = state.scale_P[:, None]
    y_r_PM1 = y_hg_PM.gather(1, order_PM)[..., None] - _in_order(state.y_hy_PMM, order_PM) @ alpha_PM1
    right_PM1 = curvature_PM[..., None] * alpha_PM1 - scale_P1[..., None] * y_r_PM1
    share_PM1 = torch.linalg.solve_triangular(s_y_PMM.mT, right_PM1, upper=True)
    of_y_PK, of_s_PK = (
        (
            torch.zeros_like(s_g_PM).scatter(1, order_PM, shares_PM1[..., 0]).to(vectors_PMK.dtype)[:, None]
            @ vectors_PMK
        )[:, 0]
        for shares_PM1, vectors_PMK in ((alpha_PM1, state.y_PMK), (share_PM1, state.s_PMK))
    )
    return -(scale_P1 * state.inverse_hessian_PK * (state.gradient_PK - of_y_PK) + of_s_PK)


def _in_order(products_PMM: Tensor, order_PM: Tensor) -> Tensor:
    row_PMM = order_PM[:, :, None].expand(-1, -1, MEMORY)
    return products_PMM.gather(1, row_PMM).gather(2, row_PMM.mT)


def _dot(a_PK: Tensor, b_PK: Tensor) -> Tensor:
    return (a_PK.double() * b_PK.double()).sum(dim=1)
