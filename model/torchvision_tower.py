"""Plain ResNets and EfficientNets as image towers: torchvision's networks with a linear projection for a classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision import models, ops

from model.config import TorchvisionConfig

BLOCKS = (
    models.resnet.BasicBlock,
    models.resnet.Bottleneck,
    models.efficientnet.MBConv,
    models.efficientnet.FusedMBConv,
)


class TorchvisionTower(nn.Module):
    """Image (B, 3, image_px, image_px) -> feature (B, embed_dim): the average of the last map, projected.

    Without stochastic depth: neither do the paper's towers have it, and training draws no random numbers, so that a
    resumed run is the same.
    """

    def __init__(self, config: TorchvisionConfig, embed_dim: int) -> None:
        super().__init__()
        self.trunk = models.get_model(config.name, weights=None)
        if isinstance(self.trunk, models.ResNet):
            channels = self.trunk.fc.in_features
            self.trunk.fc = nn.Identity()
        else:
            channels = self.trunk.classifier[-1].in_features
            self.trunk.classifier = nn.Identity()
        for module in self.trunk.modules():
            if isinstance(module, ops.StochasticDepth):
                module.p = 0.0
        self.grid_channels: int = channels
        self.proj = nn.Linear(channels, embed_dim, bias=False)
        nn.init.normal_(self.proj.weight, std=channels**-0.5)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.encode_twice(image_BCHW)[1]

    def encode_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Features before the projection (B, grid_channels) and after it (B, embed_dim)."""
        before_BC: Tensor = self.trunk(image_BCHW)
        return before_BC, self.proj(before_BC)

    def grid(self, image_BCHW: Tensor) -> Tensor:
        """The last map as (B, L, grid_channels), row by row."""
        trunk = self.trunk
        if isinstance(trunk, models.ResNet):
            x_BCHW = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(image_BCHW))))
            x_BCHW = trunk.layer4(trunk.layer3(trunk.layer2(trunk.layer1(x_BCHW))))
        else:
            x_BCHW = trunk.features(image_BCHW)
        grid_BLC: Tensor = x_BCHW.flatten(2).transpose(1, 2)
        return grid_BLC

    def pool_parameters(self) -> list[nn.Parameter]:
        """What `grid` has no use for."""
        return list(self.proj.parameters())
