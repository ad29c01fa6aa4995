"""SigLIP (arXiv:2303.15343): every image and every text of the batch are judged as a pair or none, each by itself.

Axes: B a process's share of the batch, G the global batch, D the shared space.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.config import PretrainConfig, SigmoidConfig
from model.distributed import Processes
from model.objectives.contrastive import Contrastive
from model.objectives.objective import Inputs, Outputs


class Sigmoid(Contrastive):
    """CLIP's towers, a scale and a bias; neither is bounded."""

    def __init__(self, config: PretrainConfig, settings: SigmoidConfig) -> None:
        super().__init__(config)
        nn.init.constant_(self.towers.logit_scale, math.log(settings.init_scale))
        self.logit_bias = nn.Parameter(torch.tensor(settings.init_bias))

    def forward(self, inputs: Inputs) -> Outputs:
        rows, (scale,) = super().forward(inputs)
        return Outputs(rows, (scale, self.logit_bias + 0))  # a result of this pass, as DDP counts on it

    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        (image_BD, text_BD), (scale, bias) = outputs
        (text_GD,) = processes.gather(text_BD)
        return sigmoid_loss(image_BD, text_GD, scale, bias, self.tile, first=processes.rank * len(text_BD))

    def after_step(self, outputs: Outputs, processes: Processes) -> None:
        """Nothing to keep in bounds."""


def sigmoid_loss(image_BD: Tensor, text_GD: Tensor, scale: Tensor, bias: Tensor, tile: int, first: int = 0) -> Tensor:
    """Sum over texts, mean over images, of -log sigmoid(+-(scale * similarity + bias)), + for an image's own text.

    Row i of the images belongs to row `first` + i of the texts. `tile` texts at once, computed anew in the backward pass.
    """
    loss = image_BD.new_zeros(())
    for start in range(0, len(text_GD), tile):
        part = text_GD[start : start + tile]
        loss = loss + checkpoint(_tile_loss, image_BD, part, scale, bias, first - start, use_reentrant=False)
    return loss / len(image_BD)


def _tile_loss(image_BD: Tensor, text_TD: Tensor, scale: Tensor, bias: Tensor, diagonal: int) -> Tensor:
    logits_BT = scale * image_BD @ text_TD.T + bias
    sign_BT = torch.full_like(logits_BT, -1.0)
    sign_BT.diagonal(diagonal).fill_(1.0)
    return -F.logsigmoid(sign_BT * logits_BT).sum()
