"""CLIP: an image tower, a text tower, a linear projection from each into one space, and a temperature (figure 3).

Axes: B batch, D the shared space, L tokens, C H W the image.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.config import ClipConfig, ResNetConfig, VitConfig
from model.resnet import ModifiedResNet
from model.text import TextTransformer
from model.vit import VisionTransformer

if TYPE_CHECKING:
    from model.torchvision_tower import TorchvisionTower


class Features(NamedTuple):
    """What the loss is made of: unit vectors of both sides and the factor of their products."""

    image_BD: Tensor
    text_BD: Tensor
    scale: Tensor


class CLIP(TextTransformer):
    """Both towers. It is a text transformer that also sees, because the official checkpoints name their parameters so:
    the image tower's begin with `visual.`, the text tower's with nothing.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config.text, config.embed_dim, config.activation)
        self.config = config
        self.visual: VisionTransformer | ModifiedResNet | TorchvisionTower
        if isinstance(config.vision, VitConfig):
            self.visual = VisionTransformer(config.vision, config.embed_dim, config.activation)
        elif isinstance(config.vision, ResNetConfig):
            self.visual = ModifiedResNet(config.vision, config.embed_dim)
        else:
            from model.torchvision_tower import TorchvisionTower  # torchvision takes seconds to import

            self.visual = TorchvisionTower(config.vision, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.init_temperature)))

    def text_parameters(self) -> list[nn.Parameter]:
        """Those of the text tower alone."""
        others = {id(weight) for weight in (*self.visual.parameters(), self.logit_scale)}
        return [weight for weight in self.parameters() if id(weight) not in others]

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """Features (B, D) of normalised images, not normalised themselves."""
        features_BD: Tensor = self.visual(image_BCHW)
        return features_BD

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The features before the projection (B, width) and after it (B, D), in one pass; the same where a tower has no
        projection of its own.
        """
        return self.visual.encode_twice(image_BCHW)

    def forward(self, image_BCHW: Tensor, tokens_BL: Tensor) -> Features:
        """Unit features of both sides (fp32) and the scale of their products."""
        image_BD = F.normalize(self.encode_image(image_BCHW).float(), dim=-1)
        text_BD = F.normalize(self.encode_text(tokens_BL).float(), dim=-1)
        return Features(image_BD, text_BD, self.logit_scale.exp())

    @torch.no_grad()
    def clip_scale(self) -> None:
        """Keep the scale at most `max_logit_scale` (section 2.5); call it after each optimiser step."""
        self.logit_scale.clamp_(max=math.log(self.config.max_logit_scale))
