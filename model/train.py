"""Train CLIP on a folder of shards. The command, for N processes (leave the launcher out for one):

    python -m torch.distributed.run --standalone --nproc-per-node=N -m model.train RUN_DIR --shards SHARDS_DIR

RUN_DIR/config.json is a PretrainConfig. The same command goes on where a stopped or killed run was, to the same bits
(on the CPU, with as many processes).

Exit codes: 0 finished, or stopped by SIGTERM or SIGINT after a checkpoint (then there is no done.json); 2 an error that
is yours to mend, in one line on stderr; 3 loss, gradients or weights are not finite; 4 another process did not come
within train.hang_timeout_s (model/hang.py); anything else is a crash.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from model.parent import GRACE_S, stopping_with_parent

# It notes who its parent is before torch is imported, which takes seconds.
# isort: split
from filelock import FileLock, Timeout
from torch.distributed.elastic.multiprocessing.errors import record

from model import distributed
from model.checkpoint import METRICS, read_config, save_weights, tell
from model.dashboards import open_dashboards
from model.data import SampleError
from model.distributed import LoneError, PeerError, Processes
from model.epoch import end_epoch, note
from model.errors import InputError
from model.hang import watching
from model.metrics import LoaderWatch, MetricsFile, Pace, Speed
from model.optim import learning_rate
from model.saving import save_checkpoint, take_snapshot
from model.step import DivergedError, Skipped, batches, inputs_of, rehearse, require_finite, train_step
from model.training import Training, prepare
from model.work import Work, peak_flop_per_s, peak_memory_gb

EXIT_INPUT, EXIT_DIVERGED = 2, 3
WAIT_FOR_OTHERS_S = 2 * GRACE_S


def train(training: Training, stop_requested: Callable[[], bool]) -> bool:
    """Take all remaining steps; False if it was asked to stop, and did after a checkpoint."""
    metrics = _open_metrics(training)
    try:
        return _take_steps(training, metrics, stop_requested)
    finally:
        if metrics is not None:
            metrics.close()


def _take_steps(training: Training, metrics: MetricsFile | None, stop_requested: Callable[[], bool]) -> bool:
    config = training.config.train
    speed, loader_watch = Speed(training.order.global_batch), _watch(training)
    work = Work(training.objective, _in_any(training))
    peak = peak_flop_per_s(training.processes.device, config.precision)
    saved_step, captions_cut, stopped = training.step, 0, False
    rehearse(training)
    speed.reset()
    for batch in batches(training, stop_requested):
        if batch is None:
            stopped = True
            break
        began_s = time.perf_counter()
        skipped = train_step(training, batch)
        training.step += 1
        if skipped is not None:
            _note_skipped(training, metrics, skipped)
        captions_cut += batch.captions_cut
        advice = loader_watch.advice(batch.waited_s, time.perf_counter() - began_s)
        if advice is not None:
            training.progress.say(advice)
        speed.step(batch.waited_s, work.flop(batch, partial(inputs_of, training)) if peak else 0)
        pace = _pace(training, speed, peak)
        training.progress.show(training.step, training.loss, pace)
        if training.step % config.log_every_steps == 0 or training.step == training.steps:
            _write_metrics(training, metrics, pace)
            speed.reset()
        if training.step % training.order.steps_per_epoch == 0:
            end_epoch(training, metrics, captions_cut)
            captions_cut = 0
            speed.reset()
        if training.step % config.checkpoint_every_steps == 0 or training.step == training.steps:
            _save(training)
            saved_step = training.step
            speed.reset()
    if stopped and saved_step < training.step:
        _save(training)
    training.processes.first_alone(training.writer.wait)
    if not stopped:
        _finish(training, metrics)
    return not stopped


def _open_metrics(training: Training) -> MetricsFile | None:
    """Process 0 writes them; if it cannot, all processes end, here and below."""
    path = training.run_dir / METRICS
    if training.step and not path.exists():
        training.progress.say(f"{path} is missing; it begins anew at step {training.step}")

    def open_file() -> MetricsFile:
        dashboards = open_dashboards(training.run_dir, training.config, training.step)
        return MetricsFile(path, training.step, dashboards)

    return training.processes.first_alone(open_file)


def _write_metrics(training: Training, metrics: MetricsFile | None, pace: Pace) -> None:
    last = training.step - 1
    if math.isnan(training.loss):
        return  # all steps were left out, each with a line that says so
    note(
        training,
        metrics,
        "train",
        steps=training.steps,
        epoch=training.order.epoch(last) + 1,
        samples_seen=training.samples_seen,
        loss=training.loss,
        learning_rate=learning_rate(last, training.steps, training.config.train),
        logit_scale=training.objective.scale,
        gradient_norm=training.gradient_norm,
        skipped_steps=training.skipped_steps,
        samples_per_s=round(pace.samples_per_s, 1),
        data_wait_share=round(pace.data_wait_share, 4),
        **({} if pace.mfu is None else {"mfu": round(pace.mfu, 4)}),
        peak_memory_gb=round(pace.peak_memory_gb, 3),
        eta_s=round(pace.eta_s, 1),
        **training.samples_of_step,
    )


def _in_any(training: Training) -> Callable[[bool], bool]:
    """Where the model is spread a forward pass takes all processes, and there one makes it if any must."""
    return (lambda flag: any(training.processes.any_flags(flag))) if training.is_spread else bool


def _watch(training: Training) -> LoaderWatch:
    return LoaderWatch(training.config.train.loader_threads, training.processes.world_size, os.cpu_count() or 1)


def _pace(training: Training, speed: Speed, peak: float | None) -> Pace:
    return Pace(
        samples_per_s=speed.samples_per_s,
        data_wait_share=speed.data_wait_share,
        mfu=speed.flop_per_s / peak if peak else None,
        peak_memory_gb=peak_memory_gb(training.processes.device),
        eta_s=(training.steps - training.step) * speed.seconds_per_step,
    )


def _note_skipped(training: Training, metrics: MetricsFile | None, skipped: Skipped) -> None:
    note(training, metrics, "skipped", skipped_steps=training.skipped_steps, sample_id=skipped.sample_ids[0])
    training.progress.say(f"step {training.step} was left out: {skipped.why}")


def _save(training: Training) -> None:
    """Have a checkpoint written while the training goes on; the copy of it is made when the one before is on the disk."""
    require_finite(training)
    processes, keep = training.processes, training.config.train.keep_checkpoints
    processes.first_alone(training.writer.wait)
    processes.at("copying weights and optimiser")
    snapshot = take_snapshot(training.position, training.objective, training.state(), processes.is_first)
    work = partial(save_checkpoint, training.run_dir, snapshot, training.fingerprint, keep)
    processes.first_alone(lambda: training.writer.begin(work))


def _finish(training: Training, metrics: MetricsFile | None) -> None:
    if math.isnan(training.loss):
        raise DivergedError("all steps of the run were left out, as none was finite; it has learned nothing")
    step, samples_seen, loss = training.step, training.samples_seen, training.loss
    note(training, metrics, "end", samples_seen=samples_seen, loss=loss)
    with training.averaged():
        weights = training.weights()
        training.processes.first_alone(
            lambda: save_weights(training.run_dir, weights, step, samples_seen, loss, training.fingerprint)
        )


def _listen() -> Callable[[], bool]:
    """Whether this process was asked to stop; asking twice is asking once (torchrun does)."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return lambda: bool(asked)


@contextmanager
def _only_trainer(run_dir: Path, processes: Processes) -> Iterator[None]:
    """The processes of a killed launcher may still be writing their checkpoint: wait for them rather than mix with them."""
    lock = FileLock(run_dir.with_name(f".{run_dir.name}.training.lock"))

    def acquire() -> None:
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return
        tell(f"another process is training in {run_dir}; waiting for it to end")
        try:
            lock.acquire(timeout=WAIT_FOR_OTHERS_S)
        except Timeout as error:
            raise InputError(f"{run_dir}: another process is still training there; wait for it, or end it") from error

    processes.first_alone(acquire)
    try:
        yield
    finally:
        lock.release()


def run(
    run_dir: Path, shards: str, processes: Processes, stop_requested: Callable[[], bool], mixed: Sequence[str] = ()
) -> None:
    """Train `run_dir` to its end, or until asked to stop. `shards` and `mixed` are as for `open_data`."""
    config = read_config(run_dir)
    with watching(processes, config.train.hang_timeout_s) as processes, _only_trainer(run_dir, processes):
        training = prepare(run_dir, config, shards, processes, mixed)
        if training is None:
            return
        try:
            finished = train(training, stop_requested)
        finally:
            training.writer.close()
            training.progress.close()
    if finished:
        training.progress.say(f"finished after {training.step} steps, loss {training.loss:.3f}")
    else:
        training.progress.say(f"stopped at step {training.step}; run the same command to go on")


@record
def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m model.train", description="Train CLIP on a folder of shards.")
    parser.add_argument("run_dir", type=Path, help="folder of the run; it holds config.json")
    parser.add_argument(
        "--shards", required=True, help="folder of shards (docs/shards.md), local or a URL such as s3://..."
    )
    parser.add_argument(
        "--mixed", nargs="+", default=[], help="folders of shards of the other data sets of data.mix, in its order"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's threads are the parallelism
    with stopping_with_parent() if "TORCHELASTIC_RUN_ID" in os.environ else nullcontext():
        _run_command(arguments.run_dir, arguments.shards, arguments.mixed)


def _run_command(run_dir: Path, shards: str, mixed: Sequence[str]) -> None:
    """Run with all the processes of the launcher; a person's mistake is one line and an exit code."""
    stop_requested = _listen()
    processes = distributed.start()
    try:
        run(run_dir, shards, processes, stop_requested, mixed)
    except PeerError:
        raise SystemExit(EXIT_INPUT) from None
    except (ValueError, OSError) as error:
        if processes.is_first or isinstance(error, (LoneError, SampleError, OSError)):
            print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_INPUT) from None
    except DivergedError as error:
        if processes.is_first:
            print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_DIVERGED) from None
    finally:
        distributed.stop()


if __name__ == "__main__":
    main()
