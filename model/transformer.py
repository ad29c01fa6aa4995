"""The transformer both towers are made of: pre-norm blocks with QuickGELU or GELU.

Parameter names are those of the official checkpoints (openai/CLIP), so that their weights load as they are.
Axes: B batch, L tokens, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.config import Activation


class LayerNorm(nn.LayerNorm):
    """Layer norm that is computed in fp32 whatever the precision of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the GELU of the released models; the exact one gives other features."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention, causal or not. Named and initialised like torch's own module."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x_BLC: Tensor) -> Tensor:
        qkv_BLC = F.linear(x_BLC, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (split_heads(part, self.heads) for part in qkv_BLC.chunk(3, dim=-1))
        out_BLC: Tensor = self.out_proj(join_heads(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)))
        return out_BLC


class Mlp(nn.Module):
    """Four times as wide inside."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGELU() if activation == "quick_gelu" else nn.GELU()
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        out_BLC: Tensor = self.c_proj(self.gelu(self.c_fc(x_BLC)))
        return out_BLC


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, causal: bool, activation: Activation) -> None:
        super().__init__()
        self.attn = Attention(width, heads, causal)
        self.ln_1 = LayerNorm(width)
        self.mlp = Mlp(width, activation)
        self.ln_2 = LayerNorm(width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        x_BLC = x_BLC + self.attn(self.ln_1(x_BLC))
        mlp_BLC: Tensor = self.mlp(self.ln_2(x_BLC))
        return x_BLC + mlp_BLC


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(
        self, width: int, layers: int, heads: int, causal: bool, activation: Activation = "quick_gelu"
    ) -> None:
        super().__init__()
        self.width = width
        self.resblocks = nn.ModuleList(Block(width, heads, causal, activation) for _ in range(layers))

    def forward(self, x_BLC: Tensor) -> Tensor:
        for block in self.resblocks:
            x_BLC = block(x_BLC)
        return x_BLC

    def init_as_gpt2(self) -> None:
        """Weights as in GPT-2: what ends a residual branch is scaled down by the number of branches."""
        branch_std = self.width**-0.5 * (2 * len(self.resblocks)) ** -0.5
        for block in self.resblocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.attn.in_proj_weight, std=self.width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=branch_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * self.width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=branch_std)


def split_heads(x_BLC: Tensor, heads: int) -> Tensor:
    """(B, L, C) -> (B, heads, L, C / heads)."""
    batch, length, channels = x_BLC.shape
    return x_BLC.view(batch, length, heads, channels // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, L, C / heads) -> (B, L, C)."""
    return x.transpose(1, 2).flatten(2)
