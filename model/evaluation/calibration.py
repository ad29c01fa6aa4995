"""Does a probability of 80 % mean right in 80 of 100? One temperature, fitted on images that are not tested on.

Axes: N images, C classes. Logits may be minus infinity for a class that a classifier does not know.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from model.evaluation.results import Calibration, CertaintyBin

BINS = 15
"""Of equal width, as in Guo et al. 2017."""
TEMPERATURES = (0.01, 100.0)


def calibrate(val_logits_NC: Tensor, val_labels_N: Tensor, logits_NC: Tensor, labels_N: Tensor) -> Calibration:
    """Fit the temperature on validation, measure before and after on the tested images."""
    temperature = fit_temperature(val_logits_NC, val_labels_N)
    return Calibration(
        temperature=temperature,
        val_images=len(val_labels_N),
        error_before=calibration_error(logits_NC, labels_N),
        error_after=calibration_error(logits_NC / temperature, labels_N),
    )


def fit_temperature(logits_NC: Tensor, labels_N: Tensor) -> float:
    """What to divide logits by so that cross-entropy is least (Guo et al. 2017, section 4.2), between 0.01 and 100.

    An image whose class the classifier does not know says nothing of it and is left out.
    """
    known_N = logits_NC.gather(1, labels_N[:, None])[:, 0].isfinite()
    logits_NC, labels_N = logits_NC[known_N].double(), labels_N[known_N]
    found = minimize_scalar(
        lambda power: float(functional.cross_entropy(logits_NC / math.exp(power), labels_N)),
        bounds=[math.log(bound) for bound in TEMPERATURES],
        method="bounded",
    )
    return math.exp(found.x)


def calibration_error(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Expected calibration error: over bins of confidence, the distance between accuracy and mean confidence, by images."""
    bins = certainty_bins(logits_NC, labels_N)
    return sum(found.images * abs(found.accuracy - found.certainty) for found in bins) / len(labels_N)


def certainty_bins(logits_NC: Tensor, labels_N: Tensor) -> list[CertaintyBin]:
    """The reliability diagram: bins of equal width of the predicted class's probability, those that hold images."""
    sure_N, predicted_N = logits_NC.double().softmax(dim=1).max(dim=1)
    bin_N = (sure_N * BINS).ceil().long().clamp(1, BINS) - 1
    right_N = (predicted_N == labels_N).double()
    images_B = bin_N.bincount(minlength=BINS).tolist()
    sure_B, right_B = (
        torch.zeros(BINS, dtype=torch.float64).index_add_(0, bin_N, value_N).tolist() for value_N in (sure_N, right_N)
    )
    return [
        CertaintyBin(images=images, certainty=sure / images, accuracy=right / images)
        for images, sure, right in zip(images_B, sure_B, right_B, strict=True)
        if images
    ]
