"""The weights a run starts from, if not random ones: another run's, at another resolution if need be.

The paper's ViT-L/14@336px is ViT-L/14, trained for one more epoch on larger images (section 2.5).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.checkpoint import Run, load_run
from model.config import PretrainConfig
from model.errors import InputError

GRIDS = ("visual.positional_embedding", "visual.attnpool.positional_embedding")
MAY_DIFFER: dict[str, Any] = {"vision": {"image_px"}, "init_temperature": True, "max_logit_scale": True}


def load_start(run_dir: Path, config: PretrainConfig) -> Run:
    """The run that `start_from` names: a path if it holds a slash, else one beside `run_dir`.

    Raises InputError if there is none, or its architecture is another.
    """
    name = config.start_from
    folder = Path(name) if "/" in name else run_dir.parent / name
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such run, which start_from names; train it first, or import it (docs/weights.md)"
        )
    start = load_run(folder)
    if start.config.model.model_dump(exclude=MAY_DIFFER) != config.model.model_dump(exclude=MAY_DIFFER):
        raise InputError(
            f"start_from {name}: a run of another architecture; set model as {folder / 'config.json'} has it (all but image_px)"
        )
    return start


def copy_weights(start: Run, towers: nn.Module) -> None:
    """Put a run's weights into towers that differ in their resolution only. Raises InputError if they are others."""
    weights, wanted = start.objective.towers.state_dict(), towers.state_dict()
    if weights.keys() != wanted.keys():
        raise InputError(
            f"start_from: the run {start.config.name!r} learned {start.config.objective.kind}, which has other towers; "
            "start from a run of the same objective"
        )
    for name, tensor in wanted.items():
        if name in GRIDS and len(tensor) != len(weights[name]):
            weights[name] = resized(weights[name], len(tensor))
    towers.load_state_dict(weights)


def resized(position_LC: Tensor, length: int) -> Tensor:
    """Embeddings of a class token and a square grid, the grid interpolated (bicubic, anti-aliased) to `length` - 1 places."""
    before, after = (round((places - 1) ** 0.5) for places in (len(position_LC), length))
    grid_1CHW = position_LC[1:].T.reshape(1, -1, before, before)
    grid_1CHW = F.interpolate(grid_1CHW, (after, after), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([position_LC[:1], grid_1CHW[0].flatten(1).T])
