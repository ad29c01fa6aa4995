"""What a run tells: `metrics.jsonl` for programs, a bar or plain lines for people."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tqdm import tqdm

from model.dashboards import Shown
from model.errors import InputError
from model.files import write_text, writing

LINE_EVERY_S = 3.0
LOADER_WARM_UP_STEPS = 3  # as many as the loader prepares ahead
LOADER_JUDGED_STEPS = 20
LOADER_SLOW_SHARE = 1 / 3
NUMBERS = {
    "train": ("step", "loss", "learning_rate", "logit_scale"),
    "validation": ("step", "loss", "samples"),
    "evaluation": ("step", "images", "top1"),
    "skipped": ("step", "skipped_steps", "sample_id"),
    "end": ("step",),
}
"""What every line of a kind holds, at least."""


class MetricsFile:
    """One JSON object a line, and its numbers on `dashboards`. Lines of steps that a resumed run takes again are cut, so no
    step is told twice.

    Raises InputError if it holds something else, or cannot be written.
    """

    def __init__(self, path: Path, resume_step: int, dashboards: Sequence[Shown] = ()) -> None:
        self.path, self.dashboards = path, dashboards
        # The line of an end belongs to no step that was checkpointed.
        kept = [
            line
            for line in (read_metrics(path) if path.exists() else [])
            if line["kind"] != "end" and line["step"] <= resume_step
        ]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, kind: str, **values: Any) -> None:
        """Append one line; it is in the file when this returns."""
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **values}) + "\n")
        place = f"{kind}/{values['set']}" if "set" in values else kind
        numbers = {f"{place}/{name}": value for name, value in values.items() if isinstance(value, (int, float))}
        self.dashboards = [dashboard for dashboard in self.dashboards if _shown(dashboard, values["step"], numbers)]

    def close(self) -> None:
        """Nothing more is written."""
        for dashboard in self.dashboards:
            dashboard.close()


def _shown(dashboard: Shown, step: int, numbers: Mapping[str, float]) -> bool:
    """Whether it took them. It only shows what metrics.jsonl holds, so nothing that befalls it may end a run."""
    try:
        dashboard.write(step, numbers)
    except Exception as error:  # noqa: BLE001 - whatever a service's package may raise
        print(f"warning: {type(dashboard).__name__} is left out from now on: {error}", file=sys.stderr, flush=True)
        return False
    return True


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last one that a kill has cut off is left out.

    Raises InputError that names the file and the line if one is not of this program.
    """
    lines = []
    *whole, _cut_off = path.read_bytes().split(b"\n")
    for number, line in enumerate(whole, 1):
        try:
            record = json.loads(line.decode("utf-8"))
            if not all(isinstance(record[name], (int, float)) for name in NUMBERS[record["kind"]]):
                raise ValueError("a number is missing")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} line {number}: not a line of metrics ({error}); remove that line, the run does not need it"
            ) from error
        lines.append(record)
    return lines


class Pace(NamedTuple):
    """How fast a run is, over the last steps."""

    samples_per_s: float
    data_wait_share: float  # of the time, 0 to 1
    mfu: float | None  # arithmetic done, as a share of the GPU's peak; None where that is not known
    peak_memory_gb: float
    eta_s: float

    def __str__(self) -> str:
        mfu = "" if self.mfu is None else f", MFU {self.mfu:.0%}"
        return (
            f"{self.samples_per_s:,.0f} samples/s eta {clock(self.eta_s)}, {self.data_wait_share:.0%} waiting for data"
            f"{mfu}, {self.peak_memory_gb:.1f} GB"
        )


class Progress:
    """Where a run is: a bar on a terminal, else a line every few seconds. Silent in all processes but the first."""

    def __init__(self, step: int, steps: int, visible: bool, stream: TextIO | None = None) -> None:
        self.steps = steps
        self.visible = visible
        self.stream = stream or sys.stderr
        self.bar: tqdm[Any] | None = None
        self._last_line_s = -math.inf
        if visible and self.stream.isatty():
            self.bar = tqdm(total=steps, initial=step, unit="step", file=self.stream, dynamic_ncols=True)

    def say(self, message: str) -> None:
        """One line, without breaking the bar."""
        if not self.visible:
            return
        if self.bar is not None:
            self.bar.write(message, file=self.stream)
            return
        try:
            print(message, file=self.stream, flush=True)
        except BrokenPipeError:  # who listened is gone; what is left to do needs no listener
            self.visible = False

    def show(self, step: int, loss: float, pace: Pace) -> None:
        """Call after each step."""
        if not self.visible:
            return
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.3f}, {pace.samples_per_s:,.0f} samples/s", refresh=False)
            self.bar.update(step - self.bar.n)
            return
        now = time.monotonic()
        if now - self._last_line_s >= LINE_EVERY_S or step == self.steps:
            self._last_line_s = now
            self.say(f"step {step}/{self.steps} loss {loss:.3f} {pace}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class Speed:
    """Throughput of the window since the last reset."""

    def __init__(self, global_batch: int) -> None:
        self.global_batch = global_batch
        self.reset()

    def reset(self) -> None:
        """Begin a new window."""
        self._began = time.perf_counter()
        self._steps = 0
        self._waited_s = 0.0
        self._flop = 0

    def step(self, waited_s: float, flop: int) -> None:
        """One more step, of which `waited_s` passed waiting for data; `flop` is this process's arithmetic of it."""
        self._steps += 1
        self._waited_s += waited_s
        self._flop += flop

    @property
    def flop_per_s(self) -> float:
        return self._flop / max(1e-9, time.perf_counter() - self._began)

    @property
    def seconds_per_step(self) -> float:
        return (time.perf_counter() - self._began) / max(1, self._steps)

    @property
    def samples_per_s(self) -> float:
        return self.global_batch / max(1e-9, self.seconds_per_step)

    @property
    def data_wait_share(self) -> float:
        """Share of the time in which the training had no data, 0 to 1."""
        return min(1.0, self._waited_s / max(1e-9, time.perf_counter() - self._began))


class LoaderWatch:
    """Notices that the loader, not the model, sets the pace, and says once what to do about it."""

    def __init__(self, threads: int, processes: int, cores: int) -> None:
        self.threads, self.processes, self.cores = threads, processes, cores
        self._steps, self._waited_s, self._busy_s, self._told = -LOADER_WARM_UP_STEPS, 0.0, 0.0, False

    def advice(self, waited_s: float, busy_s: float) -> str | None:
        """Call after each step with the time that it waited for its data and the time that it took; a sentence, or None."""
        self._steps += 1
        if self._steps <= 0 or self._told:
            return None
        self._waited_s += waited_s
        self._busy_s += busy_s
        if self._steps % LOADER_JUDGED_STEPS:
            return None
        share = self._waited_s / max(1e-9, self._waited_s + self._busy_s)
        self._waited_s = self._busy_s = 0.0
        if share < LOADER_SLOW_SHARE:
            return None
        self._told = True
        in_use = self.threads * self.processes
        if in_use < self.cores:
            remedy = (
                f"raise train.loader_threads, now {self.threads} (x {self.processes} processes, {self.cores} cores)"
            )
        else:
            remedy = (
                f"train.loader_threads already uses all {self.cores} cores, so keep smaller images in the shards (crops of "
                "the model's own size need no resizing), or read them from a faster disk"
            )
        return f"the loader is the bottleneck: {share:.0%} of the time the model waits for data; {remedy}"


def clock(seconds: float) -> str:
    """42 -> "0:42", 3700 -> "1:01:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
