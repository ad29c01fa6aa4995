"""Zero-shot accuracy on evaluation sets while a run trains, shared over all processes.

Axes: N images of a process, C classes, T templates, D dimensions of the shared space.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.distributed import Processes
from model.errors import InputError
from model.evaluation.embed import MAX_UNREADABLE_SHARE, Embedder
from model.evaluation.prompts import prompts_of
from model.evaluation.sets import EvaluationSet
from model.evaluation.zero_shot import choose, class_vectors, logits
from model.objectives.objective import Objective
from model.tokenizer import Tokenizer

IMAGES_AT_ONCE = 256


@torch.no_grad()
def measure_zero_shot(
    objective: Objective, found: EvaluationSet, tokenizer: Tokenizer, image_px: int, processes: Processes
) -> dict[str, int | float]:
    """Images judged, how many could not be read, and the shares of them whose class is first or among the first five.

    The same figures as model/evaluation gives, in fp32. Every process embeds every `world_size`-th image, and the prompts of as
    many classes as the others. Raises InputError if over 1 % of all images cannot be read.
    """
    was_training = objective.training
    objective.eval()
    processes.share_buffers(objective.buffers())
    embedder = Embedder(objective, tokenizer, "", image_px, processes.device, IMAGES_AT_ONCE)
    classes_CD = _classes(found, embedder, processes) if objective.zero_shot == "features" else None
    counts = processes.together(lambda: _counts(objective, found, embedder, processes, classes_CD))
    objective.train(was_training)
    first, among_five, images, unreadable = (processes.total(count) for count in counts)
    if unreadable > MAX_UNREADABLE_SHARE * (images + unreadable):
        raise InputError(
            f"train.evaluation_sets: {unreadable:,} of the {images + unreadable:,} images of {found.name} cannot be read; "
            "wit evaluate names them: mend them, or leave the set out"
        )
    return {"images": images, "unreadable": unreadable, "top1": first / images, "top5": among_five / images}


def _classes(found: EvaluationSet, embedder: Embedder, processes: Processes) -> Tensor:
    classes = len(found.class_names)
    each = -(-classes // processes.world_size)
    # All processes give as many; the last class stands in where there are no more.
    own = [min(processes.rank * each + place, classes - 1) for place in range(each)]

    def embed() -> Tensor:
        texts = [prompt for label in own for prompt in found.prompts(label)]
        vectors_CD = class_vectors(embedder.texts(texts).view(each, len(found.templates), -1))
        return vectors_CD.to(processes.device)

    (classes_CD,) = processes.gather(processes.together(embed))
    return classes_CD[:classes].cpu()


def _counts(
    objective: Objective, found: EvaluationSet, embedder: Embedder, processes: Processes, classes_CD: Tensor | None
) -> tuple[int, int, int, int]:
    """Of this process's images: first right, among the first five right, judged, unreadable."""
    samples = found.samples[processes.rank :: processes.world_size]
    if not samples:
        return 0, 0, 0, 0
    images = [(sample.key, sample.image) for sample in samples]
    if classes_CD is not None:
        embedded = embedder.images(found.name, images, _say_nothing)
    else:
        embedded = embedder.scores(objective.score_texts, found.name, images, prompts_of(found), _say_nothing)
    if not embedded.rows:
        return 0, 0, 0, len(embedded.unreadable)
    if classes_CD is not None:
        logits_NC = logits(embedded.features, classes_CD, objective.scale)
    else:
        logits_NC = embedded.features.view(len(embedded.rows), len(found.class_names), -1).mean(dim=2)
    labels_N = torch.tensor([samples[row].label for row in embedded.rows])
    place_N = choose(logits_NC, labels_N).rank
    return int((place_N == 0).sum()), int((place_N < 5).sum()), len(place_N), len(embedded.unreadable)


def _say_nothing(message: str) -> None:
    """The trainer tells the result."""
