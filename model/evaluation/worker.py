"""Evaluations in pieces, as they are asked for: `python -m model.evaluation.worker --evaluation OUT RUN SHARDS ...`.

Standard input has one request a line, JSON with the field `do`: plan, embed, measure, report or compare. Each is answered by a
line that begins with `answer: `, again JSON: `{"found": ...}`, or `{"error": ...}` where a person must mend something. All other
lines are for people. It ends when its standard input does. Models are loaded when they are first needed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from model.config import EvaluateConfig
from model.errors import InputError
from model.evaluation.compare import compare, read_summary
from model.evaluation.embed_sets import ToEmbed, embed_sets
from model.evaluation.fairness_view import gap_lines
from model.evaluation.intervals import Share
from model.evaluation.locate import FoundSets
from model.evaluation.measure import measure_name, missing, report, subject_of
from model.evaluation.prepare import Evaluation, finished, prepare
from model.evaluation.records import read_record
from model.evaluation.results import RetrievalResult
from model.evaluation.subject import Subject
from model.evaluation.summary import Summary, lines_of, table

ANSWER = "answer: "
Found = dict[str, Any]


class Asked:
    """One of the evaluations: what is measured, and the model, loaded when it is first needed."""

    def __init__(self, prepared: Evaluation) -> None:
        self.prepared = prepared

    @cached_property
    def subject(self) -> Subject:
        return subject_of(self.prepared)


class Worker:
    """What answers; `evaluations` (OUT, RUN, SHARDS) are numbered from 0, and all have the same sets, which are read once."""

    def __init__(self, evaluations: Sequence[tuple[str, str, str]]) -> None:
        self._named = evaluations
        self._asked: dict[int, Asked] = {}
        self._sets: FoundSets | None = None

    def answer(self, request: Found) -> Found:
        """Do what is asked. Raises InputError."""
        does: dict[str, Callable[..., Found]] = {
            "plan": self._plan,
            "embed": self._embed,
            "measure": self._measure,
            "report": self._report,
            "compare": self._compare,
        }
        asked = dict(request)
        return does[asked.pop("do")](**asked)

    def _evaluation(self, number: int) -> Asked:
        if number not in self._asked:
            out, run, shards = self._named[number]
            config = EvaluateConfig.read(Path(out) / "config.json")
            prepared = prepare(Path(out), Path(run), shards, config, self._sets)
            self._sets = prepared.sets
            self._asked[number] = Asked(prepared)
        return self._asked[number]

    def _plan(self, evaluation: int) -> Found:
        """What there is to measure, what of it is missing, and which sets cannot be read."""
        prepared = self._evaluation(evaluation).prepared
        summary = finished(prepared)
        if summary is not None:
            _say("this very evaluation is done already; nothing to do")
            _tell(summary, prepared.out)
        skipped = {each.name: each.reason for each in prepared.sets.skipped}
        todo = missing(prepared) if summary is None else []
        return {"is_done": summary is not None, "names": prepared.names, "missing": todo, "skipped": skipped}

    def _embed(self, missing: dict[str, list[str]]) -> Found:
        """Fill the caches; `missing` has the names by the number of the evaluation."""
        work = []
        for number, names in missing.items():
            asked = self._evaluation(int(number))
            work.append(ToEmbed(asked.prepared, asked.subject, names))
        return {"embedded": embed_sets(work, _say)}

    def _measure(self, evaluation: int, name: str) -> Found:
        """Measure one name, unless it was; its figures."""
        asked = self._evaluation(evaluation)
        before = read_record(asked.prepared, name)
        measured = before or measure_name(name, asked.prepared, asked.subject, _say)
        result = measured.result
        reason = result.reason if isinstance(result, RetrievalResult) else ""
        figures = [_figure(*line) for line in lines_of(result)]
        if measured.fairness is not None:
            figures += [_figure(line, gap, None) for line, gap in gap_lines(measured.fairness)]
        return {"was_measured": before is not None, "skipped": reason, "figures": figures}

    def _report(self, evaluation: int, failed: dict[str, str]) -> Found:
        """Put together what was measured; `failed` tells why a name was not."""
        asked = self._evaluation(evaluation)
        _tell(report(asked.prepared, asked.subject, failed), asked.prepared.out)
        return {}

    def _compare(self, out: str) -> Found:
        """Set all evaluations side by side, once all have a report."""
        compare(Path(out), [read_summary(Path(own)) for own, _, _ in self._named])
        _say(f"comparison: {Path(out) / 'compare.html'}")
        return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all that was asked is answered."""
    parser = argparse.ArgumentParser(
        prog="python -m model.evaluation.worker", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--evaluation",
        nargs=3,
        action="append",
        required=True,
        metavar=("OUT", "RUN", "SHARDS"),
        help="folder of an evaluation with its config.json, of a finished run, of shards with manifest.json",
    )
    worker = Worker(parser.parse_args(arguments).evaluation)
    for line in sys.stdin:
        try:
            told: Found = {"found": worker.answer(json.loads(line))}
        except InputError as error:
            told = {"error": str(error)}
        _say(ANSWER + json.dumps(told))
    return 0


def _figure(name: str, share: Share, chance: float | None) -> Found:
    return {"figure": name, "value": share.value, "low": share.low, "high": share.high, "chance": chance}


def _tell(summary: Summary, out: Path) -> None:
    _say(table(summary))
    _say(f"report: {out / 'report.html'}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is for who asks, who has no use for a traceback of ours
    sys.exit(main())
