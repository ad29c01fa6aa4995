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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.evaluation.lbfgs import Minima, minimise

TOLERANCE = 1e-5
"""On the largest derivative of the mean loss; scikit-learn stops at 1e-4 of the same measure."""
MAX_ITERATIONS = 1_000
"""The paper's (appendix A.3)."""
LOGITS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 27}
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

    def largest_slope(self, slope_PCR: Tensor) -> Tensor:
        """Of derivatives (P, C, R + 1) by weights and biases of what is turned, the largest by those of the features as they
        were given, as scikit-learn sees it (P).
        """
        bias_PC1 = slope_PCR[..., -1:]
        axes_RD, centre_D = self.axes_DR.T.to(slope_PCR.dtype), self.centre_D.to(slope_PCR.dtype)
        weight_PCD = slope_PCR[..., :-1] @ axes_RD + bias_PC1 * centre_D
        return torch.maximum(weight_PCD.abs().amax(dim=(1, 2)), bias_PC1.abs().amax(dim=(1, 2)))


@dataclass(frozen=True)
class Fits:
    """One classifier per penalty. `bias_PC` belongs to features less `centre_D`; that of a class not shown is minus infinity.

    `points_PK` is where the search ended, for another one of the same images to start from.
    """

    penalties: tuple[float, ...]
    points_PK: Tensor
    centre_D: Tensor
    weight_PCD: Tensor
    bias_PC: Tensor
    iterations: tuple[int, ...]
    is_converged: tuple[bool, ...]

    @classmethod
    def of(cls, penalties: Sequence[float], axes: Axes, learned_S: Tensor, classes: int, found: Minima) -> Fits:
        """From weights and biases (P, S, R + 1) of the classes that were learned; of several problems at one penalty the slowest
        counts.
        """
        many = len(penalties)
        points_PSK = found.points_PK.view(many, len(learned_S), -1)
        weight_PCD = points_PSK.new_zeros(many, classes, len(axes.centre_D), dtype=torch.float32)
        weight_PCD[:, learned_S] = (points_PSK[..., :-1] @ axes.axes_DR.T).float()
        bias_PC = points_PSK.new_full((many, classes), -torch.inf, dtype=torch.float32)
        bias_PC[:, learned_S] = points_PSK[..., -1].float()
        return cls(
            penalties=tuple(penalties),
            points_PK=found.points_PK.view(many, -1),
            centre_D=axes.centre_D,
            weight_PCD=weight_PCD,
            bias_PC=bias_PC,
            iterations=tuple(found.iterations_P.view(many, -1).amax(dim=1).tolist()),
            is_converged=tuple(found.is_converged_P.view(many, -1).all(dim=1).tolist()),
        )

    def logits(self, number: int, features_ND: Tensor) -> Tensor:
        """(N, C) of the classifier `number`."""
        centred_ND = (features_ND - self.centre_D).float()
        return torch.addmm(self.bias_PC[number], centred_ND, self.weight_PCD[number].T)


Solve = Callable[[Tensor, Tensor, Tensor], Minima]
"""Turned images (N, R), points to start from (Q, K), numbers of their problems (Q) -> where they ended."""


def in_both_precisions(solve: Solve, features_ND: Tensor, axes: Axes, turned_NR: Tensor, start_QK: Tensor) -> Minima:
    """All problems on images in float32 (`turned_NR`), and those that stall there once more in float64, from where they are.

    The points are in float64.
    """
    found = solve(turned_NR, start_QK, torch.arange(len(start_QK), device=start_QK.device))
    points_QK, iterations_Q, is_converged_Q = found.points_PK.double(), found.iterations_P, found.is_converged_P
    stalled = found.is_stalled_P.nonzero()[:, 0]
    if len(stalled):
        rest = solve(axes.turned(features_ND), points_QK[stalled], stalled)
        points_QK[stalled] = rest.points_PK
        iterations_Q[stalled] += rest.iterations_P
        is_converged_Q[stalled] = rest.is_converged_P
    return Minima(points_QK, iterations_Q, is_converged_Q, found.is_stalled_P)


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
        weight_QR = points_PCR[..., :-1].reshape(problems * self.classes, points_PCR.shape[2] - 1)
        bias_Q = points_PCR[..., -1].reshape(-1)
        loss_P = torch.zeros(problems, dtype=torch.float64, device=points_PK.device)
        slope_QR, slope_Q = torch.zeros_like(weight_QR), torch.zeros_like(bias_Q)
        rows = max(1, LOGITS_AT_ONCE[points_PK.device.type] // len(bias_Q))
        for image_BR, label_B in zip(torch.split(self.images_NR, rows), torch.split(self.labels_N, rows), strict=True):
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
        # Not like the weights, of which there are none where all features are equal.
        bias_P1 = self.penalty_P.new_full((len(self.penalty_P), 1), 1 / (spread * len(self.images_NR)))
        return torch.cat([weight_PR, bias_P1], dim=1).repeat(1, self.classes).to(self.images_NR.dtype)


@dataclass(frozen=True)
class Regression:
    """Images and labels, made ready to be fitted at any penalty. Only the classes among the labels take part.

    For two classes scikit-learn has one weight vector, the difference of ours, and penalises that: half of what two
    vectors are penalised for the same. So the penalty is doubled there, to mean the same.
    """

    features_ND: Tensor
    axes: Axes
    turned_NR: Tensor
    seen_S: Tensor
    label_N: Tensor
    classes: int

    @classmethod
    def of(cls, features_ND: Tensor, labels_N: Tensor, classes: int) -> Regression:
        """Raises ValueError if the labels are of fewer than two classes."""
        seen_S, label_N = torch.unique(labels_N, return_inverse=True)
        if len(seen_S) < 2:
            raise ValueError(f"a classifier needs images of at least two classes, not of {len(seen_S)}")
        axes = Axes.of(features_ND)
        return cls(features_ND, axes, axes.turned(features_ND).float(), seen_S, label_N, classes)

    def fit(
        self,
        penalties: Sequence[float],
        near: Tensor | None = None,
        tolerance: float = TOLERANCE,
        max_iterations: int = MAX_ITERATIONS,
    ) -> Fits:
        """Fit every penalty, from zero or from a point (K) of an earlier fit that is near."""
        device, shown = self.turned_NR.device, len(self.seen_S)
        penalty_P = torch.tensor(penalties, dtype=torch.float64, device=device) * (2 if shown == 2 else 1)
        start_PK = torch.zeros(len(penalties), shown * (self.turned_NR.shape[1] + 1), device=device)
        if near is not None:
            start_PK += near.float()

        def solve(turned_NR: Tensor, from_PK: Tensor, number_P: Tensor) -> Minima:
            problem = _Problem(turned_NR, self.label_N, penalty_P[number_P], shown)
            guess_PK = problem.inverse_hessian(self.axes.squares_R)
            return minimise(problem, from_PK, guess_PK, self._gradient_size, tolerance, max_iterations)

        found = in_both_precisions(solve, self.features_ND, self.axes, self.turned_NR, start_PK)
        return Fits.of(penalties, self.axes, self.seen_S, self.classes, found)

    def _gradient_size(self, slope_PK: Tensor) -> Tensor:
        return self.axes.largest_slope(slope_PK.view(len(slope_PK), len(self.seen_S), -1))
