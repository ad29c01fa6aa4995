"""SimCLR (arXiv:2002.05709), images alone: of two views of each image of the batch, which belong together?

Axes: B a process's share of the batch, G the global batch, D the space of the head, C H W the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.config import PretrainConfig, SimclrConfig
from model.data import normalise
from model.data.views import VIEW_DRAWS, views
from model.distributed import Processes
from model.objectives.image_tower import ImageTower
from model.objectives.objective import Inputs, Objective, Outputs


def head(features: int, head_dim: int) -> nn.Sequential:
    """What comes between a tower's features and the space in which views are compared (section 4.2)."""
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, head_dim))


class Simclr(Objective):
    """The image tower and a head that evaluation leaves off."""

    towers: ImageTower
    draws = 2 * VIEW_DRAWS

    def __init__(self, config: PretrainConfig, settings: SimclrConfig) -> None:
        super().__init__()
        self.towers = ImageTower(config.model)
        self.head = head(config.model.embed_dim, settings.head_dim)
        self.temperature = settings.temperature

    def forward(self, inputs: Inputs) -> Outputs:
        first_BK, second_BK = inputs.draws_BK.chunk(2, dim=1)
        both = torch.cat([views(inputs.image_BHWC, first_BK), views(inputs.image_BHWC, second_BK)])
        view_BD, other_BD = F.normalize(self.head(self.encode_image(normalise(both))).float(), dim=-1).chunk(2)
        return Outputs((view_BD, other_BD))

    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        view_BD, other_BD = outputs.rows
        view_GD, other_GD = processes.gather(view_BD, other_BD)
        first = processes.rank * len(view_BD)
        return simclr_loss(view_BD, other_BD, view_GD, other_GD, self.temperature, first)

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        return self.towers.encode_image(image_BCHW)

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.towers.encode_image_twice(image_BCHW)


def simclr_loss(
    view_BD: Tensor, other_BD: Tensor, view_GD: Tensor, other_GD: Tensor, temperature: float, first: int = 0
) -> Tensor:
    """Mean cross-entropy of picking each view's other view out of all other views of the global batch.

    Row i of the local ones is row `first` + i of the global ones.
    """
    own_B = torch.arange(first, first + len(view_BD), device=view_BD.device)
    every_view = torch.cat([view_GD, other_GD])
    target = torch.cat([own_B + len(view_GD), own_B])
    itself = torch.cat([own_B, own_B + len(view_GD)])
    logits = torch.cat([view_BD, other_BD]) @ every_view.T / temperature
    return F.cross_entropy(logits.scatter(1, itself[:, None], -torch.inf), target)
