"""The settings of the objectives. No torch here, so that flows stay light."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from model.settings import Settings


class ContrastiveConfig(Settings):
    """CLIP: pick each image's text out of the batch, and each text's image (figure 3)."""

    kind: Literal["contrastive"] = "contrastive"


class BagOfWordsContrastiveConfig(Settings):
    """CLIP with a linear bag-of-words text encoder (figures 2 and 3)."""

    kind: Literal["bag_of_words_contrastive"] = "bag_of_words_contrastive"


class BagOfWordsConfig(Settings):
    """Predict the words of an image's text, in no order (figure 2)."""

    kind: Literal["bag_of_words"] = "bag_of_words"


class CaptioningConfig(Settings):
    """Predict each image's text word by word, forwards and backwards (the transformer of figure 2, "similar to VirTex").

    The decoders have the width, layers and heads of `model.text`.
    """

    kind: Literal["captioning"] = "captioning"
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the decoders (VirTex's)")


class MaskedLmConfig(Settings):
    """Predict words left out of a text from the rest and the image (ICMLM's head `tfm`, arXiv:2008.01392).

    The transformer has the width, layers and heads of `model.text`.
    """

    kind: Literal["masked_lm"] = "masked_lm"
    masked_share: float = Field(0.15, gt=0, lt=1, description="Words left out of a text; at least one is")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the transformer")


class ConvirtConfig(Settings):
    """ConVIRT (arXiv:2010.00747): contrastive with non-linear heads, fixed temperature and unequal directions."""

    kind: Literal["convirt"] = "convirt"
    temperature: float = Field(0.1, gt=0, description="Fixed temperature")
    image_weight: float = Field(0.75, ge=0, le=1, description="Share of image-to-text in the loss")


class SigmoidConfig(Settings):
    """SigLIP (arXiv:2303.15343): each image and text of a batch judged as a pair or not, by itself."""

    kind: Literal["sigmoid"] = "sigmoid"
    init_scale: float = Field(10.0, gt=0, description="Factor of similarities at the start")
    init_bias: float = Field(-10.0, description="Bias of the logits at the start: most pairs are none")


class SimclrConfig(Settings):
    """SimCLR (arXiv:2002.05709), images alone: pick the other view of an image out of the batch."""

    kind: Literal["simclr"] = "simclr"
    temperature: float = Field(0.1, gt=0, description="Fixed temperature")
    head_dim: int = Field(128, ge=1, description="Dimensions in which views are compared")


class MocoConfig(Settings):
    """MoCo v2 (arXiv:2003.04297), images alone: pick the other view, by a slowly moving tower, out of earlier batches."""

    kind: Literal["moco"] = "moco"
    temperature: float = Field(0.2, gt=0, description="Fixed temperature")
    head_dim: int = Field(128, ge=1, description="Dimensions in which views are compared")
    momentum: float = Field(0.999, ge=0, lt=1, description="What the moving tower keeps of itself in a step")
    queue: int = Field(65_536, ge=1, description="Views of earlier batches that are told apart from")


Objective = Annotated[
    ContrastiveConfig
    | BagOfWordsContrastiveConfig
    | BagOfWordsConfig
    | CaptioningConfig
    | MaskedLmConfig
    | ConvirtConfig
    | SigmoidConfig
    | SimclrConfig
    | MocoConfig,
    Field(discriminator="kind", description="What is learned"),
]


def objective_named(kind: str) -> Objective:
    """The defaults of an objective. Raises ValidationError that lists the kinds there are."""
    found: Objective = TypeAdapter(Objective).validate_python({"kind": kind})
    return found
