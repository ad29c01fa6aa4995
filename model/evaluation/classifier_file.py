"""A zero-shot classifier as a file: class names became vectors once, and are kept with what they were made of.

`classifier.npz` holds class_names (C,), weights (D, C) fp32 of unit columns, templates (T,), logit_scale and weights_sha256 of
the model. It is read without pickle. Axes: C classes, T templates, D dimensions of the shared space, N images.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import InputError
from model.evaluation.embed import Embedder
from model.evaluation.names import fill
from model.evaluation.zero_shot import class_vectors, logits
from model.files import writing

FIELDS = ("class_names", "weights", "templates", "logit_scale", "weights_sha256")


@dataclass(frozen=True)
class Classifier:
    """Unit vectors of classes, and the model whose images they are for."""

    class_names: tuple[str, ...]
    weights_DC: Tensor
    templates: tuple[str, ...]
    logit_scale: float
    weights_sha256: str

    def probabilities(self, images_ND: Tensor) -> Tensor:
        """(N, C) of features as the model gives them, normalised or not."""
        return logits(images_ND, self.weights_DC.T, self.logit_scale).softmax(dim=1)

    def save(self, path: Path) -> None:
        """Write a file that is whole or absent. Raises InputError if it cannot be written."""
        partial = path.with_name(f".{path.name}.partial")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(
                    file,
                    class_names=np.array(self.class_names, dtype=np.str_),
                    weights=self.weights_DC.numpy(),
                    templates=np.array(self.templates, dtype=np.str_),
                    logit_scale=np.float64(self.logit_scale),
                    weights_sha256=np.array(self.weights_sha256, dtype=np.str_),
                )
            partial.replace(path)


def build_classifier(
    embedder: Embedder, class_names: Sequence[str], templates: Sequence[str], scale: float
) -> Classifier:
    """Every class in every template through the text tower (section 3.1.4), all of them together.

    Raises InputError where a name is empty, or a template has no place for it.
    """
    check_names(class_names)
    check_templates(templates)
    prompts = [fill(template, name) for name in class_names for template in templates]
    prompts_CTD = embedder.texts(prompts).view(len(class_names), len(templates), -1)
    return Classifier(
        tuple(class_names), class_vectors(prompts_CTD).T.contiguous(), tuple(templates), scale, embedder.weights_sha256
    )


def load_classifier(path: Path, weights_sha256: str) -> Classifier:
    """What `Classifier.save` wrote. Raises InputError if it is not such a file, or was made with other weights."""
    try:
        if path.is_file() and not zipfile.is_zipfile(path):  # of such a file NumPy says that it may be loaded unsafely
            raise ValueError("no .npz file")
        with np.load(path, allow_pickle=False) as file:
            found: dict[str, NDArray[np.generic]] = {name: file[name] for name in FIELDS}
        classifier = Classifier(
            tuple(found["class_names"].tolist()),
            torch.from_numpy(found["weights"]),
            tuple(found["templates"].tolist()),
            float(found["logit_scale"]),
            str(found["weights_sha256"]),
        )
        check_names(classifier.class_names)
        if classifier.weights_DC.shape[1:] != (len(classifier.class_names),):
            raise ValueError(
                f"{len(classifier.class_names)} class names and weights {tuple(classifier.weights_DC.shape)}"
            )
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; wit classify --save-classifier writes one") from error
    except (ValueError, TypeError, OSError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not a classifier ({error}); write it again with wit classify --save-classifier"
        ) from error
    if classifier.weights_sha256 != weights_sha256:
        raise InputError(
            f"{path}: made with a model of sha256 {classifier.weights_sha256[:12]}, not with this one, {weights_sha256[:12]}; "
            "name that model, or build the classifier again from labels"
        )
    return classifier


def check_names(class_names: Sequence[str]) -> None:
    """Raises InputError unless there are two names or more, none empty. Some may be equal, as two of ImageNet's official ones."""
    if len(class_names) < 2:
        raise InputError(f"{len(class_names)} class: any image would be it for certain; name two or more")
    if "" in class_names:
        raise InputError(f"class {class_names.index('') + 1} of {len(class_names)} has no name; remove it or name it")


def check_templates(templates: Sequence[str]) -> None:
    """Raises InputError unless each has a place for the class name."""
    for template in templates:
        if "{c}" not in template and "{}" not in template:
            raise InputError(f"the template {template!r} has no place for the class name; write {{c}} where it belongs")
