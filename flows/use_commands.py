"""`wit classify`, `wit search`, `wit embed`, `wit serve`: a trained model at work, in a process of its own.

The process shares this one's terminal, so that answers go to stdout, the rest to stderr, and the exit status is its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from flows.data_commands import WorkspaceOption, named
from flows.launcher import ending_with_parent
from flows.workspace import Workspace
from pipeline.errors import InputError

Texts = tuple[str, ...]


@dataclass
class ClassifyOptions(WorkspaceOption):
    """Which of some classes images show, by the names of the classes."""

    images: Annotated[tyro.conf.Positional[Texts], named("IMAGE ...")] = ()
    """Image files, folders (with their subfolders), patterns in quotes."""
    model: str = ""
    """Name of a run, or path of a run or of a folder in the format of open_clip, Hugging Face or OpenAI."""
    labels: str = ""
    """Class names, with commas between them."""
    labels_file: str = ""
    """Text file with one class name a line."""
    classifier: str = ""
    """classifier.npz that --save-classifier wrote, with the same model."""
    templates: Texts = ()
    """Prompts with {c} or {} for the class name; more than one are averaged. Without: "a photo of a {c}."."""
    save_classifier: str = ""
    """File in which the classifier is kept, classifier.npz."""
    top: int = 5
    """Classes told of each image."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """One JSON object a line."""


@dataclass
class DatasetOptions(WorkspaceOption):
    """A data set, and the model that sees it."""

    dataset: Annotated[tyro.conf.Positional[str], named("DATASET")] = ""
    """Name of the data set, or the path of a folder of shards if it holds a slash."""
    splits: tuple[Literal["train", "val"], ...] = ()
    """train, val; without: both."""


@dataclass
class SearchOptions(DatasetOptions):
    """Images of a data set that are like a text or an image: all are compared, the best told."""

    text: Annotated[tyro.conf.Positional[str], named("TEXT")] = ""
    """What to search for."""
    model: str = ""
    """Name of a run, or path of a run or of a folder in the format of open_clip, Hugging Face or OpenAI."""
    image: str = ""
    """Image file to search with, in the place of a text."""
    top: int = 10
    """Images told, at most."""
    threshold: float = -1.0
    """Lowest cosine that is told."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """One JSON object a line."""
    save_images: str = ""
    """Folder in which the images that are found are kept."""
    export_embeddings: str = ""
    """Folder to be made with all vectors in the layout of clip-retrieval."""


@dataclass
class EmbedOptions(DatasetOptions):
    """Make what `wit search` reads, for several models in one pass: each image is decoded once."""

    models: Texts = ()
    """Names or paths of models that see images of the same size."""


@dataclass
class ServeOptions(WorkspaceOption):
    """A page on this machine: drop an image, type classes."""

    model: Annotated[tyro.conf.Positional[str], named("MODEL")] = ""
    """Name of a run, or path of a run or of a folder in the format of open_clip, Hugging Face or OpenAI."""
    labels: str = ""
    """Class names the page begins with, with commas between them."""
    port: int = 8765
    """Port on 127.0.0.1."""


def classify(arguments: list[str]) -> None:
    """`wit classify`; ends with the status of the process that answers."""
    options = tyro.cli(ClassifyOptions, args=arguments, prog="wit classify")
    if not options.images or not options.model:
        raise InputError(
            "give images and a model: wit classify photo.jpg --model tiny --labels 'blue circle, white star'"
        )
    command = ["classify", *options.images, "--model", _model(options, options.model), "--top", str(options.top)]
    command += _given("--labels", options.labels) + _given("--labels-file", options.labels_file)
    command += _given("--classifier", options.classifier) + _given("--save-classifier", options.save_classifier)
    _hand_over(command + _each("--template", options.templates) + ["--json"] * options.json)


def search(arguments: list[str]) -> None:
    """`wit search`; ends with the status of the process that answers."""
    options = tyro.cli(SearchOptions, args=arguments, prog="wit search")
    if not options.dataset or not options.model:
        raise InputError('give a data set, a text and a model: wit search tiny "a blue circle" --model tiny')
    command = ["search", *([options.text] if options.text else []), "--model", _model(options, options.model)]
    command += [*_dataset(options), f"--threshold={options.threshold}", "--top", str(options.top)]
    command += _given("--image", options.image) + _given("--save-images", options.save_images)
    _hand_over(command + _given("--export-embeddings", options.export_embeddings) + ["--json"] * options.json)


def embed(arguments: list[str]) -> None:
    """`wit embed`; ends with the status of the process that embeds."""
    options = tyro.cli(EmbedOptions, args=arguments, prog="wit embed")
    if not options.dataset or not options.models:
        raise InputError("give a data set and models: wit embed tiny --models tiny vit-b-32")
    models = [_model(options, model) for model in options.models]
    _hand_over(["embed", *_dataset(options), *_each("--model", models)])


def serve(arguments: list[str]) -> None:
    """`wit serve`; runs until Ctrl-C."""
    options = tyro.cli(ServeOptions, args=arguments, prog="wit serve")
    if not options.model:
        raise InputError("give a model: wit serve tiny")
    command = ["serve", "--model", _model(options, options.model), "--port", str(options.port)]
    _hand_over(command + _given("--labels", options.labels))


def _model(options: WorkspaceOption, model: str) -> str:
    """A name is that of a run; what holds a slash, or is there under that name and no run is, is a path."""
    run = Workspace.at(options.workspace).run(model)
    return str(run if run.exists() or not Path(model).exists() else Path(model))


def _dataset(options: DatasetOptions) -> list[str]:
    space = Workspace.at(options.workspace)
    return [
        "--shards", str(space.existing_shards(options.dataset)), "--cache", str(space.embedding_cache),
        *_each("--split", options.splits),
    ]  # fmt: skip


def _given(option: str, value: str) -> list[str]:
    return [f"{option}={value}"] if value else []


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [f"{option}={value}" for value in values]


def _leaving_ctrl_c_to_this() -> Callable[[], None]:
    """Ctrl-C reaches both: this command ends the process and tells how to go on, a traceback of the process would drown that."""
    end_with_parent = ending_with_parent()

    def begin() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent()

    return begin


def _hand_over(command: Sequence[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model.use", *command], check=False, preexec_fn=_leaving_ctrl_c_to_this()
    )
    if done.returncode:
        raise SystemExit(done.returncode if done.returncode > 0 else 128 - done.returncode)
