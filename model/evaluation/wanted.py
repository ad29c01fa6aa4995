"""Images whose features are measured: which they are, and the file that keeps what a model made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.evaluation.embed import Embedder, Say
from model.evaluation.feature_cache import Embedded, is_cached
from model.evaluation.passes import Named
from model.evaluation.samples import Sample, Split
from model.evaluation.shards import Pair


@dataclass(frozen=True)
class Wanted:
    """`name` is what a person is told, `digest` identifies the images."""

    name: str
    cache: Path
    digest: str
    images: Sequence[Named]

    @classmethod
    def of_split(cls, features: Path, set_name: str, split: Split[Sample], split_name: str = "") -> Wanted:
        """A split of a set with labels; the one that is measured has no name."""
        images = [(sample.key, sample.image) for sample in split.samples]
        cache = features / split_name / f"{set_name}.safetensors"
        return cls(f"{set_name}/{split_name}".removesuffix("/"), cache, split.digest, images)

    @classmethod
    def of_pairs(cls, features: Path, name: str, pairs: Sequence[Pair], digest: str) -> Wanted:
        """Images that are searched, or searched with."""
        return cls(name, features / f"{name}.safetensors", digest, [(pair.key, pair.image) for pair in pairs])

    def by(self, embedder: Embedder, say: Say) -> Embedded:
        """The features, from the cache where it holds them. Raises InputError if more than 1 % cannot be read."""
        return embedder.cached_images(self.cache, self.name, self.digest, self.images, say)

    def is_cached(self, embedder: Embedder) -> bool:
        """Whether the cache holds them whole."""
        return is_cached(self.cache, embedder.cache_key(self.digest, [key for key, _ in self.images]))
