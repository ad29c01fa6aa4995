"""Running stages as Prefect tasks: one part is one task, a finished part says so in its state, a failed one fails the flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed
from pydantic import BaseModel
from upath import UPath

from flows.workspace import DatasetFolders
from pipeline.errors import InputError, UnreachableError, WorkError
from pipeline.stage import Stage, StageResult, prune_parts

ConfigT = TypeVar("ConfigT", bound=BaseModel)

ALREADY_DONE = "AlreadyDone"


def _worth_a_retry(_task: object, _run: object, state: State[Any]) -> bool:
    """An outage may pass; what a person must mend will not mend itself."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, UnreachableError) or not isinstance(
        error, (ValueError, TypeError)
    )  # InputError is a ValueError


@task(
    task_run_name="{label}",
    cache_policy=NO_CACHE,  # stage.json is the one resume mechanism
    persist_result=False,
    retries=2,
    retry_delay_seconds=[2, 10],
    retry_jitter_factor=0.5,
    retry_condition_fn=_worth_a_retry,
)
def stage_task(label: str, run: Callable[[], StageResult]) -> Any:
    """Run one stage, or one part of it; the run's state is named `AlreadyDone` when there was nothing to do."""
    result = run()
    if result.was_done:
        return Completed(
            name=ALREADY_DONE, message=f"{label}: done before, {result.counts.rows_kept:,} kept", data=result
        )
    return result


@dataclass(frozen=True)
class ErrorBudget:
    """How many parts of a stage may fail before the flow does."""

    field: str
    """Setting that says so."""
    share: float
    """Of all parts."""
    replace: Callable[[int, Exception], StageResult]
    """What stands in for part `number` that failed: a part that holds nothing and counts the loss."""

    def covers(self, failures: dict[int, Exception], parts: int) -> bool:
        return len(failures) <= self.share * parts and all(map(_is_of_the_input, failures.values()))


def _is_of_the_input(error: Exception) -> bool:
    return isinstance(error, (InputError, WorkError, OSError))


def run_parts(
    label: str, runs: Sequence[Callable[[], StageResult]], budget: ErrorBudget | None = None
) -> list[StageResult]:
    """Run the parts of a stage on the flow's task runner and wait for all of them.

    Raises InputError if more parts than the budget allows failed for a person's mistake, else WorkError naming the parts
    that failed.
    """
    futures: list[PrefectFuture[Any]] = [
        stage_task.submit(label if len(runs) == 1 else f"{label} {number:05d}", run) for number, run in enumerate(runs)
    ]
    wait(futures)
    results: dict[int, StageResult] = {}
    failures: dict[int, Exception] = {}
    for number, future in enumerate(futures):
        outcome = future.result(raise_on_failure=False)
        if isinstance(outcome, StageResult):
            results[number] = outcome
        elif isinstance(outcome, Exception):
            failures[number] = outcome
        else:
            raise WorkError(f"{label} {number:05d} ended as {future.state}: run the same command again to go on")
    if failures and not (budget and budget.covers(failures, len(runs))):
        _raise_failures(label, failures, len(runs), budget)
    for number, error in failures.items():
        assert budget is not None
        get_run_logger().warning(
            f"{label} {number:05d} is left out, {len(failures)} of {len(runs)} parts failed "
            f"({budget.field} {budget.share:g} allows it; the next run tries again): {error}"
        )
        results[number] = budget.replace(number, error)
    return [results[number] for number in range(len(runs))]


def run_stage(
    label: str,
    stage: Stage[ConfigT],
    work: Sequence[tuple[Sequence[UPath], ConfigT]],
    data: DatasetFolders,
    folder: str,
    budget: ErrorBudget | None = None,
) -> list[StageResult]:
    """Run a stage part by part; parts that an earlier configuration left are removed."""
    outs = [data.part(folder, number) for number in range(len(work))]
    prune_parts(data.whole(folder), outs)
    runs = [partial(stage.run, sources, out, config) for (sources, config), out in zip(work, outs, strict=True)]
    return run_parts(label, runs, budget)


def run_whole(label: str, run: Callable[[], StageResult]) -> StageResult:
    """Run a stage that is one piece of work."""
    return run_parts(label, [run])[0]


def folders(results: Sequence[StageResult]) -> list[UPath]:
    """Where they lie."""
    return [result.out for result in results]


def _raise_failures(label: str, failures: dict[int, Exception], parts: int, budget: ErrorBudget | None) -> None:
    told = "; ".join(f"part {number:05d}: {error}" for number, error in sorted(failures.items())[:5])
    bound = f", more than {budget.field} {budget.share:g} allows" if budget else ""
    message = f"{label}: {len(failures)} of {parts} parts failed{bound}: {told}"
    first = failures[min(failures)]
    if all(isinstance(error, InputError) for error in failures.values()):
        raise InputError(message if parts > 1 else str(first)) from first
    raise WorkError(f"{message}; run the same command again: finished parts are not done twice") from first
