"""What is measured, read and checked before any work is done, and whether an earlier evaluation found it already."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from model.checkpoint import METRICS, read_done, require_final
from model.config import EvaluateConfig
from model.errors import InputError
from model.evaluation.locate import FoundSets, read_sets
from model.evaluation.overlap import overlapping_images
from model.evaluation.robustness import is_imagenet, variants_of_imagenet
from model.evaluation.shards import Pair, Shards, first_pairs, read_shards
from model.evaluation.summary import Inputs, Summary
from model.files import sha256_file

VERSION = 5
"""Raised when the code changes what it writes."""

MARKER = "done.json"
VALIDATION = "retrieval"
"""What is measured on the validation split goes by this name, which no set may have."""
HOW_IT_RUNS = {"run", "further_runs", "evaluation_sets", "processes"}
"""Settings that decide no figure. What lies at a path is told by its digest: a folder that was moved is still the same."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured, read and checked; nothing is computed yet."""

    out: Path
    run: Path
    config: EvaluateConfig
    shards: Shards
    sets: FoundSets
    inputs: Inputs

    @property
    def names(self) -> list[str]:
        """What is measured one by one: sets with labels, sets with captions, and the validation split."""
        return [*self.sets.digests, VALIDATION]

    @property
    def features(self) -> Path:
        """Folder of the cached features."""
        return self.out / "features"

    @cached_property
    def compared(self) -> dict[str, set[str]]:
        """Of each set that the build compared with, the images that look like one of the shards. Raises InputError."""
        return overlapping_images(self.shards)

    @cached_property
    def val_pairs(self) -> list[Pair]:
        """The pairs of the validation split that are searched. Raises InputError."""
        return first_pairs(self.shards, "val", self.config.retrieval_samples)

    def fingerprint_of(self, name: str) -> str:
        """Of all that the figures of one name depend on; ImageNet's are told among the classes of its variants too."""
        labelled = self.sets.labelled
        has_variants = any(found.name == name and is_imagenet(found) for found in labelled)
        variants = variants_of_imagenet(labelled) if has_variants else []
        inputs = self.inputs
        parts = [inputs.version, inputs.config, inputs.weights_sha256, inputs.shards_sha256]
        parts += [name, inputs.sets.get(name, ""), {variant.name: variant.digest for variant in variants}]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def prepare(
    out: Path, run: Path, shards_folder: str, config: EvaluateConfig, sets: FoundSets | None = None
) -> Evaluation:
    """Read all that the evaluation depends on; the sets too, unless they are given, which takes long where they are large.

    Raises InputError before any work is done if something is missing.
    """
    weights_sha256 = _weights_sha256(run)
    shards = read_shards(shards_folder)
    sets = sets or read_sets(config.evaluation_sets)
    metrics = run / METRICS
    inputs = Inputs(
        version=VERSION,
        config=config.model_dump(mode="json", exclude=HOW_IT_RUNS),
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


def _weights_sha256(run: Path) -> str:
    done = read_done(run)
    if done is None:
        raise InputError(
            f"{run}: not a finished run (it has no done.json); train it to its end or name another (--run)"
        )
    try:
        require_final(run, done)
    except InputError as error:
        raise InputError(f"{error}; train {run} once more, which writes it again, or copy the run again") from error
    return done.model_sha256
