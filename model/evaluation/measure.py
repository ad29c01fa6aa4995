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
from model.evaluation.exports import write_exports
from model.evaluation.locate import FoundSets, read_sets
from model.evaluation.measure_sets import measure_sets
from model.evaluation.multilabel import measure_multilabel
from model.evaluation.overlap import not_split
from model.evaluation.reference import image_gflop, nearest_tower
from model.evaluation.report import write_report
from model.evaluation.results import Result
from model.evaluation.retrieval_sets import measure_retrievals
from model.evaluation.shards import Shards, read_shards
from model.evaluation.summary import Inputs, Row, Summary
from model.files import sha256_file, write_text

VERSION = 4
"""Raised when the code changes what it writes."""

MARKER = "done.json"


@dataclass(frozen=True)
class Evaluation:
    """What is measured, read and checked; nothing is computed yet."""

    out: Path
    run: Path
    config: EvaluateConfig
    shards: Shards
    sets: FoundSets
    inputs: Inputs


def prepare(out: Path, run: Path, shards_folder: str, config: EvaluateConfig) -> Evaluation:
    """Read all that the evaluation depends on. Raises InputError before any work is done if something is missing."""
    weights_sha256 = _weights_sha256(run)
    shards = read_shards(shards_folder)
    sets = read_sets(config.evaluation_sets)
    metrics = run / METRICS
    inputs = Inputs(
        version=VERSION,
        # Not the paths: what lies there is told by its digest, and a folder that was moved is still the same.
        config=config.model_dump(mode="json", exclude={"run", "evaluation_sets"}),
        weights_sha256=weights_sha256,
        metrics_sha256=sha256_file(metrics) if metrics.is_file() else "",
        shards_sha256=shards.sha256,
        sets=sets.digests,
        skipped_sets=tuple(each.name for each in sets.skipped),
    )
    return Evaluation(out, run, config, shards, sets, inputs)


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
    """Do the work and write everything; the marker last. Raises InputError if none of the sets can be measured."""
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
    tower, gflop = None, None
    # Counted where it is asked for: only sets of the paper have figures of its models.
    sets = evaluation.sets
    if sets.are_in_the_paper:
        vision = loaded.config.model.vision
        gflop = image_gflop(objective, vision.image_px, device)
        tower = nearest_tower(vision.kind == "vit", gflop)
    features = out / "features"
    measured = measure_sets(sets.labelled, evaluation.shards, features, config, embedder, objective, tower, say)
    multilabel, skipped_multilabel = measure_multilabel(
        sets.multilabel, features, config, embedder, objective, tower, say
    )
    if skipped_multilabel and not (multilabel or sets.labelled or sets.captioned):
        raise InputError(skipped_multilabel[0].reason)
    skipped = ""
    if objective.zero_shot == "none" and (sets.labelled or sets.multilabel):
        skipped = (
            f"{kind} learns no match of an image and a text; its features are measured with labels, where a set has a "
            "training split"
        )
    retrieval, retrieval_sets = measure_retrievals(
        evaluation.shards, sets.captioned, features, config, embedder, objective, kind, tower, say
    )
    summary = Summary(
        name=config.name,
        run=loaded.config.name,
        confidence=config.confidence,
        inputs=evaluation.inputs,
        temperature=1 / objective.scale,
        rows=[*map(Row.of, measured.sets), *map(Row.of, measured.probed), *map(Row.of, multilabel)],
        sets=measured.sets,
        probed=tuple(measured.probed),
        multilabel=tuple(multilabel),
        shifts=tuple(measured.shifts),
        overlaps=(*measured.overlaps, *not_split(multilabel, evaluation.shards)),
        fairness=tuple(measured.fairness),
        skipped_sets=(*sets.skipped, *measured.skipped, *skipped_multilabel),
        image_gflop=gflop,
        judged_by=objective.zero_shot,
        zero_shot_skipped=skipped,
        retrieval=retrieval,
        retrieval_sets=tuple(retrieval_sets),
    )
    _write_results(out / "results", summary)
    write_text(out / "summary.json", summary.model_dump_json(indent=1))
    write_exports(out, summary)
    write_report(out / "report.html", summary, evaluation.run, evaluation.shards, sets.labelled)
    write_text(out / MARKER, json.dumps({"fingerprint": evaluation.inputs.fingerprint}, indent=1))
    return summary


def _write_results(folder: Path, summary: Summary) -> None:
    """One file a set, and what was found across sets; those of an earlier evaluation go."""
    texts = {found.name: found.model_dump_json(indent=1) for found in summary.every_set}
    texts |= {found.name: found.model_dump_json(indent=1) for found in summary.multilabel}
    texts |= {found.name: found.model_dump_json(indent=1) for found in summary.retrieval_sets}
    texts["retrieval"] = summary.retrieval.model_dump_json(indent=1)
    across: dict[str, Sequence[Result]] = {
        "robustness": summary.shifts,
        "overlap": summary.overlaps,
        "fairness": summary.fairness,
    }
    texts |= {
        name: json.dumps([one.model_dump() for one in found], indent=1) for name, found in across.items() if found
    }
    for stale in folder.glob("*.json"):
        if stale.stem not in texts:
            stale.unlink()
    for name, text in texts.items():
        write_text(folder / f"{name}.json", text)


def _weights_sha256(run: Path) -> str:
    done = read_done(run)
    if done is None:
        raise InputError(
            f"{run}: not a finished run (it has no done.json); train it to its end or name another (--run)"
        )
    require_final(run, done)
    return done.model_sha256
