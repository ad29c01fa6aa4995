"""The image tower alone, for objectives that have no use for CLIP's text tower."""

from __future__ import annotations

from torch import Tensor, nn

from model.clip import CLIP
from model.config import ClipConfig


class ImageTower(nn.Module):
    """CLIP's image tower under the names that it has there; `embed_dim` features of an image."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.visual = CLIP(config).visual

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """Features (B, embed_dim) of normalised images."""
        image_BD: Tensor = self.visual(image_BCHW)
        return image_BD

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Features before the tower's projection, as CLIP's, and after it (B, embed_dim)."""
        return self.visual.encode_twice(image_BCHW)


class GridTower(ImageTower):
    """The image tower up to its last map; what would pool the map is not trained."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config)
        for weight in self.visual.pool_parameters():
            weight.requires_grad_(False)

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """The mean of the map (B, grid_channels)."""
        return self.visual.grid(image_BCHW).mean(dim=1)

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the map, twice: nothing projects it."""
        mean_BC = self.encode_image(image_BCHW)
        return mean_BC, mean_BC
