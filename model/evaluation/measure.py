"""A whole evaluation: run, shards and sets in, results and report out; done when `done.json` says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import METRICS, load_run, read_done, require_final
from model.config import EvaluateConfig
from model.errors import InputError
from model.evaluation.embed import Embedder, Say
from model.evaluation.locate import read_sets
from model.evaluation.measure_sets import measure_sets, token_identity
from model.evaluation.reference import image_gflop, nearest_tower
from model.evaluation.report import write_report
from model.evaluation.results import Result, RetrievalResult, SkippedSet, write_text
from model.evaluation.retrieval import measure_retrieval, relevance
from model.evaluation.sets import EvaluationSet
from model.evaluation.shards import Shards, first_pairs, read_shards
from model.evaluation.summary import Inputs, Row, Summary
from model.files import sha256_file

VERSION = 3
"""Raised when the code changes what it writes."""

MARKER = "done.json"


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
    tower = None
    # Counted where it is asked for: only sets of the paper have figures of its models.
    if any(found.known is not None and found.known.paper_row for found in evaluation.sets):
        vision = loaded.config.model.vision
        tower = nearest_tower(vision.kind == "vit", image_gflop(objective, vision.image_px, device))
    features = out / "features"
    measured = measure_sets(evaluation.sets, evaluation.shards, features, config, embedder, objective, tower, say)
    skipped = ""
    if objective.zero_shot == "none" and evaluation.sets:
        skipped = (
            f"{kind} learns no match of an image and a text; its features are measured with labels, where a set has a "
            "training split"
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
        rows=[Row.of(found) for found in (*measured.sets, *measured.probed)],
        sets=measured.sets,
        probed=tuple(measured.probed),
        shifts=tuple(measured.shifts),
        overlaps=tuple(measured.overlaps),
        skipped_sets=(*evaluation.skipped, *measured.skipped),
        judged_by=objective.zero_shot,
        zero_shot_skipped=skipped,
        retrieval=retrieval,
    )
    _write_results(out / "results", summary)
    write_text(out / "summary.json", summary.model_dump_json(indent=1))
    write_report(out / "report.html", summary, evaluation.run, evaluation.shards, evaluation.sets)
    write_text(out / MARKER, json.dumps({"fingerprint": evaluation.inputs.fingerprint}, indent=1))
    return summary


def _write_results(folder: Path, summary: Summary) -> None:
    """One file a set, and what was found across sets; those of an earlier evaluation go."""
    texts = {found.name: found.model_dump_json(indent=1) for found in (*summary.sets, *summary.probed)}
    texts["retrieval"] = summary.retrieval.model_dump_json(indent=1)
    across: dict[str, Sequence[Result]] = {"robustness": summary.shifts, "overlap": summary.overlaps}
    texts |= {
        name: json.dumps([one.model_dump() for one in found], indent=1) for name, found in across.items() if found
    }
    for stale in folder.glob("*.json"):
        if stale.stem not in texts:
            stale.unlink()
    for name, text in texts.items():
        write_text(folder / f"{name}.json", text)


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


def _weights_sha256(run: Path) -> str:
    done = read_done(run)
    if done is None:
        raise InputError(
            f"{run}: not a finished run (it has no done.json); train it to its end or name another (--run)"
        )
    require_final(run, done)
    return done.model_sha256
