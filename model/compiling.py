"""torch.compile for a run's steps: block by block, so that a stack of like blocks is compiled once and DDP still sends the
gradients of one block while those of the one before are computed.

A batch is as long as its longest caption: what reads texts is compiled for any length, once.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from model.errors import InputError
from model.recompute import blocks_of
from model.transformer import Block

KINDS_AT_MOST = 256
"""Ways to compile one block's code. EfficientNet-B7 has some 30 shapes of blocks; torch's own limit is 8, and then it stops."""


def require_compiler(device: torch.device) -> None:
    """Compile a very small thing as blocks will be. Raises InputError if this machine cannot."""
    from torch._dynamo.exc import TorchDynamoException  # it takes seconds to import

    try:
        torch.compile(_squared)(torch.ones(2, device=device))
    except TorchDynamoException as error:
        needed = "Triton, a C compiler and Python's headers" if device.type == "cuda" else "a C++ compiler such as g++"
        why = next(line.strip() for line in str(error).splitlines() if line.strip())
        raise InputError(
            f"train.compile: torch cannot compile for the {device.type} here ({why}); install {needed}, or set it to false"
        ) from error


def _squared(x: Tensor) -> Tensor:
    return x * x


def compile_blocks(model: nn.Module) -> int:
    """Compile the blocks of all towers and decoders, when they are first used; returns how many there are.

    Before `recompute_blocks`, whose second pass then runs what is compiled.
    """
    torch._dynamo.config.recompile_limit = KINDS_AT_MOST
    # It would cut a block where one of DDP's buckets ends; blocks are cuts enough.
    torch._dynamo.config.optimize_ddp = False
    blocks = blocks_of(model)
    for block in blocks:
        # Of the instance, not a module around it: names of weights stay those of the official checkpoints.
        setattr(block, "forward", torch.compile(block.forward, dynamic=_reads_texts(block)))  # noqa: B010
    return len(blocks)


def _reads_texts(block: nn.Module) -> bool:
    if isinstance(block, Block):
        return block.attn.causal
    return isinstance(block, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer)


def uncompiled() -> AbstractContextManager[object]:
    """Where blocks run as they are, on inputs whose shapes are not those of a step."""
    eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return eager
