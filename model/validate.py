"""Loss and retrieval on the validation split, while a run trains.

Axes: B a process's share, G a global batch, N the samples used, D the shared space.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.clip import CLIP
from model.config import PretrainConfig
from model.data import InSequence, Loader, Split, normalise
from model.distributed import Processes
from model.objectives.contrastive import contrastive_loss, hits_at_1
from model.tokenizer import Tokenizer

ROWS_AT_ONCE = 1024


@torch.no_grad()
def validate(
    model: CLIP, split: Split, tokenizer: Tokenizer, config: PretrainConfig, processes: Processes
) -> dict[str, float | int]:
    """The first `validation_samples` pairs of the split: loss, recall at 1 in both directions, and how many pairs.

    The loss is that of batches as large as in training (an incomplete last one is left out if there is another), so
    it compares with the training loss; recall is over all pairs at once. Every process embeds its share.
    """
    samples = min(len(split), config.train.validation_samples)
    smallest = -(-samples // processes.world_size) * processes.world_size
    order = InSequence(samples, min(config.train.global_batch, smallest))
    threads, image_px = config.train.loader_threads, config.model.vision.image_px
    loader = Loader(split, tokenizer, order, image_px, threads, processes.rank, processes.world_size)
    was_training = model.training
    model.eval()
    processes.share_buffers(model.buffers())
    image_parts, text_parts = [], []
    for batch in loader.batches(0, order.steps):
        image_BCHW = normalise(batch.image_BHWC.to(processes.device))
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=config.train.precision == "bf16"):
            features = model(image_BCHW, batch.tokens_BL.to(processes.device))
        image_GD, text_GD = processes.gather(features.image_BD, features.text_BD)
        image_parts.append(image_GD)
        text_parts.append(text_GD)
    model.train(was_training)
    image_ND, text_ND = torch.cat(image_parts)[:samples], torch.cat(text_parts)[:samples]
    return {
        "loss": _loss(image_ND, text_ND, model.logit_scale.exp(), order.global_batch, config.train.loss_tile),
        "image_to_text_recall_at_1": _recall(image_ND, text_ND),
        "text_to_image_recall_at_1": _recall(text_ND, image_ND),
        "samples": samples,
    }


def _loss(image_ND: Tensor, text_ND: Tensor, scale: Tensor, batch: int, tile: int) -> float:
    losses = [
        contrastive_loss(image_GD, text_GD, scale, tile)
        for image_GD, text_GD in zip(torch.split(image_ND, batch), torch.split(text_ND, batch), strict=True)
        if len(image_GD) == batch or len(image_ND) < batch
    ]
    return float(torch.stack(losses).mean())


def _recall(query_ND: Tensor, target_ND: Tensor) -> float:
    found = [
        hits_at_1(query_BD, target_ND, first=number * ROWS_AT_ONCE)
        for number, query_BD in enumerate(torch.split(query_ND, ROWS_AT_ONCE))
    ]
    return float(torch.stack(found).sum()) / len(query_ND)
