"""Retrieval of a run: on the validation split of its data set, and on sets of images with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.config import EvaluateConfig
from model.errors import InputError
from model.evaluation.caption_sets import AS_IT_IS, CaptionSet
from model.evaluation.embed import Embedder, Say
from model.evaluation.measure_sets import token_identity
from model.evaluation.reference import PaperTower, retrieval_reference_of
from model.evaluation.results import RetrievalResult
from model.evaluation.retrieval import measure_retrieval, relevance
from model.evaluation.shards import Pair, Shards, first_pairs
from model.objectives.objective import Objective


def measure_retrievals(
    shards: Shards,
    captioned: Sequence[CaptionSet],
    features: Path,
    config: EvaluateConfig,
    embedder: Embedder,
    objective: Objective,
    kind: str,
    tower: PaperTower | None,
    say: Say,
) -> tuple[RetrievalResult, list[RetrievalResult]]:
    """The validation split's, then each set's; one that cannot be measured is skipped with its reason.

    `kind` names the objective, `tower` the paper's model that is nearest to this one.
    """
    reason = "" if objective.zero_shot == "features" else f"{kind} has no features of texts to search with"
    sets = []
    for found in captioned:
        result = RetrievalResult(status="skipped", reason=reason)
        if not reason:
            try:
                result = _retrieve(found.pairs, found.name, found.digest, features, embedder, config, say)
            except InputError as error:
                result = RetrievalResult(status="skipped", reason=str(error))
        about = {
            "name": found.name,
            "prompt": "" if found.prompt == AS_IT_IS else found.prompt,
            "reference": retrieval_reference_of(found.known, tower),
        }
        sets.append(result.model_copy(update=about))
    reason = reason or _why_not(shards, config)
    if reason:
        return RetrievalResult(status="skipped", reason=reason), sets
    pairs = first_pairs(shards, "val", config.retrieval_samples)
    return _retrieve(pairs, "retrieval", shards.manifest.digest, features, embedder, config, say), sets


def _why_not(shards: Shards, config: EvaluateConfig) -> str:
    if config.retrieval_samples == 0:
        return "the configuration says retrieval_samples = 0"
    if shards.manifest.samples("val") == 0:
        return f"the data set {shards.manifest.name!r} has no validation split; build it with shards.val_share above 0"
    return ""


def _retrieve(
    pairs: Sequence[Pair],
    name: str,
    digest: str,
    features: Path,
    embedder: Embedder,
    config: EvaluateConfig,
    say: Say,
) -> RetrievalResult:
    images = [(pair.key, pair.image) for pair in pairs]
    embedded = embedder.cached_images(features / f"{name}.safetensors", name, digest, images, say)
    readable = [pairs[row] for row in embedded.rows]
    identity = token_identity(embedder, [caption for pair in readable for caption in pair.captions])
    matched = relevance([pair.captions for pair in readable], identity.__getitem__)
    return measure_retrieval(
        [pair.key for pair in readable],
        embedded.features,
        embedder.texts(matched.texts),
        matched,
        embedded.unreadable,
        config.confidence,
    )
