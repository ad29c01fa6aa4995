"""Images and texts to features, and the cache that spares doing it twice.

Axes: N images, D dimensions of the shared space, F dimensions before the projection into it, B batch, L tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.data import normalise
from model.errors import InputError
from model.evaluation.images import PREPROCESSING, StoredImage, UnreadableError, pixels
from model.evaluation.results import Unreadable

MAX_UNREADABLE_SHARE = 0.01
TEXTS_AT_ONCE = 256
CACHED = "features before and after the projection"
"""Part of the key: a cache that holds less is none."""


class Towers(Protocol):
    """What gives features, unnormalised: of images before a projection (B, F) and after it (B, D), and of texts (T, D)."""

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]: ...

    def encode_text(self, tokens_BL: Tensor) -> Tensor: ...


class Tokenizer(Protocol):
    """Texts to token ids."""

    def encode(self, texts: list[str]) -> Tensor: ...


Say = Callable[[str], None]
ScoreTexts = Callable[[Tensor, Tensor], Tensor]
"""Normalised images (B, 3, H, W) and tokens (T, L) -> how well each text describes each image (B, T)."""
Judge = Callable[[Tensor], tuple[Tensor, ...]]
"""Normalised images (B, 3, H, W) -> what is kept of each: before a projection (B, F) and after it (B, D), or one (B, T)."""


@dataclass(frozen=True)
class Embedded:
    """Features (N, D) of the images that could be read, and what the tower had before it projected them (N, F).

    `rows` are the numbers of these images in what was asked for.
    """

    features: Tensor
    before: Tensor
    rows: list[int]
    unreadable: list[Unreadable]


@dataclass(frozen=True)
class Embedder:
    """A model on its device."""

    towers: Towers
    tokenizer: Tokenizer
    weights_sha256: str
    image_px: int
    device: torch.device
    batch: int

    def cached_images(
        self, cache: Path, name: str, digest: str, images: Sequence[tuple[str, StoredImage]], say: Say
    ) -> Embedded:
        """The features of (key, image) pairs, from `cache` if it holds those of these weights, pixels and images."""
        key = self._cache_key(digest, [image_key for image_key, _ in images])
        found = read_cache(cache, key)
        if found is not None:
            say(f"features of {name} are in the cache")
            return found
        embedded = self.images(name, images, say)
        write_cache(cache, key, embedded)
        return embedded

    def images(self, name: str, images: Sequence[tuple[str, StoredImage]], say: Say) -> Embedded:
        """Features of images. Raises InputError if more than 1 % cannot be read."""
        return self._each(f"embedding {name}", name, images, self.towers.encode_image_twice, say)

    def scores(
        self,
        score_texts: ScoreTexts,
        name: str,
        images: Sequence[tuple[str, StoredImage]],
        texts: Sequence[str],
        say: Say,
    ) -> Embedded:
        """How well each text describes each image (N, len(texts)), in the place of features."""
        tokens_TL = self.tokenizer.encode(list(texts)).to(self.device)
        return self._each(
            f"scoring {name}", name, images, lambda image_BCHW: (score_texts(image_BCHW, tokens_TL),), say
        )

    def _each(
        self,
        doing: str,
        name: str,
        images: Sequence[tuple[str, StoredImage]],
        judge: Judge,
        say: Say,
    ) -> Embedded:
        """Decode in threads, one batch ahead of the model."""
        judged: list[tuple[Tensor, ...]] = []
        rows: list[int] = []
        unreadable: list[Unreadable] = []
        done = 0
        for part in self._decoded(images):
            whole = [pixels_HWC for pixels_HWC in part if not isinstance(pixels_HWC, str)]
            for row, found in enumerate(part, done):
                if isinstance(found, str):
                    unreadable.append(Unreadable(key=images[row][0], reason=found))
                else:
                    rows.append(row)
            if whole:
                judged.append(self._judged(np.stack(whole), judge))
            done += len(part)
            say(f"{doing} {done}/{len(images)}")
        check_readable(name, unreadable, len(images))
        found_NF = [torch.cat(parts) for parts in zip(*judged, strict=True)]
        before_NF, features_ND = found_NF[0], found_NF[-1]
        check_finite(name, features_ND)
        return Embedded(features_ND, before_NF, rows, unreadable)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features (len(texts), D), unnormalised; each distinct text is embedded once."""
        distinct = list(dict.fromkeys(texts))
        number = {text: index for index, text in enumerate(distinct)}
        # Texts of like length share a batch, so that a tokenizer or tower that trims a batch to its longest text can.
        order = sorted(range(len(distinct)), key=lambda index: len(distinct[index]))
        features: list[Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(order), TEXTS_AT_ONCE):
                tokens_BL = self.tokenizer.encode([distinct[index] for index in order[start : start + TEXTS_AT_ONCE]])
                features.append(self.towers.encode_text(tokens_BL.to(self.device)).float().cpu())
        ordered_ND = torch.cat(features)
        features_ND = torch.empty_like(ordered_ND)
        features_ND[torch.tensor(order)] = ordered_ND
        check_finite("the texts", features_ND)
        return features_ND[torch.tensor([number[text] for text in texts])]

    def _decoded(self, images: Sequence[tuple[str, StoredImage]]) -> Iterator[list[NDArray[np.uint8] | str]]:
        parts = [images[start : start + self.batch] for start in range(0, len(images), self.batch)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            now: list[Future[NDArray[np.uint8] | str]] = []
            for part in [*parts, []]:
                ahead = [pool.submit(self._pixels, image) for _, image in part]
                if now:
                    yield [future.result() for future in now]
                now = ahead

    def _pixels(self, image: StoredImage) -> NDArray[np.uint8] | str:
        try:
            return pixels(image.read(), self.image_px)
        except UnreadableError as error:
            return str(error)

    def _judged(self, pixels_BHWC: NDArray[np.uint8], judge: Judge) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            image_BCHW = normalise(torch.from_numpy(pixels_BHWC).to(self.device))
            return tuple(found.float().cpu() for found in judge(image_BCHW))

    def _cache_key(self, digest: str, keys: list[str]) -> str:
        parts = [CACHED, self.weights_sha256, PREPROCESSING, self.image_px, digest, keys]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_readable(name: str, unreadable: Sequence[Unreadable], images: int) -> None:
    """Raises InputError if so many images are unreadable that the figures would not be those of the set."""
    if len(unreadable) > MAX_UNREADABLE_SHARE * images:
        shown = "; ".join(f"{found.key}: {found.reason}" for found in unreadable[:5])
        raise InputError(
            f"{name}: {len(unreadable)} of {images} images cannot be read, more than "
            f"{MAX_UNREADABLE_SHARE:.0%} ({shown}); "
            "copy the set again or remove these samples"
        )


def check_finite(name: str, features_ND: Tensor) -> None:
    """Raises InputError if a feature is not a number."""
    broken = int((~features_ND.isfinite()).any(dim=1).sum())
    if broken:
        raise InputError(
            f"{name}: the model gives {broken} features that are not finite; the run diverged, evaluate another one"
        )


def read_cache(path: Path, key: str) -> Embedded | None:
    """What `write_cache` wrote under this key, or None."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            if about.get("key") != key:
                return None
            unreadable = [Unreadable.model_validate(found) for found in about["unreadable"]]
            rows = file.get_tensor("rows").tolist()
            return Embedded(file.get_tensor("features"), file.get_tensor("before"), rows, unreadable)
    except SafetensorError:
        return None  # not one of ours, or damaged: it is embedded anew and written over


def write_cache(path: Path, key: str, embedded: Embedded) -> None:
    """Write a file that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # One entry, because safetensors writes several in an order that changes from run to run.
    about = json.dumps({"key": key, "unreadable": [found.model_dump() for found in embedded.unreadable]})
    tensors = {
        "features": embedded.features.contiguous(),
        "before": embedded.before.contiguous(),
        "rows": torch.tensor(embedded.rows, dtype=torch.long),
    }
    save_file(tensors, partial, metadata={"about": about})
    partial.replace(path)
