"""Retrieval of a run: on the validation split of its data set, and on sets of images with captions."""

from __future__ import annotations

from collections.abc import Sequence

from model.evaluation.caption_sets import AS_IT_IS, CaptionSet
from model.evaluation.embed import Say
from model.evaluation.prepare import VALIDATION, Evaluation
from model.evaluation.prompts import token_identity
from model.evaluation.reference import retrieval_reference_of
from model.evaluation.results import RetrievalResult
from model.evaluation.retrieval import measure_retrieval, relevance
from model.evaluation.shards import Pair
from model.evaluation.subject import Subject
from model.evaluation.wanted import Wanted


def measure_caption_set(found: CaptionSet, evaluation: Evaluation, subject: Subject, say: Say) -> RetrievalResult:
    """Search a set of images with captions, or say why it is not searched. Raises InputError if it cannot be measured."""
    reason = why_no_search(subject)
    if reason:
        return skipped_caption_set(found, subject, reason)
    wanted = Wanted.of_pairs(evaluation.features, found.name, found.pairs, found.digest)
    return _named(_retrieve(found.pairs, wanted, evaluation, subject, say), found, subject)


def skipped_caption_set(found: CaptionSet, subject: Subject, reason: str) -> RetrievalResult:
    """The result of a set that was not measured."""
    return _named(RetrievalResult(status="skipped", reason=reason), found, subject)


def measure_validation(evaluation: Evaluation, subject: Subject, say: Say) -> RetrievalResult:
    """Search the validation split, or say why it is not searched. Raises InputError if it cannot be measured."""
    reason = why_no_search(subject) or why_no_validation(evaluation)
    if reason:
        return RetrievalResult(status="skipped", reason=reason)
    return _retrieve(evaluation.val_pairs, wanted_of_validation(evaluation), evaluation, subject, say)


def wanted_of_validation(evaluation: Evaluation) -> Wanted:
    """The images of the validation split that are searched."""
    digest = evaluation.shards.manifest.digest
    return Wanted.of_pairs(evaluation.features, VALIDATION, evaluation.val_pairs, digest)


def why_no_search(subject: Subject) -> str:
    """Why the model cannot search, if it cannot."""
    has_features = subject.objective.zero_shot == "features"
    return "" if has_features else f"{subject.kind} has no features of texts to search with"


def why_no_validation(evaluation: Evaluation) -> str:
    """Why nothing is measured on the validation split, if nothing is."""
    manifest = evaluation.shards.manifest
    if evaluation.config.retrieval_samples == 0:
        return "the configuration says retrieval_samples = 0"
    if manifest.samples("val") == 0:
        return f"the data set {manifest.name!r} has no validation split; build it with shards.val_share above 0"
    return ""


def _named(result: RetrievalResult, found: CaptionSet, subject: Subject) -> RetrievalResult:
    about = {
        "name": found.name,
        "prompt": "" if found.prompt == AS_IT_IS else found.prompt,
        "reference": retrieval_reference_of(found.known, subject.tower),
    }
    return result.model_copy(update=about)


def _retrieve(
    pairs: Sequence[Pair], wanted: Wanted, evaluation: Evaluation, subject: Subject, say: Say
) -> RetrievalResult:
    embedder = subject.embedder
    embedded = wanted.by(embedder, say)
    readable = [pairs[row] for row in embedded.rows]
    identity = token_identity(embedder, [caption for pair in readable for caption in pair.captions])
    matched = relevance([pair.captions for pair in readable], identity.__getitem__)
    return measure_retrieval(
        [pair.key for pair in readable],
        embedded.features,
        embedder.texts(matched.texts),
        matched,
        embedded.unreadable,
        evaluation.config.confidence,
    )
