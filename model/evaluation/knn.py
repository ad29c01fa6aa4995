"""Nearest neighbours: an image takes the class that its like among labelled images have.

Axes: N labelled images, Q images asked about, D dimensions, K neighbours, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SIMILARITIES_AT_ONCE = 1 << 25


def neighbour_votes(known_ND: Tensor, labels_N: Tensor, asked_QD: Tensor, classes: int, neighbours: int) -> Tensor:
    """Scores (Q, C): the sum over the `neighbours` nearest by cosine, or all if they are fewer, of each one's cosine."""
    known_ND, asked_QD = functional.normalize(known_ND, dim=1), functional.normalize(asked_QD, dim=1)
    votes = []
    for part_QD in torch.split(asked_QD, max(1, SIMILARITIES_AT_ONCE // len(known_ND))):
        cosine_QK, nearest_QK = (part_QD @ known_ND.T).topk(min(neighbours, len(known_ND)), dim=1)
        votes_QC = torch.zeros(len(part_QD), classes, device=part_QD.device)
        votes.append(votes_QC.scatter_add_(1, labels_N[nearest_QK], cosine_QK))
    return torch.cat(votes)
