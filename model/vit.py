"""The vision transformer of the paper (section 2.4): ViT with one more layer norm before the blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import Activation, VitConfig
from model.transformer import LayerNorm, Transformer


class VisionTransformer(nn.Module):
    """Image (B, 3, image_px, image_px) -> feature (B, embed_dim), read at the class token and projected."""

    def __init__(self, config: VitConfig, embed_dim: int, activation: Activation = "quick_gelu") -> None:
        super().__init__()
        width, tokens = config.width, (config.image_px // config.patch_px) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, kernel_size=config.patch_px, stride=config.patch_px, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads, causal=False, activation=activation)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, embed_dim))
        for parameter in (self.class_embedding, self.positional_embedding, self.proj):
            nn.init.normal_(parameter, std=width**-0.5)

    @property
    def grid_channels(self) -> int:
        return self.transformer.width

    def grid(self, image_BCHW: Tensor) -> Tensor:
        """The patches' features (B, L, grid_channels), row by row."""
        patch_BLC: Tensor = self.ln_post(self._tokens(image_BCHW)[:, 1:])
        return patch_BLC

    def pool_parameters(self) -> list[nn.Parameter]:
        """What `grid` has no use for."""
        return [self.proj]

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.encode_twice(image_BCHW)[1]

    def encode_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, width) before the projection and those after it (B, embed_dim).

        The paper's linear probes are fitted on the former (`I_f` of figure 3; appendix A.2).
        """
        before_BC: Tensor = self.ln_post(self._tokens(image_BCHW)[:, 0])
        return before_BC, before_BC @ self.proj

    def _tokens(self, image_BCHW: Tensor) -> Tensor:
        patch_BLC = self.conv1(image_BCHW).flatten(2).transpose(1, 2)
        class_BLC = self.class_embedding.to(patch_BLC.dtype).expand(patch_BLC.shape[0], 1, -1)
        x_BLC = torch.cat([class_BLC, patch_BLC], dim=1) + self.positional_embedding.to(patch_BLC.dtype)
        tokens_BLC: Tensor = self.transformer(self.ln_pre(x_BLC))
        return tokens_BLC
