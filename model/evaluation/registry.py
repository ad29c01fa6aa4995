"""The data sets that are known by name, as `known/*.toml` describes them: nothing about a set is in code."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from model.config import Settings
from model.evaluation.metrics import Metric

PACKAGE = "model.evaluation"
FOLDER = "known"
OTHER_DOMAIN = "natural"
"""Of a set that is not known."""


class TorchvisionSource(Settings):
    """A data set class of torchvision, and what it is called with for each split."""

    class_name: str = Field(alias="class", description="Name of the class in torchvision.datasets")
    test: dict[str, Any] = Field({}, description="Keyword arguments of the split that is measured")
    train: dict[str, Any] | None = Field(None, description="The same of the training split; without it there is none")
    val: dict[str, Any] | None = Field(None, description="The same of the validation split")


class KnownSet(Settings):
    """What is known of a data set before any of it is read. Sizes are those of the paper's table 9."""

    name: str = Field(description="CLIP_benchmark's name, and that of the folder")
    title: str = Field(description="What people call it")
    aliases: tuple[str, ...] = Field((), description="Other names of the folder, beside wds_NAME")
    task: Literal["classification", "multilabel", "retrieval"]
    domain: str = Field(description="What it shows; a table of domains.toml")
    classes: int | None = Field(None, ge=2)
    train_images: int | None = Field(None, ge=1)
    test_images: int = Field(ge=1)
    metric: Metric | Literal["recall"] = Field(description="The paper's metric")
    chance: float | None = Field(None, gt=0, lt=1, description="What guessing gives, classes being equally frequent")
    paper_row: str | None = Field(None, description="Its row in the paper's tables (known/paper.json)")
    variant_of: str | None = Field(None, description="The set whose classes it shows under other conditions")
    templates: tuple[str, ...] = Field((), description="Our prompts, where no other are at hand")
    trap: str = Field(description="What makes figures of it incomparable")
    torchvision: TorchvisionSource | None = None


class View(Settings):
    """A name that stands for several sets."""

    title: str
    sets: tuple[str, ...]


@cache
def known_sets() -> dict[str, KnownSet]:
    """All of them by name."""
    folder = files(PACKAGE).joinpath(FOLDER, "sets")
    found = [KnownSet.model_validate(tomllib.loads(file.read_text("utf-8"))) for file in folder.iterdir()]
    return {known.name: known for known in sorted(found, key=lambda known: known.name)}


@cache
def views() -> dict[str, View]:
    """Views by name."""
    return {name: View.model_validate(fields) for name, fields in _toml("views.toml").items()}


@cache
def domain_templates() -> dict[str, tuple[str, ...]]:
    """Our prompts by domain."""
    return {name: tuple(fields["templates"]) for name, fields in _toml("domains.toml").items()}


def find(name: str) -> KnownSet | None:
    """The set of this name or alias: `wds_vtab-cifar10_test` is cifar10. Case and punctuation do not count."""
    return _by_key().get(key_of(name))


def key_of(name: str) -> str:
    """A name without what CLIP_benchmark (wds_) and DataComp (_test) put round it, in small letters and digits alone."""
    bare = re.sub(r"^wds[/_-]|[/_-]test$", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", bare)


@cache
def _by_key() -> dict[str, KnownSet]:
    return {key_of(name): known for known in known_sets().values() for name in (known.name, *known.aliases)}


def _toml(file: str) -> dict[str, Any]:
    return tomllib.loads(files(PACKAGE).joinpath(FOLDER, file).read_text("utf-8"))
