"""MoCo v2 (arXiv:1911.05722, 2003.04297), images alone: pick a view's other view out of a queue of earlier ones.

The other view goes through a tower that follows the trained one slowly. There is no shuffling of batch norm over processes: with
a ResNet and several processes each normalises over its own share, by which a view might be found; a ViT has no such leak.

Axes: B a process's share of the batch, G the global batch, D the space of the head, Q the queue, C H W the image.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

import copy

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from model.config import MocoConfig, PretrainConfig
from model.data import normalise
from model.data.views import VIEW_DRAWS, views
from model.distributed import Processes
from model.objectives.image_tower import ImageTower
from model.objectives.objective import Inputs, Objective, Outputs
from model.objectives.simclr import head


class Moco(Objective):
    """The image tower, a head, slow copies of both, and the queue."""

    towers: ImageTower
    queue_QD: Tensor
    oldest: Tensor
    draws = 2 * VIEW_DRAWS

    def __init__(self, config: PretrainConfig, settings: MocoConfig) -> None:
        super().__init__()
        self.towers = ImageTower(config.model)
        self.head = head(config.model.embed_dim, settings.head_dim)
        self.slow_towers = copy.deepcopy(self.towers).requires_grad_(False)
        self.slow_head = copy.deepcopy(self.head).requires_grad_(False)
        self.temperature, self.momentum = settings.temperature, settings.momentum
        self.register_buffer("queue_QD", F.normalize(torch.randn(settings.queue, settings.head_dim), dim=-1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Inputs) -> Outputs:
        first_BK, second_BK = inputs.draws_BK.chunk(2, dim=1)
        view_BCHW = normalise(views(inputs.image_BHWC, first_BK))
        query_BD = F.normalize(self.head(self.encode_image(view_BCHW)).float(), dim=-1)
        with torch.no_grad():
            other_BCHW = normalise(views(inputs.image_BHWC, second_BK))
            key_BD = F.normalize(self.slow_head(self.slow_towers.encode_image(other_BCHW)).float(), dim=-1)
        return Outputs((query_BD, key_BD))

    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        query_BD, key_BD = outputs.rows
        return moco_loss(query_BD, key_BD, self.queue_QD, self.temperature)

    @torch.no_grad()
    def after_step(self, outputs: Outputs, processes: Processes) -> None:
        """The slow copies follow; the keys of all processes take the place of the oldest in the queue."""
        for slow, fast in ((self.slow_towers, self.towers), (self.slow_head, self.head)):
            for slow_weight, weight in zip(slow.parameters(), fast.parameters(), strict=True):
                slow_weight.lerp_(weight, 1 - self.momentum)
        (key_GD,) = processes.gather(outputs.rows[1])
        place_G = (self.oldest + torch.arange(len(key_GD), device=key_GD.device)) % len(self.queue_QD)
        self.queue_QD[place_G] = key_GD
        self.oldest.copy_((self.oldest + len(key_GD)) % len(self.queue_QD))

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        return self.towers.encode_image(image_BCHW)

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.towers.encode_image_twice(image_BCHW)


def moco_loss(query_BD: Tensor, key_BD: Tensor, queue_QD: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of picking each query's own key out of it and the queue."""
    own_B1 = (query_BD * key_BD).sum(dim=1, keepdim=True)
    logits = torch.cat([own_B1, query_BD @ queue_QD.T], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))
