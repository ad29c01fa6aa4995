"""What follows an epoch: validation, zero-shot accuracy, the best weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from model.checkpoint import BEST
from model.compiling import uncompiled
from model.metrics import MetricsFile
from model.saving import save_best
from model.training import Training
from model.validate import validate


def note(training: Training, metrics: MetricsFile | None, kind: str, **values: Any) -> None:
    """Have process 0 write a line of metrics.jsonl; if it cannot, all processes end."""

    def write() -> None:
        assert metrics is not None
        metrics.write(kind, step=training.step, **values)

    training.processes.first_alone(write)


def end_epoch(training: Training, metrics: MetricsFile | None, captions_cut: int) -> None:
    """Judge the model where an epoch has ended and it is due; `captions_cut` is this process's count of the epoch."""
    config, epoch = training.config.train, training.step // training.order.steps_per_epoch
    captions_cut = training.processes.total(captions_cut)
    if captions_cut:
        training.progress.say(f"epoch {epoch}: {captions_cut:,} captions were cut to the context length")
    is_last = training.step == training.steps
    if (
        len(training.dataset.val)
        and config.validation_samples
        and (is_last or epoch % config.validate_every_epochs == 0)
    ):
        _validate(training, metrics, epoch)
    if training.sets and (is_last or epoch % config.evaluate_every_epochs == 0):
        _evaluate(training, metrics, epoch)


def _validate(training: Training, metrics: MetricsFile | None, epoch: int) -> None:
    with training.averaged(), uncompiled():
        result = validate(
            training.objective, training.dataset.val, training.tokenizer, training.config, training.processes
        )
    note(training, metrics, "validation", epoch=epoch, **result)
    recall = result.get("image_to_text_recall_at_1")
    told = "" if recall is None else f", image-to-text recall@1 {recall:.1%}"
    training.progress.say(f"epoch {epoch}: validation loss {result['loss']:.3f}{told}")
    _keep_best(training, result)


def _evaluate(training: Training, metrics: MetricsFile | None, epoch: int) -> None:
    from model.zero_shot import measure_zero_shot  # it imports scipy, which takes a second

    for found in training.sets:
        image_px = training.config.model.vision.image_px
        with training.averaged(), training.gathered(), uncompiled():
            result = measure_zero_shot(training.objective, found, training.tokenizer, image_px, training.processes)
        note(training, metrics, "evaluation", epoch=epoch, set=found.name, **result)
        training.progress.say(f"epoch {epoch}: zero-shot accuracy on {found.name} {result['top1']:.1%}")


def _keep_best(training: Training, result: Mapping[str, float]) -> None:
    """Keep the weights that were validated if they are the best so far."""
    by = training.config.train.keep_best
    if by == "none":
        return
    best = training.best
    is_better = best is None or (result[by] < best[1] if by == "loss" else result[by] > best[1])
    if not any(training.processes.any_flags(is_better and math.isfinite(result[by]))):
        return
    training.best = (by, result[by])
    position, loss = training.position, result["loss"]
    with training.averaged():
        weights = training.weights()
        training.processes.first_alone(
            lambda: save_best(
                training.run_dir, weights, position.step, position.samples_seen, loss, training.fingerprint
            )
        )
    training.progress.say(
        f"step {training.step} is the best so far by {by}; its weights are in {training.run_dir / BEST}"
    )
