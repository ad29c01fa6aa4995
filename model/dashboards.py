"""The numbers of metrics.jsonl where a team looks at them besides: TensorBoard and Weights & Biases, both extras."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from model.config import PretrainConfig
from model.errors import InputError
from model.files import write_text
from model.train_config import Dashboard

PROJECT = "webimagetext"


class Shown(Protocol):
    """One of them."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard. What an earlier process wrote of later steps than `resume_step` is not shown."""

    def __init__(self, run_dir: Path, config: PretrainConfig, resume_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            self.writer.add_scalar(name, number, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of the project `webimagetext`, the same one after a resume. WANDB_MODE and the like are W&B's own."""

    def __init__(self, run_dir: Path, config: PretrainConfig, resume_step: int) -> None:
        import wandb

        try:
            self.run = wandb.init(
                project=PROJECT,
                name=config.name,
                id=_kept_id(run_dir / "wandb-id.txt"),
                resume="allow",
                dir=run_dir,
                config=config.model_dump(mode="json"),
            )
        except wandb.Error as error:
            raise InputError(
                f"train.dashboards has wandb, which does not start ({error}); log in with `wandb login`, set WANDB_MODE=offline, "
                "or leave it out"
            ) from error

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


def _kept_id(path: Path) -> str:
    """Drawn once and kept with the run: one that is deleted and trained again is another one."""
    if not path.exists():
        write_text(path, secrets.token_hex(8))
    return path.read_text(encoding="utf-8")


OPENERS: dict[Dashboard, Callable[[Path, PretrainConfig, int], Shown]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def open_dashboards(run_dir: Path, config: PretrainConfig, resume_step: int) -> list[Shown]:
    """Those that `train.dashboards` names. Raises InputError that names the extra if one is not installed."""
    shown = []
    for name in config.train.dashboards:
        try:
            shown.append(OPENERS[name](run_dir, config, resume_step))
        except ImportError as error:
            raise InputError(
                f"train.dashboards has {name}, which is not installed; install the extra: pip install 'webimagetext[{name}]', "
                "or leave it out"
            ) from error
    return shown
