"""CLIP with a bag of words for a text encoder (figure 2): the mean of the words' vectors, linear in the words.

Axes: B, T texts, L tokens, D the shared space, C H W the image.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.config import PretrainConfig
from model.data import normalise
from model.distributed import Processes
from model.objectives.contrastive import contrastive_loss
from model.objectives.image_tower import ImageTower
from model.objectives.objective import Inputs, Objective, Outputs, ZeroShot
from model.objectives.words import is_word


class BagOfWordsContrastive(Objective):
    """The image tower, a vector for each word, and the temperature."""

    towers: ImageTower
    zero_shot: ClassVar[ZeroShot] = "features"

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.towers = ImageTower(config.model)
        self.word_embedding = nn.Embedding(config.model.text.vocab_size, config.model.embed_dim)
        nn.init.normal_(self.word_embedding.weight, std=config.model.embed_dim**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.model.init_temperature)))
        self.max_logit_scale = config.model.max_logit_scale
        self.tile = config.train.loss_tile

    def forward(self, inputs: Inputs) -> Outputs:
        image_BD = F.normalize(self.encode_image(normalise(inputs.image_BHWC)).float(), dim=-1)
        text_BD = F.normalize(self.encode_text(inputs.tokens_BL).float(), dim=-1)
        return Outputs((image_BD, text_BD), (self.logit_scale.exp(),))

    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        (image_BD, text_BD), (scale,) = outputs
        (text_GD,) = processes.gather(text_BD)
        first = processes.rank * len(text_BD)
        return contrastive_loss(image_BD, text_GD, scale, self.tile, first, processes.merge_exponentials)

    @torch.no_grad()
    def after_step(self, outputs: Outputs, processes: Processes) -> None:
        self.logit_scale.clamp_(max=math.log(self.max_logit_scale))

    @property
    def scale(self) -> float:
        return self.logit_scale.exp().item()

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        return self.towers.encode_image(image_BCHW)

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.towers.encode_image_twice(image_BCHW)

    def encode_text(self, tokens_TL: Tensor) -> Tensor:
        is_word_TL1 = is_word(tokens_TL)[:, :, None]
        sum_TD = (self.word_embedding(tokens_TL) * is_word_TL1).sum(dim=1)
        text_TD: Tensor = sum_TD / is_word_TL1.sum(dim=1).clamp(min=1)
        return text_TD
