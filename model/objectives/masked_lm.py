"""Predict words left out of an image's text from the rest of the text and the image (ICMLM, arXiv:2008.01392).

Its head `tfm`: the image tower's map and the text's tokens pass through one transformer, in which all attend to all. ICMLM
takes the tokens' vectors from a trained BERT and leaves out nouns, adjectives and verbs; here the vectors are learned
along and any word may be left out. Which ones is drawn from (seed, epoch, sample).

Axes: B texts, L tokens, P places of the map, C channels, V the vocabulary, M words left out, H W the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.config import MaskedLmConfig, PretrainConfig
from model.data import normalise
from model.distributed import Processes
from model.objectives.image_tower import GridTower
from model.objectives.objective import Inputs, Objective, Outputs
from model.objectives.words import is_word, mean_over_words

INIT_STD = 0.02


class MaskedLm(Objective):
    """The image tower without its pooling, and the transformer."""

    towers: GridTower

    def __init__(self, config: PretrainConfig, settings: MaskedLmConfig) -> None:
        super().__init__()
        text = config.model.text
        self.towers = GridTower(config.model)
        self.draws = text.context_length
        self.masked_share = settings.masked_share
        self.visual_projection = nn.Linear(self.towers.visual.grid_channels, text.width)
        self.token_embedding = nn.Embedding(text.vocab_size, text.width)
        self.positional_embedding = nn.Parameter(torch.empty(text.context_length, text.width))
        self.mask_embedding = nn.Parameter(torch.empty(text.width))
        self.ln_embedding = nn.LayerNorm(text.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                text.width, text.heads, 4 * text.width, settings.dropout, activation="gelu", batch_first=True
            )
            for _ in range(text.layers)
        )
        self.output_bias = nn.Parameter(torch.zeros(text.vocab_size))
        for weight in (self.token_embedding.weight, self.positional_embedding, self.mask_embedding):
            nn.init.normal_(weight, std=INIT_STD)

    def forward(self, inputs: Inputs) -> Outputs:
        tokens_BL = inputs.tokens_BL
        is_masked_BL = choose_masked(tokens_BL, inputs.draws_BK, self.masked_share)
        logits_MV = self._logits(normalise(inputs.image_BHWC), tokens_BL, is_masked_BL)
        loss_M = F.cross_entropy(logits_MV, tokens_BL[is_masked_BL], reduction="none")
        loss_B = loss_M.new_zeros(len(tokens_BL)).index_add(0, is_masked_BL.nonzero()[:, 0], loss_M)
        return Outputs((loss_B[:, None], is_masked_BL.sum(dim=1, keepdim=True).float()))

    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        loss_B1, masked_B1 = outputs.rows
        return mean_over_words(loss_B1, masked_B1, processes)

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        return self.towers.encode_image(image_BCHW)

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.towers.encode_image_twice(image_BCHW)

    def _logits(self, image_BCHW: Tensor, tokens_BL: Tensor, is_masked_BL: Tensor) -> Tensor:
        length = tokens_BL.shape[1]
        word_BLC = torch.where(is_masked_BL[:, :, None], self.mask_embedding, self.token_embedding(tokens_BL))
        word_BLC = self.ln_embedding(word_BLC + self.positional_embedding[:length])
        grid_BPC = self.visual_projection(self.towers.visual.grid(image_BCHW)).to(word_BLC.dtype)
        x = self.dropout(torch.cat([word_BLC, grid_BPC], dim=1))
        is_padding_BL = torch.arange(length, device=tokens_BL.device) > tokens_BL.argmax(dim=1, keepdim=True)
        is_padding = F.pad(is_padding_BL, (0, grid_BPC.shape[1]))  # no place of the map is padding
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=is_padding)
        logits_MV = F.linear(x[:, :length][is_masked_BL], self.token_embedding.weight, self.output_bias)
        return logits_MV.float()


def choose_masked(tokens_BL: Tensor, draws_BK: Tensor, share: float) -> Tensor:
    """Which words (B, L) are left out: those whose number is below `share`, and the lowest of each text that has a word."""
    is_word_BL = is_word(tokens_BL)
    draw_BL = draws_BK[:, : tokens_BL.shape[1]].masked_fill(~is_word_BL, 2.0)
    lowest_B1 = draw_BL.amin(dim=1, keepdim=True)
    return is_word_BL & ((draw_BL < share) | (draw_BL == lowest_B1))
