"""The modified ResNet of the paper (section 2.4): ResNet-D, anti-aliased strides, attention pool.

Every convolution has stride 1 but the first; where a ResNet strides, an average pool (rect-2 blur) halves the map.
Axes: B batch, C channels, H and W the map, L = H * W + 1 tokens of the pool, D the shared space.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.config import ResNetConfig
from model.transformer import join_heads, split_heads

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, average pool where it strides, 1x1; the shortcut pools before its 1x1."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = EXPANSION * width
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        nn.init.zeros_(self.bn3.weight)  # each block starts as its shortcut
        self.downsample: nn.Module | None = None
        if stride > 1 or channels_in != channels_out:
            # The names "-1", "0", "1" are those of the official checkpoints.
            shortcut = OrderedDict[str, nn.Module]()
            shortcut["-1"] = nn.AvgPool2d(stride)
            shortcut["0"] = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            shortcut["1"] = nn.BatchNorm2d(channels_out)
            self.downsample = nn.Sequential(shortcut)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        out_BCHW = F.relu(self.bn2(self.conv2(out_BCHW)), inplace=True)
        out_BCHW = self.bn3(self.conv3(self.avgpool(out_BCHW)))
        shortcut_BCHW = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return F.relu(out_BCHW + shortcut_BCHW, inplace=True)


class AttentionPool(nn.Module):
    """One attention layer whose only query is the mean of the map (section 2.4)."""

    def __init__(self, grid: int, channels: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(grid**2 + 1, channels))
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, embed_dim)
        nn.init.normal_(self.positional_embedding, std=channels**-0.5)
        for layer in (self.k_proj, self.q_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=channels**-0.5)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BLC = x_BCHW.flatten(2).transpose(1, 2)
        x_BLC = torch.cat([x_BLC.mean(dim=1, keepdim=True), x_BLC], dim=1)
        x_BLC = x_BLC + self.positional_embedding.to(x_BLC.dtype)
        q = split_heads(self.q_proj(x_BLC[:, :1]), self.heads)
        k = split_heads(self.k_proj(x_BLC), self.heads)
        v = split_heads(self.v_proj(x_BLC), self.heads)
        pooled_BD: Tensor = self.c_proj(join_heads(F.scaled_dot_product_attention(q, k, v)))[:, 0]
        return pooled_BD


class ModifiedResNet(nn.Module):
    """Image (B, 3, image_px, image_px) -> feature (B, embed_dim).

    In training each process normalises over its own share of the batch, as is usual; the running statistics that
    evaluation uses are those of process 0.
    """

    def __init__(self, config: ResNetConfig, embed_dim: int) -> None:
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        stages = [(width, config.blocks[0], 1)] + [(width << i, config.blocks[i], 2) for i in (1, 2, 3)]
        channels = width
        layers = []
        for stage_width, blocks, stride in stages:
            layers.append(_stage(channels, stage_width, blocks, stride))
            channels = EXPANSION * stage_width
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.grid_channels = channels
        self.attnpool = AttentionPool(config.image_px // 32, channels, config.heads, embed_dim)

    def grid(self, image_BCHW: Tensor) -> Tensor:
        """The last map as (B, L, grid_channels), row by row."""
        return self._map(image_BCHW).flatten(2).transpose(1, 2)

    def pool_parameters(self) -> list[nn.Parameter]:
        """What `grid` has no use for."""
        return list(self.attnpool.parameters())

    def forward(self, image_BCHW: Tensor) -> Tensor:
        image_BD: Tensor = self.attnpool(self._map(image_BCHW))
        return image_BD

    def encode_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The feature as it is, twice: the attention pool is the projection too (appendix A.2)."""
        image_BD = self.forward(image_BCHW)
        return image_BD, image_BD

    def _map(self, image_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu(self.bn1(self.conv1(image_BCHW)), inplace=True)
        x_BCHW = F.relu(self.bn2(self.conv2(x_BCHW)), inplace=True)
        x_BCHW = self.avgpool(F.relu(self.bn3(self.conv3(x_BCHW)), inplace=True))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x_BCHW = stage(x_BCHW)
        map_BCHW: Tensor = x_BCHW
        return map_BCHW


def _stage(channels_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels_in, width, stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1)))
