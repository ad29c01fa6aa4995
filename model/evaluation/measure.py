"""A whole evaluation: run, shards and sets in, results and report out; done when `done.json` says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint import METRICS, load_run, read_done, require_final
from model.config import EvaluateConfig
from model.errors import InputError
from model.evaluation.embed import Embedder, Say
from model.evaluation.learned import measure_learned
from model.evaluation.locate import read_sets
from model.evaluation.mentions import count_mentions
from model.evaluation.report import write_report
from model.evaluation.results import RetrievalResult, SetResult, SkippedSet, write_text
from model.evaluation.retrieval import measure_retrieval, relevance
from model.evaluation.sets import EvaluationSet
from model.evaluation.shards import Shards, first_pairs, read_shards, training_captions
from model.evaluation.summary import Inputs, Row, Summary
from model.evaluation.zero_shot import class_vectors, logits, measure_scored_set, measure_set
from model.files import sha256_file
from model.objectives.objective import Objective

VERSION = 2
"""Raised when the code changes what it writes."""

MARKER = "done.json"
GROUPS_SHOWN = 5
NAME_SHOWN = 40


@dataclass(frozen=True)
class Evaluation:
    """What is measured, read and checked; nothing is computed yet."""

    out: Path
    run: Path
    config: EvaluateConfig
    shards: Shards
    sets: list[EvaluationSet]
    skipped: list[SkippedSet]
    inputs: Inputs


def prepare(out: Path, run: Path, shards_folder: str, config: EvaluateConfig) -> Evaluation:
    """Read all that the evaluation depends on. Raises InputError before any work is done if something is missing."""
    weights_sha256 = _weights_sha256(run)
    shards = read_shards(shards_folder)
    sets, skipped = read_sets(config.evaluation_sets)
    metrics = run / METRICS
    inputs = Inputs(
        version=VERSION,
        # Not the paths: what lies there is told by its digest, and a folder that was moved is still the same.
        config=config.model_dump(mode="json", exclude={"run", "evaluation_sets"}),
        weights_sha256=weights_sha256,
        metrics_sha256=sha256_file(metrics) if metrics.is_file() else "",
        shards_sha256=shards.sha256,
        sets={found.name: found.digest for found in sets},
        skipped_sets=tuple(each.name for each in skipped),
    )
    return Evaluation(out, run, config, shards, sets, skipped, inputs)


def finished(evaluation: Evaluation) -> Summary | None:
    """What an earlier evaluation of exactly this found, or None."""
    try:
        marker = json.loads((evaluation.out / MARKER).read_text())
        if marker["fingerprint"] != evaluation.inputs.fingerprint:
            return None
        if not (evaluation.out / "report.html").is_file():
            return None
        return Summary.model_validate_json((evaluation.out / "summary.json").read_text())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # absent, or damaged: it is measured anew and written over


def measure(evaluation: Evaluation, say: Say) -> Summary:
    """Do the work and write everything; the marker last."""
    out, config = evaluation.out, evaluation.config
    (out / MARKER).unlink(missing_ok=True)
    loaded = load_run(evaluation.run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = loaded.objective.to(device)
    embedder = Embedder(
        towers=objective,
        tokenizer=loaded.tokenizer,
        weights_sha256=evaluation.inputs.weights_sha256,
        image_px=loaded.config.model.vision.image_px,
        device=device,
        batch=config.batch,
    )
    kind = loaded.config.objective.kind
    sets = _measure_sets(evaluation, embedder, objective, say)
    skipped = ""
    if objective.zero_shot == "none" and evaluation.sets:
        skipped = (
            f"{kind} learns no match of an image and a text, and a linear probe is fitted beside zero-shot only; "
            "the features of the images are in features/"
        )
    if objective.zero_shot == "features":
        retrieval = _measure_retrieval(evaluation, embedder, say)
    else:
        retrieval = RetrievalResult(status="skipped", reason=f"{kind} has no features of texts to search with")
    summary = Summary(
        name=config.name,
        run=loaded.config.name,
        confidence=config.confidence,
        inputs=evaluation.inputs,
        temperature=1 / objective.scale,
        rows=[Row.of(found) for found in sets],
        sets=sets,
        skipped_sets=tuple(evaluation.skipped),
        judged_by=objective.zero_shot,
        zero_shot_skipped=skipped,
        retrieval=retrieval,
    )
    wanted = {f"{name}.json" for name in ("retrieval", *evaluation.inputs.sets)}
    for stale in (out / "results").glob("*.json"):
        if stale.name not in wanted:
            stale.unlink()
    for found in sets:
        write_text(out / "results" / f"{found.name}.json", found.model_dump_json(indent=1))
    write_text(out / "results" / "retrieval.json", retrieval.model_dump_json(indent=1))
    write_text(out / "summary.json", summary.model_dump_json(indent=1))
    write_report(out / "report.html", summary, evaluation.run, evaluation.shards, evaluation.sets)
    write_text(out / MARKER, json.dumps({"fingerprint": evaluation.inputs.fingerprint}, indent=1))
    return summary


def _measure_sets(evaluation: Evaluation, embedder: Embedder, objective: Objective, say: Say) -> list[SetResult]:
    """The sets' features in any case; their figures, if the objective can judge texts."""
    results = []
    for found in evaluation.sets:
        images = [(sample.key, sample.image) for sample in found.samples]
        embedded = embedder.cached_images(
            evaluation.out / "features" / f"{found.name}.safetensors",
            found.name,
            found.images_digest,
            images,
            say,
        )
        if objective.zero_shot == "none":
            continue
        warn_of_equal_classes(found, embedder, say)
        mentions = count_mentions(found.class_names, training_captions(evaluation.shards))
        learn = partial(
            measure_learned,
            found,
            embedded,
            embedder=embedder,
            features=evaluation.out / "features",
            config=evaluation.config,
            say=say,
        )
        if objective.zero_shot == "scores":
            scores = embedder.scores(objective.score_texts, found.name, images, prompts_of(found), say)
            learned = learn(zero_shot=None)
            results.append(measure_scored_set(found, scores, evaluation.config.confidence, mentions, learned))
            continue
        prompts_CTD = prompt_features(embedder, found)
        learned = learn(zero_shot=partial(logits, classes_CD=class_vectors(prompts_CTD), scale=objective.scale))
        results.append(
            measure_set(
                found,
                embedded.features,
                embedded.rows,
                embedded.unreadable,
                prompts_CTD,
                objective.scale,
                evaluation.config.confidence,
                mentions,
                learned,
            )
        )
    return results


def warn_of_equal_classes(found: EvaluationSet, embedder: Embedder, say: Say) -> None:
    """Say which classes the model cannot tell apart, because all their prompts come to the same tokens."""
    prompts_CT = [found.prompts(label) for label in range(len(found.class_names))]
    identity = _token_identity(embedder, [prompt for prompts_T in prompts_CT for prompt in prompts_T])
    lines: dict[tuple[bytes, ...], list[int]] = {}
    for line, prompts_T in enumerate(prompts_CT, 1):
        lines.setdefault(tuple(identity[prompt] for prompt in prompts_T), []).append(line)
    equal = [same for same in lines.values() if len(same) > 1]
    if equal:
        shown = "; ".join(
            f"{found.class_names[same[0] - 1][:NAME_SHOWN]!r} (lines {', '.join(map(str, same[:GROUPS_SHOWN]))})"
            for same in equal[:GROUPS_SHOWN]
        )
        say(
            f"warning: {found.name}: {sum(map(len, equal))} of {len(prompts_CT)} classes have the same prompts as another, "
            "once lower-cased and cut to the model's context length, so the model cannot tell them apart; give them other "
            f"names in classnames.txt: {shown}"
        )


def prompt_features(embedder: Embedder, found: EvaluationSet) -> Tensor:
    """Features (C, T, D) of every class name in every template, unnormalised; all go through the tower together."""
    return embedder.texts(prompts_of(found)).view(len(found.class_names), len(found.templates), -1)


def prompts_of(found: EvaluationSet) -> list[str]:
    """Every class name in every template, class by class."""
    return [prompt for label in range(len(found.class_names)) for prompt in found.prompts(label)]


def _measure_retrieval(evaluation: Evaluation, embedder: Embedder, say: Say) -> RetrievalResult:
    config, shards = evaluation.config, evaluation.shards
    if config.retrieval_samples == 0:
        return RetrievalResult(status="skipped", reason="the configuration says retrieval_samples = 0")
    if shards.manifest.samples("val") == 0:
        return RetrievalResult(
            status="skipped",
            reason=f"the data set {shards.manifest.name!r} has no validation split; build it with shards.val_share above 0",
        )
    pairs = first_pairs(shards, "val", config.retrieval_samples)
    embedded = embedder.cached_images(
        evaluation.out / "features" / "retrieval.safetensors",
        "retrieval",
        shards.manifest.digest,
        [(pair.key, pair.image) for pair in pairs],
        say,
    )
    readable = [pairs[row] for row in embedded.rows]
    identity = _token_identity(embedder, [caption for pair in readable for caption in pair.captions])
    matched = relevance([pair.captions for pair in readable], identity.__getitem__)
    return measure_retrieval(
        [pair.key for pair in readable],
        embedded.features,
        embedder.texts(matched.texts),
        matched,
        embedded.unreadable,
        config.confidence,
    )


def _token_identity(embedder: Embedder, texts: Sequence[str]) -> dict[str, bytes]:
    """What the model sees of each text: two texts of the same tokens are one to it."""
    distinct = list(dict.fromkeys(texts))
    tokens_NL = embedder.tokenizer.encode(distinct).numpy()
    return {text: row.tobytes() for text, row in zip(distinct, tokens_NL, strict=True)}


def _weights_sha256(run: Path) -> str:
    done = read_done(run)
    if done is None:
        raise InputError(
            f"{run}: not a finished run (it has no done.json); train it to its end or name another (--run)"
        )
    require_final(run, done)
    return done.model_sha256
