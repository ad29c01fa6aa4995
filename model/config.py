"""The configuration of a run: model, data, optimiser and evaluation. No torch here, so that flows stay light.

All settings can be imported from here, also those of the trainer (model/train_config.py) and of the objectives
(model/objectives/config.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from model.data_config import NOT_LEARNED, DataConfig
from model.objectives.config import (
    BagOfWordsConfig,
    BagOfWordsContrastiveConfig,
    CaptioningConfig,
    ContrastiveConfig,
    ConvirtConfig,
    MaskedLmConfig,
    MocoConfig,
    Objective,
    SigmoidConfig,
    SimclrConfig,
    objective_named,
)
from model.settings import Settings
from model.train_config import Precision, TrainConfig

__all__ = [
    "Activation",
    "BagOfWordsConfig",
    "BagOfWordsContrastiveConfig",
    "CaptioningConfig",
    "ClipConfig",
    "ContrastiveConfig",
    "ConvirtConfig",
    "DataConfig",
    "EvaluateConfig",
    "MaskedLmConfig",
    "MocoConfig",
    "Objective",
    "Precision",
    "PretrainConfig",
    "ResNetConfig",
    "Settings",
    "SigmoidConfig",
    "SimclrConfig",
    "TextConfig",
    "TorchvisionConfig",
    "TorchvisionName",
    "TrainConfig",
    "VitConfig",
    "deciding_settings",
    "objective_named",
]

Activation = Literal["quick_gelu", "gelu"]
TorchvisionName = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_v2_s",
    "efficientnet_v2_m",
    "efficientnet_v2_l",
]


def _require_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"{width} channels do not divide into {heads} attention heads")


class VitConfig(Settings):
    """The paper's vision transformer: pre-norm, class token, one more layer norm before the blocks (section 2.4)."""

    kind: Literal["vit"] = "vit"
    image_px: int = Field(224, ge=8, description="Side of the square input, in pixels")
    patch_px: int = Field(32, ge=1, description="Side of a patch, in pixels")
    width: int = Field(768, ge=8, description="Channels of a token")
    layers: int = Field(12, ge=1, description="Transformer blocks")
    heads: int = Field(12, ge=1, description="Attention heads")

    @model_validator(mode="after")
    def _fits(self) -> VitConfig:
        if self.image_px % self.patch_px:
            raise ValueError(f"image_px {self.image_px} is not divisible by patch_px {self.patch_px}")
        _require_heads(self.width, self.heads)
        return self


class ResNetConfig(Settings):
    """The paper's modified ResNet: three-convolution stem, anti-aliased strides, attention pool (section 2.4)."""

    kind: Literal["resnet"] = "resnet"
    image_px: int = Field(224, ge=8, description="Side of the square input, in pixels")
    width: int = Field(64, ge=8, description="Channels of the stem; the last stage has 32 times as many")
    blocks: tuple[int, int, int, int] = Field((3, 4, 6, 3), description="Bottleneck blocks of the four stages")
    heads: int = Field(32, ge=1, description="Heads of the attention pool")

    @model_validator(mode="after")
    def _fits(self) -> ResNetConfig:
        if self.image_px % 32:
            raise ValueError(f"image_px {self.image_px} is not divisible by 32, the stride of the whole ResNet")
        if self.width % 2:
            raise ValueError(f"width {self.width} is odd; the first two convolutions of the stem have half of it")
        _require_heads(32 * self.width, self.heads)
        return self


class TorchvisionConfig(Settings):
    """A plain ResNet or an EfficientNet of torchvision (random weights), its classifier replaced by the linear projection.

    The families that section 2.4 begins from (ResNet-50) and scales like (EfficientNet); no depth is dropped at random.
    """

    kind: Literal["torchvision"] = "torchvision"
    image_px: int = Field(224, ge=32, description="Side of the square input, in pixels")
    name: TorchvisionName = Field("resnet50", description="Name of the model in torchvision")


class TextConfig(Settings):
    """The text transformer: causal mask, the feature is read at the end-of-text token (section 2.4)."""

    context_length: int = Field(77, ge=4, description="Most tokens of a text, start and end included")
    vocab_size: int = Field(49_408, ge=260, description="Entries of the tokenizer, at most")
    width: int = Field(512, ge=8, description="Channels of a token")
    layers: int = Field(12, ge=1, description="Transformer blocks")
    heads: int = Field(8, ge=1, description="Attention heads")

    @model_validator(mode="after")
    def _fits(self) -> TextConfig:
        _require_heads(self.width, self.heads)
        return self


class ClipConfig(Settings):
    """Two towers, a linear projection from each into one space, and a temperature (figure 3)."""

    embed_dim: int = Field(512, ge=1, description="Dimensions of the shared space")
    vision: Annotated[VitConfig | ResNetConfig | TorchvisionConfig, Field(discriminator="kind")] = VitConfig()
    text: TextConfig = TextConfig()
    activation: Activation = Field(
        "quick_gelu",
        description="Of the transformers: quick_gelu = x * sigmoid(1.702 x), as OpenAI's models; gelu = the exact one, as "
        "most models of open_clip",
    )
    init_temperature: float = Field(0.07, gt=0, description="Temperature at the start (section 2.5)")
    max_logit_scale: float = Field(100.0, gt=1, description="Logits are never scaled by more than this (section 2.5)")


class PretrainConfig(Settings):
    """Everything that decides what a run learns."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run and of its folder")
    dataset: str = Field(
        description="Name of the data set it learns from, or the path of a folder of shards with manifest.json"
    )
    tokenizer: str = Field(
        "trained",
        min_length=1,
        description="trained = learned from the captions, at most model.text.vocab_size entries; clip = CLIP's own 49,408 "
        "entries, from the installed open_clip_torch; else a local folder of Hugging Face tokenizer files of CLIP's kind",
    )
    start_from: str = Field(
        "",
        description="Run whose weights and tokenizer it starts from: a name, or a path (with a slash); another image_px is "
        "fine, positions are interpolated. Empty = random weights",
    )
    model: ClipConfig = ClipConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    objective: Objective = ContrastiveConfig()

    @model_validator(mode="after")
    def _batch_divides(self) -> PretrainConfig:
        if self.train.processes and self.train.global_batch % self.train.processes:
            raise ValueError(
                f"global_batch {self.train.global_batch} is not divisible by {self.train.processes} processes"
            )
        return self

    @model_validator(mode="after")
    def _mix_has_dataset(self) -> PretrainConfig:
        if self.data.mix and self.dataset not in self.data.mix:
            raise ValueError(
                f"data.mix does not name dataset {self.dataset!r}, whose validation split is used; give it a weight there too"
            )
        return self

    @model_validator(mode="after")
    def _locked_has_learned(self) -> PretrainConfig:
        if self.train.locked != "none" and not self.start_from:
            raise ValueError(
                f"train.locked {self.train.locked} keeps a tower that has learned nothing; name a run in start_from, or leave "
                "it at none"
            )
        return self

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> PretrainConfig:
        if isinstance(self.objective, MocoConfig) and self.objective.queue < self.train.global_batch:
            raise ValueError(
                f"objective.queue {self.objective.queue} is smaller than one global_batch of {self.train.global_batch}"
            )
        return self


def deciding_settings(config: PretrainConfig) -> dict[str, Any]:
    """What of a configuration decides what is learned. The data sets are told by their digest, not by their paths."""
    operational = {
        name
        for name, field in TrainConfig.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("operational")
    }
    if config.model.vision.kind != "vit" and config.train.micro_batch:
        operational.remove("micro_batch")  # batch norm normalises over it
    return config.model_dump(
        mode="json", exclude={"name": True, "dataset": True, "train": operational, "data": NOT_LEARNED}
    )


class EvaluateConfig(Settings):
    """What a trained model is measured on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the evaluation and of its folder")
    run: str = Field(description="Name of the run that is measured, or the path of its folder (with a slash)")
    further_runs: tuple[str, ...] = Field(
        (),
        description="Runs that are measured in the same pass over the images, by name or path (with a slash): each has an "
        "evaluation of its own, NAME-RUN, and compare.html of NAME sets all of them side by side",
    )
    evaluation_sets: tuple[str, ...] = Field(
        (),
        description="Sets (docs/evaluation.md): names of folders in the workspace's evaluation_sets, or paths (with a slash), "
        "in the wds layout, of folders of images, with a table or of torchvision; paper27, kornblith12, imagenet_shifts and "
        "retrieval stand for several",
    )
    retrieval_samples: int = Field(
        1_000, ge=0, description="Pairs of the validation split used for retrieval, at most; 0 = skip"
    )
    probe: bool = Field(
        True,
        description="Fit linear probes, few-shot probes, nearest neighbours and temperature on sets with a training split",
    )
    probe_val_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of each class's training images held out to choose the penalty, where a set has no val/ (DINOv2's)",
    )
    few_shot: tuple[Annotated[int, Field(ge=1, le=1_000)], ...] = Field(
        (1, 2, 4, 8, 16), description="Examples of each class for few-shot probes (the paper's figure 6); () = none"
    )
    few_shot_seeds: int = Field(3, ge=1, le=100, description="Draws of the examples; their mean is told")
    neighbours: int = Field(20, ge=1, le=10_000, description="Neighbours that vote, weighted by cosine (k of k-NN)")
    batch: int = Field(256, ge=1, description="Images embedded at once")
    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the confidence intervals")
    processes: int = Field(
        1, ge=1, le=64, description="Processes that measure sets at once, each with the models in its memory"
    )
