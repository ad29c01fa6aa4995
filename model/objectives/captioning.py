"""Predict the text of an image word by word, forwards and backwards (the transformer of figure 2; VirTex, arXiv:2006.06666).

Two decoders of one vocabulary read the image tower's map through cross-attention. As in VirTex, layer norms come after the
residual branches, the output layer is the word embedding, and the losses of both directions add up.

Axes: B, T texts, L tokens, C channels, V the vocabulary, H W the image.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.config import CaptioningConfig, PretrainConfig, TextConfig
from model.data import normalise
from model.distributed import Processes
from model.objectives.image_tower import GridTower
from model.objectives.objective import Inputs, Objective, Outputs, ZeroShot
from model.objectives.words import mean_over_words

SCORED_AT_ONCE = 4_096  # pairs of an image and a text
INIT_STD = 0.02


class Captioning(Objective):
    """The image tower without its pooling, and a decoder for each direction."""

    towers: GridTower
    zero_shot: ClassVar[ZeroShot] = "scores"

    def __init__(self, config: PretrainConfig, settings: CaptioningConfig) -> None:
        super().__init__()
        text = config.model.text
        self.towers = GridTower(config.model)
        self.visual_projection = nn.Linear(self.towers.visual.grid_channels, text.width)
        self.token_embedding = nn.Embedding(text.vocab_size, text.width)
        self.positional_embedding = nn.Parameter(torch.empty(text.context_length, text.width))
        self.ln_embedding = nn.LayerNorm(text.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.forwards, self.backwards = (_decoder(text, settings.dropout) for _ in range(2))
        self.output_bias = nn.Parameter(torch.zeros(text.vocab_size))
        for weight in (self.token_embedding.weight, self.positional_embedding):
            nn.init.normal_(weight, std=INIT_STD)

    def forward(self, inputs: Inputs) -> Outputs:
        grid_BLC = self._grid(normalise(inputs.image_BHWC))
        loss_B, predicted_B = self._losses(grid_BLC, inputs.tokens_BL)
        return Outputs((loss_B[:, None], predicted_B[:, None]))

    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        loss_B1, predicted_B1 = outputs.rows
        return mean_over_words(loss_B1, predicted_B1, processes)

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        return self.towers.encode_image(image_BCHW)

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.towers.encode_image_twice(image_BCHW)

    def score_texts(self, image_BCHW: Tensor, tokens_TL: Tensor) -> Tensor:
        grid_BLC = self._grid(image_BCHW)
        parts = []
        for part_TL in torch.split(tokens_TL, max(1, SCORED_AT_ONCE // len(grid_BLC))):
            images, texts = len(grid_BLC), len(part_TL)
            paired_grid = grid_BLC.repeat_interleave(texts, dim=0)
            loss, predicted = self._losses(paired_grid, part_TL.repeat(images, 1))
            parts.append((-loss / (2 * predicted)).view(images, texts))
        return torch.cat(parts, dim=1)

    def _grid(self, image_BCHW: Tensor) -> Tensor:
        grid_BLC: Tensor = self.visual_projection(self.towers.visual.grid(image_BCHW))
        return grid_BLC

    def _losses(self, grid_BLC: Tensor, tokens_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Of each text: the sum of its tokens' losses in both directions, and how many tokens one direction predicts."""
        end_B = tokens_BL.argmax(dim=1)  # the end has the largest id
        loss_B = self._one_way(self.forwards, grid_BLC, tokens_BL, end_B)
        loss_B = loss_B + self._one_way(self.backwards, grid_BLC, reverse(tokens_BL, end_B), end_B)
        return loss_B, end_B.float()

    def _one_way(self, decoder: nn.ModuleList, grid_BLC: Tensor, tokens_BL: Tensor, end_B: Tensor) -> Tensor:
        given_BL, next_BL = tokens_BL[:, :-1], tokens_BL[:, 1:]
        length = given_BL.shape[1]
        x_BLC = self.token_embedding(given_BL) + self.positional_embedding[:length]
        x_BLC = self.dropout(self.ln_embedding(x_BLC))
        later_LL = torch.ones(length, length, dtype=torch.bool, device=tokens_BL.device).triu(1)
        for layer in decoder:
            x_BLC = layer(x_BLC, grid_BLC, tgt_mask=later_LL, tgt_is_causal=True)
        logits_BLV = F.linear(x_BLC, self.token_embedding.weight, self.output_bias)
        return caption_loss(logits_BLV.float(), next_BL, end_B)


def caption_loss(logits_BLV: Tensor, next_BL: Tensor, end_B: Tensor) -> Tensor:
    """The cross-entropy of each text's first `end` tokens, summed (B): of what is predicted, the rest is padding."""
    is_predicted_BL = torch.arange(next_BL.shape[1], device=next_BL.device) < end_B[:, None]
    loss_BL = F.cross_entropy(logits_BLV.flatten(0, 1), next_BL.flatten(), reduction="none").view_as(next_BL)
    return (loss_BL * is_predicted_BL).sum(dim=1)


def reverse(tokens_BL: Tensor, end_B: Tensor) -> Tensor:
    """Texts from their ends, at `end`, to their starts; padding stays behind."""
    position_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    from_end_BL = end_B[:, None] - position_L
    return tokens_BL.gather(1, torch.where(from_end_BL >= 0, from_end_BL, position_L))


def _decoder(text: TextConfig, dropout: float) -> nn.ModuleList:
    return nn.ModuleList(
        nn.TransformerDecoderLayer(text.width, text.heads, 4 * text.width, dropout, activation="gelu", batch_first=True)
        for _ in range(text.layers)
    )
