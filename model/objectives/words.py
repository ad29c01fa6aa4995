"""Texts as words: what several objectives predict.

Axes: B texts, L tokens, V the vocabulary, G the global batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.distributed import Processes


def is_word(tokens_BL: Tensor) -> Tensor:
    """Which tokens (B, L) are of the text: neither its start, nor its end (the largest id), nor padding."""
    position_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    return (position_L > 0) & (position_L < tokens_BL.argmax(dim=1, keepdim=True))


def bags(tokens_BL: Tensor, vocabulary: int) -> Tensor:
    """Each text (B, V) as equal shares of its distinct words, summing to 1; zeros for a text of none."""
    bag_BV = torch.zeros(len(tokens_BL), vocabulary, device=tokens_BL.device)
    bag_BV.scatter_reduce_(1, tokens_BL, is_word(tokens_BL).float(), "amax")
    return bag_BV / bag_BV.sum(dim=1, keepdim=True).clamp(min=1)


def mean_over_words(loss_B1: Tensor, words_B1: Tensor, processes: Processes) -> Tensor:
    """From sums over each text's predicted words and their numbers to this process's share of the mean over all words."""
    (words_G1,) = processes.gather(words_B1)
    return processes.world_size * loss_B1.sum() / words_G1.sum().clamp(min=1)
