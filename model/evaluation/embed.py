"""Images and texts to features, and the cache that spares doing it twice.

Axes: N images, D dimensions of the shared space, F dimensions before the projection into it, B batch, T texts, L tokens.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from model.errors import InputError
from model.evaluation.feature_cache import Embedded, read_cache, write_cache
from model.evaluation.images import PREPROCESSING, StoredImage
from model.evaluation.passes import Judge, Progress, judged_parts
from model.evaluation.passes import Say as Say
from model.evaluation.results import Unreadable

MAX_UNREADABLE_SHARE = 0.01
PART_IMAGES = 2_048
"""What a kill costs at most."""
TOKENS_AT_ONCE = 16_384
CACHED = "features before and after the projection, with their digest"
"""Part of the key: a cache that holds less is none."""


class Towers(Protocol):
    """What gives features, unnormalised: of images before a projection (B, F) and after it (B, D), and of texts (T, D)."""

    def encode_image_twice(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]: ...

    def encode_text(self, tokens_BL: Tensor) -> Tensor: ...


class Tokenizer(Protocol):
    """Texts to token ids."""

    def encode(self, texts: list[str]) -> Tensor: ...

    def encode_ids(self, texts: Sequence[str]) -> tuple[list[list[int]], int]: ...

    def pad(self, rows: Sequence[Sequence[int]]) -> Tensor: ...


ScoreTexts = Callable[[Tensor, Tensor], Tensor]
"""Normalised images (B, 3, H, W) and tokens (T, L) -> how well each text describes each image (B, T)."""


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
        """The features of (key, image) pairs, from `cache` if it holds those of these weights, pixels and images.

        Raises InputError if more than 1 % cannot be read.
        """
        (embedded,) = cached_by_each([self], [cache], name, digest, images, say)
        return embedded

    def scores(
        self,
        score_texts: ScoreTexts,
        name: str,
        images: Sequence[tuple[str, StoredImage]],
        texts: Sequence[str],
        say: Say,
    ) -> Embedded:
        """How well each text describes each image (N, len(texts)), in the place of features; unread ones are not judged here."""
        tokens_TL = self.tokenizer.encode(list(texts)).to(self.device)
        return self._at_once(
            f"scoring {name}", name, images, lambda image_BCHW: (score_texts(image_BCHW, tokens_TL),), say
        )

    def images(self, name: str, images: Sequence[tuple[str, StoredImage]], say: Say) -> Embedded:
        """Features of weights that are not worth a cache: those of a model that still learns. Unread images are not judged."""
        return self._at_once(f"embedding {name}", name, images, self.towers.encode_image_twice, say)

    def _at_once(
        self, doing: str, name: str, images: Sequence[tuple[str, StoredImage]], judge: Judge, say: Say
    ) -> Embedded:
        progress = Progress(doing, len(images), 0, say)
        (judged,) = judged_parts([images], self.image_px, self.batch, self.device, [judge], progress)
        (found,) = judged.found
        before_NF, features_ND = (found[0], found[-1]) if judged.rows else (torch.empty(0, 0), torch.empty(0, 0))
        check_finite(name, features_ND)
        return Embedded(features_ND, before_NF, judged.rows, judged.unreadable)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features (len(texts), D), unnormalised; texts of the same tokens are embedded once.

        Texts of like length share a batch, so that little of it is padding: what follows a text's end cannot reach its feature
        (model/text.py), and so is not computed.
        """
        ids = [tuple(row) for row in self.tokenizer.encode_ids(texts)[0]]
        distinct = sorted(set(ids), key=lambda row: (len(row), row))
        features = []
        with torch.inference_mode():
            for batch in batches_of_tokens(distinct):
                features.append(self.towers.encode_text(self.tokenizer.pad(batch).to(self.device)).float().cpu())
        features_ND = torch.cat(features)
        check_finite("the texts", features_ND)
        place = {row: index for index, row in enumerate(distinct)}
        return features_ND[torch.tensor([place[row] for row in ids])]

    def cache_key(self, digest: str, keys: Sequence[str]) -> str:
        """What features are of: these weights, this preprocessing, these images."""
        parts = [CACHED, self.weights_sha256, PREPROCESSING, self.image_px, digest, list(keys)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def batches_of_tokens(sorted_rows: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Rows of ids, shortest first, cut into batches that hold so many tokens at most, padding included; one row at least."""
    batches: list[list[tuple[int, ...]]] = []
    for row in sorted_rows:
        if not batches or (len(batches[-1]) + 1) * len(row) > TOKENS_AT_ONCE:
            batches.append([])
        batches[-1].append(row)
    return batches


def cached_by_each(
    embedders: Sequence[Embedder],
    caches: Sequence[Path],
    name: str,
    digest: str,
    images: Sequence[tuple[str, StoredImage]],
    say: Say,
) -> list[Embedded]:
    """The features by each of several models, which want images of the same size, in one pass over those that are missing.

    A part of the images at a time is kept beside each cache, so that a pass that was killed goes on with the part it was at.
    """
    image_px = embedders[0].image_px
    if any(embedder.image_px != image_px for embedder in embedders):
        raise ValueError("models that want images of several sizes cannot share a pass")
    keys = [embedder.cache_key(digest, [key for key, _ in images]) for embedder in embedders]
    whole = [read_cache(cache, key) for cache, key in zip(caches, keys, strict=True)]
    wanting = [index for index, found in enumerate(whole) if found is None]
    if wanting:
        _complete(wanting, embedders, caches, keys, name, images, say)
    embedded = []
    for found, cache, key in zip(whole, caches, keys, strict=True):
        if found is None:
            firsts = range(0, len(images), PART_IMAGES)
            parts = [part for first in firsts if (part := _read_part(cache, key, first)) is not None]
            assert len(parts) == len(firsts), f"a part below {_parts_folder(cache)} was removed while it was used"
            found = _merged(parts)
            check_readable(name, found.unreadable, len(images))
            check_finite(name, found.features)
            write_cache(cache, key, found)
            shutil.rmtree(_parts_folder(cache))
        embedded.append(found)
    return embedded


def _complete(
    wanting: list[int],
    embedders: Sequence[Embedder],
    caches: Sequence[Path],
    keys: Sequence[str],
    name: str,
    images: Sequence[tuple[str, StoredImage]],
    say: Say,
) -> None:
    """Embed the parts that one of the `wanting` models lacks."""
    firsts = [
        first
        for first in range(0, len(images), PART_IMAGES)
        if any(_read_part(caches[index], keys[index], first) is None for index in wanting)
    ]
    parts = [images[first : first + PART_IMAGES] for first in firsts]
    before = len(images) - sum(map(len, parts))
    progress = Progress(f"embedding {name}", len(images), before, say)
    judges = [embedders[index].towers.encode_image_twice for index in wanting]
    one = embedders[0]
    passing = judged_parts(parts, one.image_px, one.batch, one.device, judges, progress)
    for first, judged in zip(firsts, passing, strict=True):
        rows = [first + row for row in judged.rows]
        for index, tensors in zip(wanting, judged.found, strict=True):
            before_NF, features_ND = tensors or (torch.empty(0), torch.empty(0))
            embedded = Embedded(features_ND, before_NF, rows, judged.unreadable)
            write_cache(_part_path(caches[index], first), _part_key(keys[index], first), embedded)


def _merged(parts: Sequence[Embedded]) -> Embedded:
    return Embedded(
        torch.cat([part.features for part in parts]),
        torch.cat([part.before for part in parts]),
        [row for part in parts for row in part.rows],
        [found for part in parts for found in part.unreadable],
    )


def _parts_folder(cache: Path) -> Path:
    return cache.with_name(f".{cache.stem}.parts")


def _part_path(cache: Path, first: int) -> Path:
    return _parts_folder(cache) / f"{first:09d}.safetensors"


def _part_key(key: str, first: int) -> str:
    return f"{key} {first} {PART_IMAGES}"


def _read_part(cache: Path, key: str, first: int) -> Embedded | None:
    return read_cache(_part_path(cache, first), _part_key(key, first))


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
