"""Logistic regression of each class against the rest, for images that show several, at many strengths of the penalty at once.

It finds, for each class, the minimum that scikit-learn's LogisticRegression(C=1 / penalty) has on the images that are not
ignored for it,

    sum over images of log(1 + exp(-sign * (weight @ image + bias))) + penalty / 2 * |weight|^2,

in the way of model/evaluation/logistic.py: all classes and penalties share each product with the features, which are turned into
their principal axes.

Axes: N images, D dimensions of a feature, R principal axes of them, C classes, S those that can be learned, P penalties,
Q = P * S problems (class the faster), K = R + 1, B a part of the images.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.evaluation.lbfgs import Minima, minimise
from model.evaluation.logistic import LOGITS_AT_ONCE, MAX_ITERATIONS, TOLERANCE, Axes, Fits, in_both_precisions


@dataclass(frozen=True)
class _Problem:
    """The mean loss over images (N, R) of every penalty and class; a point (Q, K) is weight and bias.

    `sign_NS` is -1 for an image that shows the class, 1 for one that does not, 0 for one that is ignored.
    """

    images_NR: Tensor
    sign_NS: Tensor
    penalty_Q: Tensor

    def __call__(self, points_QK: Tensor, problem_Q: Tensor) -> tuple[Tensor, Tensor]:
        images, class_Q = len(self.images_NR), problem_Q % self.sign_NS.shape[1]
        weight_QR, bias_Q = points_QK[:, :-1], points_QK[:, -1]
        loss_Q = torch.zeros(len(points_QK), dtype=torch.float64, device=points_QK.device)
        slope_QR, slope_Q = torch.zeros_like(weight_QR), torch.zeros_like(bias_Q)
        rows = max(1, LOGITS_AT_ONCE[points_QK.device.type] // len(bias_Q))
        for image_BR, sign_BS in zip(torch.split(self.images_NR, rows), torch.split(self.sign_NS, rows), strict=True):
            sign_BQ = sign_BS[:, class_Q]
            margin_BQ = sign_BQ * torch.addmm(bias_Q, image_BR, weight_QR.T)
            loss_Q += (sign_BQ.abs() * functional.softplus(margin_BQ)).sum(dim=0, dtype=torch.float64)
            error_BQ = sign_BQ * margin_BQ.sigmoid()
            slope_QR.addmm_(error_BQ.T, image_BR)
            slope_Q += error_BQ.sum(dim=0)
        penalty_Q = self.penalty_Q[problem_Q]
        loss_Q += penalty_Q / 2 * weight_QR.double().square().sum(dim=1)
        slope_QR += penalty_Q[:, None].to(weight_QR.dtype) * weight_QR
        return loss_Q / images, torch.cat([slope_QR, slope_Q[:, None]], dim=1) / images


@dataclass(frozen=True)
class OneVsRest:
    """Images and relevance, made ready to be fitted at any penalty. A class that all images show, or none, cannot be learned."""

    features_ND: Tensor
    axes: Axes
    turned_NR: Tensor
    learned_S: Tensor
    sign_NS: Tensor
    classes: int

    @classmethod
    def of(cls, features_ND: Tensor, relevance_NC: Tensor) -> OneVsRest:
        """Raises ValueError if there is no class to learn."""
        relevance_NC = relevance_NC.to(features_ND.device)
        shown_NC, other_NC = relevance_NC == 1, relevance_NC == 0
        learned_S = (shown_NC.any(dim=0) & other_NC.any(dim=0)).nonzero()[:, 0]
        if len(learned_S) == 0:
            raise ValueError("no class has images that show it and images that do not")
        axes = Axes.of(features_ND)
        sign_NC = other_NC.float() - shown_NC.float()
        turned_NR = axes.turned(features_ND).float()
        return cls(features_ND, axes, turned_NR, learned_S, sign_NC[:, learned_S], relevance_NC.shape[1])

    def fit(
        self,
        penalties: Sequence[float],
        near: Tensor | None = None,
        tolerance: float = TOLERANCE,
        max_iterations: int = MAX_ITERATIONS,
    ) -> Fits:
        """Fit every class at every penalty, from what is as likely as in the images or from a point (S * K) that is near.

        A classifier of all classes has as many iterations as the slowest of them; a class that cannot be learned has the score
        minus infinity for every image.
        """
        device, learned = self.turned_NR.device, len(self.learned_S)
        penalty_Q = torch.tensor(penalties, dtype=torch.float64, device=device).repeat_interleave(learned)
        start_SK = self._start() if near is None else near.view(learned, -1).float()

        def solve(turned_NR: Tensor, from_QK: Tensor, number_Q: Tensor) -> Minima:
            problem = _Problem(turned_NR, self.sign_NS.to(turned_NR.dtype), penalty_Q)
            return minimise(
                lambda points_QK, place_Q: problem(points_QK, number_Q[place_Q]),
                from_QK,
                self._inverse_hessian(penalty_Q[number_Q], number_Q % learned).to(turned_NR.dtype),
                lambda slope_QK: self.axes.largest_slope(slope_QK[:, None]),
                tolerance,
                max_iterations,
            )

        start_QK = start_SK.repeat(len(penalties), 1)
        found = in_both_precisions(solve, self.features_ND, self.axes, self.turned_NR, start_QK)
        return Fits.of(penalties, self.axes, self.learned_S, self.classes, found)

    def _start(self) -> Tensor:
        """Points (S, K) without weights, whose bias says how frequent the class is."""
        start_SK = torch.zeros(len(self.learned_S), self.turned_NR.shape[1] + 1, device=self.turned_NR.device)
        start_SK[:, -1] = self._shares().logit().float()
        return start_SK

    def _shares(self) -> Tensor:
        """Of the images that are not ignored, the share that shows each class (S)."""
        return (self.sign_NS < 0).sum(dim=0) / self.sign_NS.abs().sum(dim=0).double()

    def _inverse_hessian(self, penalty_Q: Tensor, class_Q: Tensor) -> Tensor:
        """Its diagonal (Q, K) at the start, but for the factor N."""
        share_S = self._shares()
        spread_Q = (share_S * (1 - share_S))[class_Q]
        weight_QR = 1 / (spread_Q[:, None] * self.axes.squares_R + penalty_Q[:, None])
        return torch.cat([weight_QR, 1 / (spread_Q * len(self.turned_NR))[:, None]], dim=1)
