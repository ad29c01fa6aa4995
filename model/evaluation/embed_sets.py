"""One pass over the images of all sets: each is decoded once for all the models that want it at one size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from model.errors import InputError
from model.evaluation.embed import Embedder, Say, cached_by_each
from model.evaluation.prepare import VALIDATION, Evaluation
from model.evaluation.retrieval_sets import wanted_of_validation, why_no_search, why_no_validation
from model.evaluation.subject import Subject
from model.evaluation.wanted import Wanted


@dataclass(frozen=True)
class ToEmbed:
    """What of an evaluation is still to be measured, by name, and the model that sees it."""

    evaluation: Evaluation
    subject: Subject
    missing: Collection[str]


def embed_sets(work: Sequence[ToEmbed], say: Say) -> int:
    """Fill the caches of all that is missing; returns of how many splits the features were not there yet.

    Images that cannot be read, or features that are no numbers, are told and left to whoever measures the set.
    """
    by_images: dict[tuple[str, str, int], list[tuple[Embedder, Wanted]]] = {}
    for each in work:
        embedder = each.subject.embedder
        for wanted in _wanted(each):
            same = by_images.setdefault((wanted.name, wanted.digest, embedder.image_px), [])
            same.append((embedder, wanted))
    embedded = 0
    for (name, digest, _), all_models in by_images.items():
        models = [(embedder, wanted) for embedder, wanted in all_models if not wanted.is_cached(embedder)]
        if not models:
            say(f"features of {name} are in the cache")
            continue
        embedded += 1
        embedders, caches = [embedder for embedder, _ in models], [wanted.cache for _, wanted in models]
        try:
            cached_by_each(embedders, caches, name, digest, models[0][1].images, say)
        except InputError as error:
            say(f"warning: {error}")
    return embedded


def _wanted(work: ToEmbed) -> Iterator[Wanted]:
    evaluation, features = work.evaluation, work.evaluation.features
    for found in evaluation.sets.classified:
        if found.name in work.missing:
            yield Wanted.of_split(features, found.name, found.test)
            if evaluation.config.probe and found.train is not None:
                for name, split in (("train", found.train), ("val", found.val)):
                    if split is not None:
                        yield Wanted.of_split(features, found.name, split, name)
    if why_no_search(work.subject):
        return
    for captioned in evaluation.sets.captioned:
        if captioned.name in work.missing:
            yield Wanted.of_pairs(features, captioned.name, captioned.pairs, captioned.digest)
    if VALIDATION in work.missing and not why_no_validation(evaluation):
        yield wanted_of_validation(evaluation)
