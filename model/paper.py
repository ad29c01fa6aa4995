"""The nine models of the paper, with every hyperparameter of its tables 18 (common), 19 (ResNets) and 20 (ViTs).

No torch here. Table 18 is what TrainConfig has as defaults: batch 32,768, 32 epochs, weight decay 0.2, 2,000 steps of
warm-up, temperature at most 1/100, vocabulary 49,408 (section 2.4 says 49,152 entries and 76 tokens; the released
models have 49,408 and 77), Adam 0.9 / 0.98 / 1e-6 for ViTs and 0.9 / 0.999 / 1e-8 for ResNets. Adam's statistics and the
text encoder's weights are in half precision, the latter rounded stochastically (section 2.5).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from model.config import ClipConfig, ResNetConfig, Settings, TextConfig, TrainConfig, VitConfig

HALF_PRECISION: dict[str, Any] = {"adam_statistics": "fp16", "text_weights": "fp16_stochastic"}


class PaperModel(Settings):
    """One row of table 19 or 20."""

    title: str = Field(description="What the paper calls it")
    model: ClipConfig
    train: TrainConfig
    start_from: str = Field("", description="The one whose weights it starts from")


def _resnet(
    title: str,
    learning_rate: float,
    embed_dim: int,
    image_px: int,
    blocks: tuple[int, int, int, int],
    feature_width: int,
    text_width: int,
    text_heads: int,
) -> PaperModel:
    """A row of table 19; `feature_width` is that of the last stage, 32 times the stem's, in heads of 64 channels."""
    vision = ResNetConfig(image_px=image_px, width=feature_width // 32, blocks=blocks, heads=feature_width // 64)
    return PaperModel(
        title=title,
        model=ClipConfig(
            embed_dim=embed_dim, vision=vision, text=TextConfig(width=text_width, layers=12, heads=text_heads)
        ),
        train=TrainConfig(learning_rate=learning_rate, adam_beta2=0.999, adam_eps=1e-8, **HALF_PRECISION),
    )


def _vit(
    title: str,
    learning_rate: float,
    embed_dim: int,
    image_px: int,
    patch_px: int,
    layers: int,
    width: int,
    heads: int,
    text_width: int,
    text_heads: int,
    epochs: int = 32,
    start_from: str = "",
) -> PaperModel:
    """A row of table 20."""
    return PaperModel(
        title=title,
        model=ClipConfig(
            embed_dim=embed_dim,
            vision=VitConfig(image_px=image_px, patch_px=patch_px, width=width, layers=layers, heads=heads),
            text=TextConfig(width=text_width, layers=12, heads=text_heads),
        ),
        train=TrainConfig(learning_rate=learning_rate, epochs=epochs, **HALF_PRECISION),
        start_from=start_from,
    )


PAPER_MODELS: dict[str, PaperModel] = {
    # Table 19: learning rate, embedding, input, blocks, width of the ResNet, width and heads of the text transformer.
    "rn50": _resnet("RN50", 5e-4, 1024, 224, (3, 4, 6, 3), 2048, 512, 8),
    "rn101": _resnet("RN101", 5e-4, 512, 224, (3, 4, 23, 3), 2048, 512, 8),
    "rn50x4": _resnet("RN50x4", 5e-4, 640, 288, (4, 6, 10, 6), 2560, 640, 10),
    "rn50x16": _resnet("RN50x16", 4e-4, 768, 384, (6, 8, 18, 8), 3072, 768, 12),
    "rn50x64": _resnet("RN50x64", 3.6e-4, 1024, 448, (3, 15, 36, 10), 4096, 1024, 16),
    # Table 20: learning rate, embedding, input, patch; layers, width, heads of the ViT; width, heads of the text.
    "vit-b-32": _vit("ViT-B/32", 5e-4, 512, 224, 32, 12, 768, 12, 512, 8),
    "vit-b-16": _vit("ViT-B/16", 5e-4, 512, 224, 16, 12, 768, 12, 512, 8),
    "vit-l-14": _vit("ViT-L/14", 4e-4, 768, 224, 14, 24, 1024, 16, 768, 12),
    # ViT-L/14 for one more epoch at the higher resolution (section 2.5).
    "vit-l-14-336": _vit("ViT-L/14@336px", 2e-5, 768, 336, 14, 24, 1024, 16, 768, 12, 1, "vit-l-14"),
}
