"""Which of some classes an image shows, by a model and the names of the classes.

Axes: N images of a part, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from model.errors import InputError
from model.evaluation.classifier_file import Classifier
from model.evaluation.embed import check_finite
from model.evaluation.images import FileImage
from model.evaluation.passes import Progress, judged_parts
from model.use.loading import BATCH, Loaded
from model.use.upright import upright_pixels

IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
DEFAULT_TEMPLATE = "a photo of a {c}."  # section 3.1.4
GLOB_SIGNS = "*?["


@dataclass(frozen=True)
class Answer:
    """The likeliest classes of an image, the likeliest first, or why it could not be looked at."""

    image: str
    classes: tuple[tuple[str, float], ...]
    error: str = ""


def find_images(given: Sequence[str]) -> list[Path]:
    """The files that are meant: files as they are, a folder's images with those of its subfolders, what a pattern matches.

    Each once, those of a folder or pattern sorted. Raises InputError for what is not there.
    """
    found: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS and file.is_file())
            if not inside:
                raise InputError(
                    f"{path}: no images in this folder (files that end with {', '.join(sorted(IMAGE_ENDINGS))})"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            is_pattern = any(sign in name for sign in GLOB_SIGNS)
            matched = sorted(glob(name, recursive=True)) if is_pattern else []  # noqa: PTH207 -- Path.glob takes no absolute one
            files = [Path(match) for match in matched if Path(match).is_file()]
            if not files:
                raise InputError(f"{name}: no such file, and no file of that pattern; name images, folders or patterns")
            found += files
    return list(dict.fromkeys(found))


def read_labels(path: Path) -> list[str]:
    """One class a line; empty lines are left out. Raises InputError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); write one class name a line") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error
    return [line.strip() for line in lines if line.strip()]


def classify(loaded: Loaded, classifier: Classifier, images: Sequence[Path], top: int) -> Iterator[Answer]:
    """An answer for each image, in order, so many at a time; one that cannot be decoded is no reason to stop.

    Raises InputError where the model gives features that are not finite.
    """
    refs = [(str(path), FileImage(path)) for path in images]
    parts = [refs[start : start + BATCH] for start in range(0, len(refs), BATCH)]
    embedder = loaded.embedder
    passing = judged_parts(
        parts,
        embedder.image_px,
        BATCH,
        embedder.device,
        [embedder.towers.encode_image_twice],
        Progress("classifying", len(refs), 0, lambda _: None),
        upright_pixels,
    )
    for part, judged in zip(parts, passing, strict=True):
        answers = {found.key: Answer(found.key, (), found.reason) for found in judged.unreadable}
        if judged.rows:
            features_ND = judged.found[0][-1]
            check_finite("the images", features_ND)
            probability_NC = classifier.probabilities(features_ND)
            best_NC, label_NC = probability_NC.sort(dim=1, descending=True, stable=True)
            for row, best, labels in zip(judged.rows, best_NC.tolist(), label_NC.tolist(), strict=True):
                names = [classifier.class_names[label] for label in labels[:top]]
                key = part[row][0]
                answers[key] = Answer(key, tuple(zip(names, best[:top], strict=True)))
        yield from (answers[key] for key, _ in part)
