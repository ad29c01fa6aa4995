"""The objective of the paper (section 2.3, figure 3): pick each image's text out of the batch, and each text's image.

Of the matrix of similarities a process computes only the rows of its own images (section 2.5), tile by tile, once for both
directions: of each row and column it keeps the largest logit and the sum of exponentials, and the backward pass computes
the tiles anew. So the memory is that of the features and a few tiles, and there is one product less than if each
direction had a matrix of its own.

Axes: B a process's share of the batch, G the global batch, D the shared space, N rows or columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.clip import CLIP
from model.config import PretrainConfig
from model.data import normalise
from model.distributed import Processes
from model.objectives.objective import Inputs, Objective, Outputs, ZeroShot

Merge = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(largest_G, sum_G) of a process's rows, the sums relative to exp(largest), to those of all processes' rows."""


class Contrastive(Objective):
    """CLIP."""

    towers: CLIP
    zero_shot: ClassVar[ZeroShot] = "features"

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.towers = CLIP(config.model)
        self.tile = config.train.loss_tile

    def forward(self, inputs: Inputs) -> Outputs:
        features = self.towers(normalise(inputs.image_BHWC), inputs.tokens_BL)
        return Outputs((features.image_BD, features.text_BD), (features.scale,))

    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        (image_BD, text_BD), (scale,) = outputs
        (text_GD,) = processes.gather(text_BD)
        first = processes.rank * len(text_BD)
        return contrastive_loss(image_BD, text_GD, scale, self.tile, first, processes.merge_exponentials)

    def after_step(self, outputs: Outputs, processes: Processes) -> None:
        self.towers.clip_scale()

    @property
    def scale(self) -> float:
        return self.towers.logit_scale.exp().item()

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        return self.towers.encode_image(image_BCHW)

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.towers.encode_image_twice(image_BCHW)

    def encode_text(self, tokens_TL: Tensor) -> Tensor:
        return self.towers.encode_text(tokens_TL)


def _alone(largest_G: Tensor, sum_G: Tensor) -> tuple[Tensor, Tensor]:
    return largest_G, sum_G


def contrastive_loss(
    image_BD: Tensor,
    text_GD: Tensor,
    scale: Tensor,
    tile: int,
    first: int = 0,
    merge: Merge = _alone,
    image_weight: float = 0.5,
) -> Tensor:
    """Mean cross-entropy of picking each image's text and each text's image out of the global batch.

    Row i of the images belongs to row `first` + i of the texts. `image_weight` is the share of the images' direction in
    the loss. The mean over all processes is the loss of the whole batch; its gradient is right if every process
    propagates the same multiple of its own loss, and gradients of the same thing are added up (`Processes.gather`).
    """
    loss: Tensor = _TiledLoss.apply(image_BD, text_GD, scale, tile, first, merge, image_weight)
    return loss


class _ExponentialSums:
    """log(sum(exp)) of N rows or columns that come in pieces, as the largest logit and the sum relative to it."""

    def __init__(self, like_ND: Tensor) -> None:
        self.largest_N = like_ND.new_full((len(like_ND),), -torch.inf)
        self.sum_N = like_ND.new_zeros(len(like_ND))

    def add(self, at: slice, logits: Tensor, dim: int) -> None:
        """Another tile, reduced over `dim`, for the rows or columns `at`."""
        before = self.largest_N[at]
        largest = torch.maximum(before, logits.amax(dim))
        self.sum_N[at] *= (before - largest).exp()
        self.sum_N[at] += (logits - largest.unsqueeze(dim)).exp_().sum(dim)
        self.largest_N[at] = largest


class _TiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image_BD: Tensor,
        text_GD: Tensor,
        scale: Tensor,
        tile: int,
        first: int,
        merge: Merge,
        image_weight: float,
    ) -> Tensor:
        of_images, of_texts = _ExponentialSums(image_BD), _ExponentialSums(text_GD)
        scaled_BD = scale * image_BD
        for rows, columns in _tiles(len(image_BD), len(text_GD), tile):
            logits = scaled_BD[rows] @ text_GD[columns].T
            of_images.add(rows, logits, dim=1)
            of_texts.add(columns, logits, dim=0)
        largest_G, sum_G = merge(of_texts.largest_N, of_texts.sum_N)
        ctx.save_for_backward(image_BD, text_GD, scale, of_images.largest_N, of_images.sum_N, largest_G, sum_G)
        ctx.tile, ctx.first, ctx.image_weight = tile, first, image_weight
        own = slice(first, first + len(image_BD))
        right_B = (scaled_BD * text_GD[own]).sum(dim=1)
        image_B = (of_images.largest_N - right_B) + of_images.sum_N.log()
        text_B = (largest_G[own] - right_B) + sum_G[own].log()
        return image_weight * image_B.mean() + (1 - image_weight) * text_B.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image_BD, text_GD, scale, largest_B, sum_B, largest_G, sum_G = ctx.saved_tensors
        batch = len(image_BD)
        row_weight_B1 = (ctx.image_weight / batch / sum_B)[:, None]
        column_weight_G = (1 - ctx.image_weight) / batch / sum_G
        image_gradient_BD, text_gradient_GD = torch.zeros_like(image_BD), torch.zeros_like(text_GD)
        scaled_BD = scale * image_BD
        for rows, columns in _tiles(batch, len(text_GD), ctx.tile):
            logits = scaled_BD[rows] @ text_GD[columns].T
            of_logits = (logits - largest_B[rows, None]).exp_().mul_(row_weight_B1[rows])
            of_logits.addcmul_(logits.sub_(largest_G[columns]).exp_(), column_weight_G[columns])
            of_logits.diagonal(ctx.first + rows.start - columns.start).sub_(1 / batch)
            image_gradient_BD[rows].addmm_(of_logits, text_GD[columns])
            text_gradient_GD[columns].addmm_(of_logits.T, image_BD[rows])
        factor = gradient * scale
        scale_gradient = gradient * (image_gradient_BD * image_BD).sum()
        return image_gradient_BD.mul_(factor), text_gradient_GD.mul_(factor), scale_gradient, None, None, None, None


def _tiles(rows: int, columns: int, tile: int) -> Iterator[tuple[slice, slice]]:
    for row in range(0, rows, tile):
        for column in range(0, columns, tile):
            yield slice(row, min(row + tile, rows)), slice(column, min(column + tile, columns))


@torch.no_grad()
def hits_at_1(query_BD: Tensor, target_GD: Tensor, first: int) -> Tensor:
    """How many queries are nearest to their own target; row i's own target is row `first` + i.

    Of k targets that are equally near, the own one is a k-th of a hit: features that have collapsed score chance.
    """
    similarity_BG = query_BD @ target_GD.T
    own_B = similarity_BG[torch.arange(len(query_BD)), torch.arange(first, first + len(query_BD))]
    best_B1 = similarity_BG.amax(dim=1, keepdim=True)
    tied_B = (similarity_BG == best_B1).sum(dim=1)
    return ((own_B == best_B1[:, 0]) / tied_B).sum()
