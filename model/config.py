"""The configuration of a run: model, data, optimiser and evaluation. No torch here, so that flows stay light."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from model.data_config import NOT_LEARNED, DataConfig
from model.errors import InputError

OPERATIONAL: dict[str, Any] = {"operational": True}
"""Marks settings of how a run is computed or watched, not of what it learns: they may differ when it is resumed."""


class Settings(BaseModel):
    """Base of all settings: frozen, complete, every number finite, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The settings in a JSON file. Raises InputError that names the file and the fields."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; write the {cls.__name__} there as JSON") from error
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()
            )
            raise InputError(f"{path}: {problems}") from error


Activation = Literal["quick_gelu", "gelu"]
Precision = Literal["fp32", "bf16", "fp16"]
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


class TrainConfig(Settings):
    """How a model is trained. Defaults are the paper's (section 2.5, table 18) where it has one."""

    epochs: int = Field(32, ge=1, description="Passes over the training split")
    global_batch: int = Field(32_768, ge=2, description="Pairs of one step over all processes together")
    learning_rate: float = Field(5e-4, gt=0, description="Peak learning rate")
    warmup_steps: int = Field(2_000, ge=0, description="Steps of linear warm-up; the cosine follows")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="Adam's first decay")
    adam_beta2: float = Field(0.98, ge=0, lt=1, description="Adam's second decay (0.999 for the paper's ResNets)")
    adam_eps: float = Field(1e-6, gt=0, description="Adam's epsilon (1e-8 for the paper's ResNets)")
    weight_decay: float = Field(0.2, ge=0, description="Decoupled weight decay of all weights but gains and biases")
    adam_statistics: Literal["fp32", "fp16"] = Field(
        "fp32", description="How Adam's two moments are kept; fp16 = half the memory (section 2.5)"
    )
    text_weights: Literal["fp32", "fp16_stochastic"] = Field(
        "fp32",
        description="fp16_stochastic = the text encoder's weights (not its gains and biases) are rounded stochastically to "
        "numbers of fp16 after every step (section 2.5)",
    )
    locked: Literal["none", "image", "text"] = Field(
        "none",
        description="Tower that stays as the run of start_from left it, its batch norm included, while the other learns (LiT)",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="What the moving average of the weights keeps of itself in a step; it is what validation judges and what "
        "the finished model holds. 0 = off",
    )
    clip_gradient_norm: float = Field(
        0.0, ge=0, description="Longest that all gradients together may be; longer ones are scaled down to it. 0 = off"
    )
    precision: Precision = Field(
        "fp32",
        description="bf16, fp16 = autocast, weights stay fp32; with fp16 the loss is scaled, as far as gradients allow",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Compute the activations of the towers' blocks again for their gradients, rather than keep them",
        json_schema_extra=OPERATIONAL,
    )
    max_skipped_steps: int = Field(
        10,
        ge=0,
        description="Steps in a row that are left out because the loss or a gradient is not finite; one more ends the run. "
        "0 = the first one does",
        json_schema_extra=OPERATIONAL,
    )
    micro_batch: int = Field(
        0,
        ge=0,
        description="Pairs that one process embeds at once, 0 = its whole share. Else every pair is embedded twice, and the "
        "memory is that of so many pairs and the features of the others. A ResNet then normalises over so many pairs",
        json_schema_extra=OPERATIONAL,
    )
    loss_tile: int = Field(
        1_024,
        ge=1,
        description="Side of a tile of similarities; the contrastive loss holds a few such tiles at once",
        json_schema_extra=OPERATIONAL,
    )
    processes: int = Field(
        0,
        ge=0,
        description="Training processes on this machine; 0 = one per GPU, or 2 on a CPU",
        json_schema_extra=OPERATIONAL,
    )
    loader_threads: int = Field(2, ge=1, description="Decoding threads of one process", json_schema_extra=OPERATIONAL)
    seed: int = Field(0, ge=0, description="Seed of weights, order and crops")
    log_every_steps: int = Field(
        10, ge=1, description="Steps between two lines of metrics.jsonl", json_schema_extra=OPERATIONAL
    )
    validate_every_epochs: int = Field(
        1,
        ge=1,
        description="Epochs between two validations; the last epoch always ends with one",
        json_schema_extra=OPERATIONAL,
    )
    validation_samples: int = Field(
        10_000,
        ge=0,
        description="Pairs of the validation split used, at most; 0 = no validation",
        json_schema_extra=OPERATIONAL,
    )
    checkpoint_every_steps: int = Field(
        500, ge=1, description="Steps between two checkpoints", json_schema_extra=OPERATIONAL
    )
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints kept", json_schema_extra=OPERATIONAL)


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
    run: str = Field(description="Name of the run that is measured, or the path of its folder")
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
