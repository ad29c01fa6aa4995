"""Gradient checkpointing (section 2.5; Chen et al. 2016, arXiv:1604.06174): a block's activations are computed again for its
gradients, not kept. The second pass drops what the first dropped, and batch norm's running statistics take in the first alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from model.gradients import batch_norms
from model.resnet import Bottleneck
from model.transformer import Block

BLOCKS = (Block, Bottleneck, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of all towers and decoders."""
    kinds: tuple[type[nn.Module], ...] = BLOCKS
    if any(type(module).__module__.startswith("torchvision.") for module in model.modules()):
        from model.torchvision_tower import BLOCKS as OF_TORCHVISION  # torchvision takes seconds to import

        kinds = (*BLOCKS, *OF_TORCHVISION)
    return [module for module in model.modules() if isinstance(module, kinds)]


def recompute_blocks(model: nn.Module) -> int:
    """Let the blocks of all towers and decoders compute their activations twice; returns how many there are."""
    blocks = blocks_of(model)
    for block in blocks:
        # Of the instance, not a module around it: names of weights stay those of the official checkpoints.
        setattr(block, "forward", partial(_twice, block, block.forward))  # noqa: B010
    return len(blocks)


def _twice(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _statistics_aside(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _statistics_aside(block: nn.Module) -> Iterator[None]:
    """Batch norm computes what it did, and learns what it learns into copies that are thrown away."""
    kept = [(norm, name, buffer) for norm in batch_norms(block) for name, buffer in norm.named_buffers()]
    for norm, name, buffer in kept:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer)
