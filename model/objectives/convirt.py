"""ConVIRT (arXiv:2010.00747), which CLIP simplifies (section 2.3): non-linear heads, a fixed temperature, image to text more.

A head is linear, ReLU, linear; the first is the tower's own projection. Its augmentations, its pretrained towers and its
sampling of one sentence are not part of this.

Axes: B, T texts, L tokens, D the shared space, C H W the image.
"""

from __future__ import annotations

import math

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.config import ConvirtConfig, PretrainConfig
from model.data import normalise
from model.distributed import Processes
from model.objectives.contrastive import Contrastive, contrastive_loss
from model.objectives.objective import Inputs, Outputs


class Convirt(Contrastive):
    """CLIP's towers with what makes its projections non-linear."""

    def __init__(self, config: PretrainConfig, settings: ConvirtConfig) -> None:
        super().__init__(config)
        dim = config.model.embed_dim
        self.image_head, self.text_head = (nn.Sequential(nn.ReLU(), nn.Linear(dim, dim)) for _ in range(2))
        self.image_weight = settings.image_weight
        nn.init.constant_(self.towers.logit_scale, -math.log(settings.temperature))
        self.towers.logit_scale.requires_grad_(False)

    def forward(self, inputs: Inputs) -> Outputs:
        image_BD = F.normalize(self.encode_image(normalise(inputs.image_BHWC)).float(), dim=-1)
        text_BD = F.normalize(self.encode_text(inputs.tokens_BL).float(), dim=-1)
        return Outputs((image_BD, text_BD), (self.towers.logit_scale.exp(),))

    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        (image_BD, text_BD), (scale,) = outputs
        (text_GD,) = processes.gather(text_BD)
        first, merge = processes.rank * len(text_BD), processes.merge_exponentials
        return contrastive_loss(image_BD, text_GD, scale, self.tile, first, merge, self.image_weight)

    def after_step(self, outputs: Outputs, processes: Processes) -> None:
        """The temperature is fixed."""

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        return self.encode_image_twice(image_BCHW)[1]

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        before_BF, projected_BD = super().encode_image_twice(image_BCHW)
        return before_BF, self.image_head(projected_BD)

    def encode_text(self, tokens_TL: Tensor) -> Tensor:
        text_TD: Tensor = self.text_head(super().encode_text(tokens_TL))
        return text_TD
