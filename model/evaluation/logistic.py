"""Multinomial logistic regression at many strengths of the penalty at once.

It finds the minimum that scikit-learn's LogisticRegression(C=1 / penalty) has,

    sum over images of cross_entropy(weight @ image + bias, label) + penalty / 2 * |weight|^2,

with the bias unpenalised, and sooner, for four reasons. All penalties share each product with the features. The features are
centred, which only moves the bias, and turned into their principal axes, which a penalty on |weight| does not notice; there
the Hessian at zero is nearly diagonal, and its inverse is what L-BFGS starts from. Axes without variance, on which the
weight is zero, are left out. And products are in float32; only a problem that stalls there goes on in float64.

Axes: N images, D dimensions of a feature, R principal axes of them, C classes, P penalties, K = C * (R + 1).
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.evaluation.lbfgs import minimise

TOLERANCE = 1e-5
"""On the largest derivative of the mean loss; scikit-learn stops at 1e-4 of the same measure."""
MAX_ITERATIONS = 1_000
"""The paper's (appendix A.3)."""
LOGITS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 27}
"""So many stay in a core's cache, or fill a GPU without filling its memory."""


@dataclass(frozen=True)
class Axes:
    """The centre (D) of features, their principal axes (D, R) and the sum of squares (R) along each, in float64."""

    centre_D: Tensor
    axes_DR: Tensor
    squares_R: Tensor

    @classmethod
    def of(cls, features_ND: Tensor) -> Axes:
        """Those of `features_ND`; axes on which they do not vary are left out."""
        wide_ND = features_ND.double()
        centre_D = wide_ND.mean(dim=0)
        centred_ND = wide_ND - centre_D
        if len(centred_ND) < centred_ND.shape[1]:
            _, root_R, axes_RD = torch.linalg.svd(centred_ND, full_matrices=False)
            squares_R, axes_DR = root_R**2, axes_RD.T
        else:
            squares_R, axes_DR = torch.linalg.eigh(centred_ND.T @ centred_ND)
        rounding = torch.finfo(torch.float64).eps * max(features_ND.shape)
        varies_R = squares_R > rounding * squares_R.max()
        return cls(centre_D, axes_DR[:, varies_R], squares_R[varies_R])

    def turned(self, features_ND: Tensor) -> Tensor:
        """(N, R) in float64."""
        return (features_ND.double() - self.centre_D) @ self.axes_DR


@dataclass(frozen=True)
class Fits:
    """One classifier per penalty. `bias_PC` belongs to features less `centre_D`."""

    penalties: tuple[float, ...]
    centre_D: Tensor
    weight_PCD: Tensor
    bias_PC: Tensor
    seen_C: Tensor
    iterations: tuple[int, ...]
    is_converged: tuple[bool, ...]

    def logits(self, number: int, features_ND: Tensor) -> Tensor:
        """(N, C) of the classifier `number`; a class that it was not shown has minus infinity."""
        centred_ND = (features_ND.to(self.centre_D.device) - self.centre_D).float()
        return (centred_ND @ self.weight_PCD[number].T + self.bias_PC[number]).masked_fill(~self.seen_C, -torch.inf)


@dataclass(frozen=True)
class _Problem:
    """The mean loss over images (N, R) of every penalty; a point (P, K) is weight and bias (P, C, R + 1)."""

    images_NR: Tensor
    labels_N: Tensor
    penalty_P: Tensor
    classes: int

    def __call__(self, points_PK: Tensor, problem_P: Tensor) -> tuple[Tensor, Tensor]:
        images, problems = len(self.images_NR), len(points_PK)
        points_PCR = points_PK.view(problems, self.classes, -1)
        weight_QR = points_PCR[..., :-1].reshape(problems * self.classes, -1)
        bias_Q = points_PCR[..., -1].reshape(-1)
        loss_P = torch.zeros(problems, dtype=torch.float64, device=points_PK.device)
        slope_QR, slope_Q = torch.zeros_like(weight_QR), torch.zeros_like(bias_Q)
        rows = max(1, LOGITS_AT_ONCE[points_PK.device.type] // len(bias_Q))
        for image_BR, label_B in zip(self.images_NR.split(rows), self.labels_N.split(rows), strict=True):
            logits_BPC = torch.addmm(bias_Q, image_BR, weight_QR.T).view(len(label_B), problems, self.classes)
            likelihood_BPC = logits_BPC.log_softmax(dim=-1)
            label_BP1 = label_B[:, None, None].expand(-1, problems, 1)
            loss_P -= likelihood_BPC.gather(2, label_BP1)[..., 0].sum(dim=0, dtype=torch.float64)
            error_BPC = likelihood_BPC.exp_()
            error_BPC.scatter_add_(2, label_BP1, error_BPC.new_full((), -1.0).expand(label_BP1.shape))
            error_BQ = error_BPC.view(len(label_B), -1)
            slope_QR.addmm_(error_BQ.T, image_BR)
            slope_Q += error_BQ.sum(dim=0)
        penalty_P = self.penalty_P[problem_P]
        weight_PCR = points_PCR[..., :-1]
        loss_P += penalty_P / 2 * weight_PCR.double().square().sum(dim=(1, 2))
        slope_PCR = slope_QR.view_as(weight_PCR) + penalty_P[:, None, None].to(weight_PCR.dtype) * weight_PCR
        slope_PK = torch.cat([slope_PCR, slope_Q.view(problems, self.classes, 1)], dim=2).view(problems, -1)
        return loss_P / images, slope_PK / images

    def inverse_hessian(self, squares_R: Tensor) -> Tensor:
        """The diagonal at a point where all classes are equally likely, but for the factor N."""
        spread = (1 - 1 / self.classes) / self.classes
        weight_PR = 1 / (spread * squares_R + self.penalty_P[:, None])
        bias_P1 = torch.full_like(weight_PR[:, :1], 1 / (spread * len(self.images_NR)))
        return torch.cat([weight_PR, bias_P1], dim=1).repeat(1, self.classes).to(self.images_NR.dtype)


def fit(
    features_ND: Tensor,
    labels_N: Tensor,
    penalties: Sequence[float],
    classes: int,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Fits:
    """Fit every penalty. Only the classes among the labels take part. Raises ValueError if they are fewer than two.

    For two classes scikit-learn has one weight vector, the difference of ours, and penalises that: half of what two
    vectors are penalised for the same. So the penalty is doubled there, to mean the same.
    """
    seen_S, own_label_N = labels_N.unique(return_inverse=True)
    if len(seen_S) < 2:
        raise ValueError(f"a classifier needs images of at least two classes, not of {len(seen_S)}")
    device, shown = features_ND.device, len(seen_S)
    axes = Axes.of(features_ND)
    turned_NR = axes.turned(features_ND)
    penalty_P = torch.tensor(penalties, dtype=torch.float64, device=device) * (2 if shown == 2 else 1)

    def gradient_size(slope_PK: Tensor) -> Tensor:
        """The largest derivative by the weights and biases of the features as they were given, as scikit-learn sees it."""
        slope_PCR = slope_PK.view(len(slope_PK), shown, -1)
        bias_PC1 = slope_PCR[..., -1:]
        weight_PCD = slope_PCR[..., :-1] @ axes.axes_DR.T.to(slope_PK.dtype) + bias_PC1 * axes.centre_D.to(
            slope_PK.dtype
        )
        return torch.maximum(weight_PCD.abs().amax(dim=(1, 2)), bias_PC1.abs().amax(dim=(1, 2)))

    problem = _Problem(turned_NR.float(), own_label_N, penalty_P, shown)
    start_PK = torch.zeros(len(penalties), shown * (len(axes.squares_R) + 1), device=device)
    found = minimise(
        problem, start_PK, problem.inverse_hessian(axes.squares_R), gradient_size, tolerance, max_iterations
    )
    points_PK, iterations_P, is_converged_P = found.points_PK.double(), found.iterations_P, found.is_converged_P
    stalled = found.is_stalled_P.nonzero()[:, 0]
    if len(stalled):
        exact = _Problem(turned_NR, own_label_N, penalty_P[stalled], shown)
        rest = minimise(
            exact,
            points_PK[stalled],
            exact.inverse_hessian(axes.squares_R),
            gradient_size,
            tolerance,
            max_iterations,
        )
        points_PK[stalled] = rest.points_PK
        iterations_P[stalled] += rest.iterations_P
        is_converged_P[stalled] = rest.is_converged_P
    points_PSR = points_PK.view(len(penalties), shown, -1)
    weight_PCD = torch.zeros(len(penalties), classes, features_ND.shape[1], device=device)
    weight_PCD[:, seen_S] = (points_PSR[..., :-1] @ axes.axes_DR.T).float()
    bias_PC = torch.zeros(len(penalties), classes, device=device)
    bias_PC[:, seen_S] = points_PSR[..., -1].float()
    return Fits(
        penalties=tuple(penalties),
        centre_D=axes.centre_D,
        weight_PCD=weight_PCD,
        bias_PC=bias_PC,
        seen_C=torch.zeros(classes, dtype=torch.bool, device=device).index_fill(0, seen_S, True),
        iterations=tuple(iterations_P.tolist()),
        is_converged=tuple(is_converged_P.tolist()),
    )
