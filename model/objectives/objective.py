"""What a run learns: the seam between the trainer and the objectives.

An objective owns the towers and whatever else it trains. The trainer gives it a batch, gets rows and from them a loss, in
two steps, because a large batch may pass through `forward` in pieces (model/gradients.py) while a loss that compares the
samples of a batch needs all of them, and those of the other processes. Evaluation asks it for features of images always,
and for what it can say of texts.

Axes: B a process's share of the batch, C H W the image, L tokens, K random numbers, D and F features, T texts.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from model.clip import CLIP
from model.distributed import Processes
from model.errors import InputError

ZeroShot = Literal["features", "scores", "none"]


class Inputs(NamedTuple):
    """A process's share of a batch."""

    image_BHWC: Tensor  # uint8
    tokens_BL: Tensor
    draws_BK: Tensor  # in [0, 1), the same for a sample in an epoch wherever and however often it is computed

    def to(self, device: torch.device) -> Inputs:
        """The same on a device; from pinned memory without waiting for it."""
        return Inputs(*(part.to(device, non_blocking=True) for part in self))

    def split(self, size: int) -> list[Inputs]:
        """The same in pieces of `size` samples."""
        return [Inputs(*parts) for parts in zip(*(torch.split(part, size) for part in self), strict=True)]


class Outputs(NamedTuple):
    """What a loss is made of."""

    rows: tuple[Tensor, ...]  # (B, k) each; a row is of one sample alone (but for batch norm)
    shared: tuple[Tensor, ...] = ()  # scalars: the parameters that the loss itself uses


class Objective(nn.Module, ABC):
    """Base of all objectives. What `towers` holds is saved under its own names, as the official checkpoints have them."""

    towers: nn.Module
    image_is_locked: bool = False
    draws: int = 0  # how many random numbers a sample needs
    zero_shot: ClassVar[ZeroShot] = "none"  # how it judges texts: by `encode_text`, by `score_texts`, or not at all

    @abstractmethod
    def forward(self, inputs: Inputs) -> Outputs:
        """The rows of a share, or of a piece of it. All trained parameters take part."""

    @abstractmethod
    def loss(self, outputs: Outputs, processes: Processes) -> Tensor:
        """The loss of this share; the mean over processes is that of the whole batch, as are the gradients."""

    def after_step(self, outputs: Outputs, processes: Processes) -> None:
        """What follows a step of the optimiser; `outputs` are those of the step, without their graph."""

    def lock(self, tower: Literal["image", "text"]) -> None:
        """Let a tower learn nothing (Zhai et al. 2021, LiT, arXiv:2111.07991). The image tower then stays in evaluation mode:
        its batch norm normalises by the running statistics that it has. Raises InputError if there is no text tower.
        """
        visual = self.towers.get_submodule("visual")
        if tower == "text" and not isinstance(self.towers, CLIP):
            raise InputError(
                "train.locked is text, but this objective has no text tower; leave it at none, or lock the image"
            )
        of_text = self.towers.text_parameters() if isinstance(self.towers, CLIP) else []
        for weight in visual.parameters() if tower == "image" else of_text:
            weight.requires_grad_(False)
        self.image_is_locked = tower == "image"
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As torch's, but for what is locked."""
        super().train(mode)
        if self.image_is_locked:
            self.towers.get_submodule("visual").eval()
        return self

    @property
    def scale(self) -> float:
        """The factor between the similarity of an image and a text and the logit of their match."""
        return 1.0

    @abstractmethod
    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """Features (B, D) of normalised images."""

    @abstractmethod
    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """What a linear probe is fitted on (B, F), before any projection, and what `encode_image` gives, in one pass."""

    def encode_text(self, tokens_TL: Tensor) -> Tensor:
        """Features (T, D) of texts, in the space of the images'."""
        raise NotImplementedError(f"{type(self).__name__} has no features of texts")

    def score_texts(self, image_BCHW: Tensor, tokens_TL: Tensor) -> Tensor:
        """How well each text describes each image (B, T): the mean log-probability of its words."""
        raise NotImplementedError(f"{type(self).__name__} scores no texts")
