"""A whole evaluation: run, shards and sets in, results and report out; done when `done.json` says so.

It is done in pieces, each of which outlives a kill: features of all images, then one name at a time, then the report. A name is
that of a set, or the validation split's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from model.errors import InputError
from model.evaluation.caption_sets import CaptionSet
from model.evaluation.embed import Say
from model.evaluation.embed_sets import ToEmbed, embed_sets
from model.evaluation.exports import write_exports
from model.evaluation.measure_sets import MeasuredSet, measure_set, shifts_of
from model.evaluation.multilabel import measure_multilabel_set
from model.evaluation.multilabel_results import MultilabelResult
from model.evaluation.multilabel_sets import MultilabelSet
from model.evaluation.prepare import MARKER, VALIDATION, Evaluation
from model.evaluation.records import MEASURED, RESULTS, read_record, write_record
from model.evaluation.report import write_report
from model.evaluation.results import ProbedSet, Result, RetrievalResult, SetResult, SkippedSet
from model.evaluation.retrieval_sets import measure_caption_set, measure_validation, skipped_caption_set
from model.evaluation.sets import EvaluationSet
from model.evaluation.subject import Subject, load_subject
from model.evaluation.summary import Row, Summary
from model.files import write_text


def subject_of(evaluation: Evaluation) -> Subject:
    """The model that is measured. Raises InputError."""
    sets, inputs = evaluation.sets, evaluation.inputs
    return load_subject(evaluation.run, inputs.weights_sha256, evaluation.config.batch, sets.are_in_the_paper)


def measure(evaluation: Evaluation, say: Say) -> Summary:
    """Do the work and write everything; the marker last."""
    subject, todo = subject_of(evaluation), missing(evaluation)
    for name in evaluation.names:
        if name not in todo:
            say(f"{name} is measured already")
    embed_sets([ToEmbed(evaluation, subject, todo)], say)
    failed: dict[str, str] = {}
    for name in todo:
        try:
            measure_name(name, evaluation, subject, say)
        except InputError as error:
            failed[name] = str(error)
    return report(evaluation, subject, failed)


def missing(evaluation: Evaluation) -> list[str]:
    """The names that have not been measured from these very inputs."""
    return [name for name in evaluation.names if read_record(evaluation, name) is None]


def measure_name(name: str, evaluation: Evaluation, subject: Subject, say: Say) -> MeasuredSet:
    """Measure a set or the validation split, and keep what was found. Raises InputError if it cannot be measured."""
    (evaluation.out / MARKER).unlink(missing_ok=True)
    found = next((found for found in evaluation.sets.every if found.name == name), None)
    if isinstance(found, EvaluationSet):
        measured = measure_set(found, evaluation, subject, say)
    elif isinstance(found, MultilabelSet):
        measured = measure_multilabel_set(found, evaluation, subject, say)
    elif isinstance(found, CaptionSet):
        measured = MeasuredSet(measure_caption_set(found, evaluation, subject, say))
    else:
        assert name == VALIDATION
        measured = MeasuredSet(measure_validation(evaluation, subject, say))
    write_record(evaluation, name, measured)
    return measured


def report(evaluation: Evaluation, subject: Subject, failed: Mapping[str, str]) -> Summary:
    """Write the summary, the exports and the report of all that was measured; `failed` tells why a name was not.

    The marker is written where nothing failed. Raises InputError if none of the sets was measured; where none was named, if the
    validation split was not.
    """
    out, sets, objective = evaluation.out, evaluation.sets, subject.objective
    (out / MARKER).unlink(missing_ok=True)
    asked = list(sets.digests) or [VALIDATION]
    if all(name in failed for name in asked):
        raise InputError(failed[asked[0]])
    measured = {name: _recorded(evaluation, name) for name in evaluation.names if name not in failed}
    with_labels = [found.name for found in sets.classified]
    results = [measured[name].result for name in with_labels if name in measured]
    lost = [SkippedSet(name=name, reason=failed[name]) for name in with_labels if name in failed]
    zero_shot = [found for found in results if isinstance(found, SetResult)]
    probed = [found for found in results if isinstance(found, ProbedSet)]
    multilabel = [found for found in results if isinstance(found, MultilabelResult)]
    skipped = ""
    if objective.zero_shot == "none" and with_labels:
        skipped = (
            f"{subject.kind} learns no match of an image and a text; its features are measured with labels, where a set has a "
            "training split"
        )
    retrieval_sets = [
        _searched(measured[found.name])
        if found.name in measured
        else skipped_caption_set(found, subject, failed[found.name])
        for found in sets.captioned
    ]
    summary = Summary(
        name=evaluation.config.name,
        run=subject.name,
        confidence=evaluation.config.confidence,
        inputs=evaluation.inputs,
        temperature=1 / objective.scale,
        rows=[*map(Row.of, zero_shot), *map(Row.of, probed), *map(Row.of, multilabel)],
        sets=zero_shot,
        probed=tuple(probed),
        multilabel=tuple(multilabel),
        shifts=tuple(shifts_of(sets.labelled, measured)),
        overlaps=tuple(found.overlap for found in measured.values() if found.overlap is not None),
        fairness=tuple(found.fairness for found in measured.values() if found.fairness is not None),
        skipped_sets=(*sets.skipped, *lost),
        image_gflop=subject.image_gflop,
        judged_by=objective.zero_shot,
        zero_shot_skipped=skipped,
        retrieval=_searched(measured[VALIDATION])
        if VALIDATION in measured
        else RetrievalResult(status="skipped", reason=failed[VALIDATION]),
        retrieval_sets=tuple(retrieval_sets),
    )
    _write_results(evaluation, summary, failed)
    write_text(out / "summary.json", summary.model_dump_json(indent=1))
    write_exports(out, summary)
    write_report(out / "report.html", summary, evaluation.run, evaluation.shards, sets.labelled)
    if not failed:
        write_text(out / MARKER, json.dumps({"fingerprint": evaluation.inputs.fingerprint}, indent=1))
    return summary


def _recorded(evaluation: Evaluation, name: str) -> MeasuredSet:
    measured = read_record(evaluation, name)
    assert measured is not None, f"{name} is neither measured nor failed"
    return measured


def _searched(measured: MeasuredSet) -> RetrievalResult:
    assert isinstance(measured.result, RetrievalResult)
    return measured.result


def _write_results(evaluation: Evaluation, summary: Summary, failed: Mapping[str, str]) -> None:
    """What was found across sets, and what could not be searched. Files of an earlier evaluation go; records stay."""
    results, markers = evaluation.out / RESULTS, evaluation.out / MEASURED
    searched = {VALIDATION: summary.retrieval} | {found.name: found for found in summary.retrieval_sets}
    texts = {name: found.model_dump_json(indent=1) for name, found in searched.items() if name in failed}
    across: dict[str, Sequence[Result]] = {
        "robustness": summary.shifts,
        "overlap": summary.overlaps,
        "fairness": summary.fairness,
    }
    texts |= {
        name: json.dumps([one.model_dump() for one in found], indent=1) for name, found in across.items() if found
    }
    kept = texts.keys() | (set(evaluation.names) - failed.keys())
    for stale in (*results.glob("*.json"), *markers.glob("*.json")):
        if stale.stem not in kept:
            stale.unlink()
    for name, text in texts.items():
        write_text(results / f"{name}.json", text)
