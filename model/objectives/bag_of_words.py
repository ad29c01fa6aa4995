"""Predict the bag of words of an image's text (figure 2).

The paper does not say how. Here a linear layer on the image's feature gives a distribution over the vocabulary, and the
target is that of the text's distinct words in equal shares (as Joulin et al. 2016, arXiv:1511.02251, and Mahajan et al. 2018 do
with tags). The loss is the divergence between the two, which is 0 when every word is predicted: the cross-entropy less what no
model can save.

Axes: B, T texts, L tokens, V the vocabulary, C H W the image.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from model.config import PretrainConfig
from model.data import normalise
from model.distributed import Processes
from model.objectives.image_tower import ImageTower
from model.objectives.objective import Inputs, Objective, Outputs, ZeroShot
from model.objectives.words import bags


class BagOfWords(Objective):
    """The image tower and a linear layer on its features."""

    towers: ImageTower
    zero_shot: ClassVar[ZeroShot] = "scores"

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.towers = ImageTower(config.model)
        self.words = nn.Linear(config.model.embed_dim, config.model.text.vocab_size)

    def forward(self, inputs: Inputs) -> Outputs:
        bag_BV = bags(inputs.tokens_BL, self.words.out_features)
        return Outputs((bag_loss(self._log_probability(normalise(inputs.image_BHWC)), bag_BV)[:, None],))

    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        (loss_B1,) = outputs.rows
        return loss_B1.mean()

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        return self.towers.encode_image(image_BCHW)

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.towers.encode_image_twice(image_BCHW)

    def score_texts(self, image_BCHW: Tensor, tokens_TL: Tensor) -> Tensor:
        bag_TV = bags(tokens_TL, self.words.out_features)
        score_BT: Tensor = self._log_probability(image_BCHW) @ bag_TV.T
        return score_BT

    def _log_probability(self, image_BCHW: Tensor) -> Tensor:
        logits_BV: Tensor = self.words(self.encode_image(image_BCHW))
        return torch.log_softmax(logits_BV.float(), dim=-1)


def bag_loss(log_probability_BV: Tensor, bag_BV: Tensor) -> Tensor:
    """The divergence of each prediction from its bag (B)."""
    return (torch.xlogy(bag_BV, bag_BV) - bag_BV * log_probability_BV).sum(dim=1)
