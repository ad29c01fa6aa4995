"""What was measured already: results/NAME.json, and a marker that tells of what inputs it is and what it adds across sets."""

from __future__ import annotations

import hashlib

from pydantic import TypeAdapter

from model.evaluation.fairness import Fairness
from model.evaluation.intervals import Share
from model.evaluation.measure_sets import AnyResult, MeasuredSet
from model.evaluation.overlap import Overlap
from model.evaluation.prepare import Evaluation
from model.evaluation.results import Result
from model.files import write_text

RESULTS = "results"
MEASURED = "measured"
_ANY_RESULT: TypeAdapter[AnyResult] = TypeAdapter(AnyResult)


class Marker(Result):
    """measured/NAME.json, written after results/NAME.json, whose bytes it names."""

    fingerprint: str
    result_sha256: str
    among: dict[str, Share]
    overlap: Overlap | None
    fairness: Fairness | None


def write_record(evaluation: Evaluation, name: str, measured: MeasuredSet) -> None:
    """Keep what was found of one name. Raises InputError if it cannot be written."""
    text = measured.result.model_dump_json(indent=1)
    write_text(evaluation.out / RESULTS / f"{name}.json", text)
    marker = Marker(
        fingerprint=evaluation.fingerprint_of(name),
        result_sha256=_sha256(text.encode()),
        among=measured.among,
        overlap=measured.overlap,
        fairness=measured.fairness,
    )
    write_text(evaluation.out / MEASURED / f"{name}.json", marker.model_dump_json(indent=1))


def read_record(evaluation: Evaluation, name: str) -> MeasuredSet | None:
    """What was found of this name from these very inputs, or None."""
    try:
        marker = Marker.model_validate_json((evaluation.out / MEASURED / f"{name}.json").read_bytes())
        text = (evaluation.out / RESULTS / f"{name}.json").read_bytes()
        if marker.fingerprint != evaluation.fingerprint_of(name) or marker.result_sha256 != _sha256(text):
            return None
        return MeasuredSet(_ANY_RESULT.validate_json(text), marker.among, marker.overlap, marker.fairness)
    except (FileNotFoundError, ValueError):
        return None  # absent, or damaged: it is measured anew and written over


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
