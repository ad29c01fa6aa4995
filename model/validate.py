"""Loss and retrieval on the validation split, while a run trains.

Axes: B a process's share, G a global batch, N the samples used, D the shared space.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from model.config import PretrainConfig
from model.data import InSequence, Loader, Samples
from model.distributed import Processes
from model.objectives.contrastive import hits_at_1
from model.objectives.objective import Inputs, Objective, Outputs
from model.precision import autocast
from model.tokenizer import Tokenizer

ROWS_AT_ONCE = 1024


@torch.no_grad()
def validate(
    objective: Objective, split: Samples, tokenizer: Tokenizer, config: PretrainConfig, processes: Processes
) -> dict[str, float | int]:
    """The first `validation_samples` pairs of the split: loss, how many pairs, and recall at 1 in both directions where the
    objective has features of both sides.

    The loss is that of batches as large as in training (an incomplete last one is left out if there is another), so
    it compares with the training loss; recall is over all pairs at once. Every process embeds its share.
    """
    samples = min(len(split), config.train.validation_samples)
    smallest = -(-samples // processes.world_size) * processes.world_size
    order = InSequence(samples, min(config.train.global_batch, smallest))
    was_training = objective.training
    objective.eval()
    processes.share_buffers(objective.buffers())
    loader = _loader(split, tokenizer, order, config, processes)
    parts = []
    for batch in loader.batches(0, order.steps):
        draws_BK = torch.from_numpy(order.draws(batch.step, batch.sample_ids, objective.draws)).float()
        inputs = Inputs(batch.image_BHWC, batch.tokens_BL, draws_BK).to(processes.device)
        with autocast(config.train.precision, processes.device):
            outputs: Outputs = objective(inputs)
        parts.append(processes.gather(*outputs.rows))
    rows = [torch.cat(row_parts)[:samples] for row_parts in zip(*parts, strict=True)]
    result: dict[str, float | int] = {
        "loss": _loss(objective, rows, outputs.shared, processes, order.global_batch),
        "samples": samples,
    }
    objective.train(was_training)
    if objective.zero_shot == "features":
        image_ND, text_ND = rows
        result["image_to_text_recall_at_1"] = _recall(image_ND, text_ND)
        result["text_to_image_recall_at_1"] = _recall(text_ND, image_ND)
    return result


def _loader(
    split: Samples, tokenizer: Tokenizer, order: InSequence, config: PretrainConfig, processes: Processes
) -> Loader:
    threads, image_px = config.train.loader_threads, config.model.vision.image_px
    return Loader(split, tokenizer, order, image_px, threads, processes.rank, processes.world_size)


def _loss(
    objective: Objective, rows: list[Tensor], shared: tuple[Tensor, ...], processes: Processes, batch: int
) -> float:
    alone = replace(processes, rank=0, world_size=1)
    losses = [
        objective.loss(Outputs(batch_rows, shared), alone)
        for batch_rows in zip(*(torch.split(row, batch) for row in rows), strict=True)
        if len(batch_rows[0]) == batch or len(rows[0]) < batch
    ]
    return float(torch.stack(losses).mean())


def _recall(query_ND: Tensor, target_ND: Tensor) -> float:
    found = [
        hits_at_1(query_BD, target_ND, first=number * ROWS_AT_ONCE)
        for number, query_BD in enumerate(torch.split(query_ND, ROWS_AT_ONCE))
    ]
    return float(torch.stack(found).sum()) / len(query_ND)
