"""The symmetric contrastive loss of the paper (section 2.3, figure 3), a pure function of features.

Axes: B a process's share of the batch, G the global batch, D the shared space.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def contrastive_loss(
    image_BD: Tensor, text_BD: Tensor, image_GD: Tensor, text_GD: Tensor, scale: Tensor, first: int
) -> Tensor:
    """Mean cross-entropy of picking each image's text and each text's image out of the global batch.

    All features are unit vectors; row i of the local ones is row `first` + i of the global ones. Only the similarities
    of the local rows are computed (section 2.5). The mean over all processes is the loss of the whole batch.
    """
    target_B = torch.arange(first, first + len(image_BD), device=image_BD.device)
    image_logits_BG = scale * image_BD @ text_GD.T
    text_logits_BG = scale * text_BD @ image_GD.T
    return (F.cross_entropy(image_logits_BG, target_B) + F.cross_entropy(text_logits_BG, target_B)) / 2


@torch.no_grad()
def hits_at_1(query_BD: Tensor, target_GD: Tensor, first: int) -> Tensor:
    """How many queries are nearest to their own target; row i's own target is row `first` + i.

    Of k targets that are equally near, the own one is a k-th of a hit: features that have collapsed score chance.
    """
    similarity_BG = query_BD @ target_GD.T
    own_B = similarity_BG[torch.arange(len(query_BD)), torch.arange(first, first + len(query_BD))]
    best_B1 = similarity_BG.amax(dim=1, keepdim=True)
    tied_B = (similarity_BG == best_B1).sum(dim=1)
    return ((own_B == best_B1[:, 0]) / tied_B).sum()
