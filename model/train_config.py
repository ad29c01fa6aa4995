"""The settings of the trainer. No torch here, so that flows stay light."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from model.settings import OPERATIONAL, Settings

Precision = Literal["fp32", "bf16", "fp16"]
Dashboard = Literal["tensorboard", "wandb"]


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
    compile: bool = Field(
        False,
        description="Compile the blocks of towers and decoders for the steps of training (torch.compile); it takes a minute or "
        "so when a run begins or goes on",
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
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="ddp = every process holds the model; fsdp = each holds a part of its weights, gradients and optimiser, for "
        "models that do not fit otherwise (at least 2 processes)",
        json_schema_extra=OPERATIONAL,
    )
    processes: int = Field(
        0,
        ge=0,
        description="Training processes on this machine; 0 = one per GPU, or 2 on a CPU",
        json_schema_extra=OPERATIONAL,
    )
    hang_timeout_s: float = Field(
        1_800.0,
        ge=1,
        description="Longest, in seconds, that a process waits for another one, also for the first to read or write files; then "
        "the run ends with exit code 4 and names the one that did not come and what it did last",
        json_schema_extra=OPERATIONAL,
    )
    loader_threads: int = Field(2, ge=1, description="Decoding threads of one process", json_schema_extra=OPERATIONAL)
    seed: int = Field(0, ge=0, description="Seed of weights, order and crops")
    log_every_steps: int = Field(
        10, ge=1, description="Steps between two lines of metrics.jsonl", json_schema_extra=OPERATIONAL
    )
    dashboards: tuple[Dashboard, ...] = Field(
        (),
        description="Where the numbers of metrics.jsonl are shown too, each an extra: tensorboard (in RUN/tensorboard), wandb",
        json_schema_extra=OPERATIONAL,
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
    evaluation_sets: tuple[str, ...] = Field(
        (),
        description="Sets on which zero-shot accuracy is told while it trains: names of folders in the workspace's "
        "evaluation_sets, or paths (with a slash)",
        json_schema_extra=OPERATIONAL,
    )
    evaluate_every_epochs: int = Field(
        1,
        ge=1,
        description="Epochs between two evaluations on evaluation_sets; the last epoch always ends with one",
        json_schema_extra=OPERATIONAL,
    )
    checkpoint_every_steps: int = Field(
        500, ge=1, description="Steps between two checkpoints", json_schema_extra=OPERATIONAL
    )
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints kept", json_schema_extra=OPERATIONAL)
    keep_best: Literal["none", "loss", "image_to_text_recall_at_1"] = Field(
        "none",
        description="Figure of the validation by which the best weights are kept beside the newest, as the finished run RUN/best",
        json_schema_extra=OPERATIONAL,
    )

    @model_validator(mode="after")
    def _spread_over_several(self) -> TrainConfig:
        if self.parallel == "fsdp" and self.processes == 1:
            raise ValueError(
                "parallel fsdp spreads the model over several processes, but processes is 1; raise it (0 = one per GPU), or set "
                "parallel to ddp"
            )
        return self
