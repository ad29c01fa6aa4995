"""The loss against a dense and obvious one, and its gradients over several processes against those of one."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from ranks import run_ranks
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.distributed import Processes
from model.objectives.contrastive import contrastive_loss, hits_at_1


def features(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(seed))


def dense_loss(image_GD: Tensor, text_GD: Tensor, scale: Tensor) -> Tensor:
    """Figure 3, row by row."""
    logits_GG = scale * image_GD @ text_GD.T
    rows = [-(logits_GG[i, i] - logits_GG[i].logsumexp(0)) for i in range(len(logits_GG))]
    columns = [-(logits_GG[i, i] - logits_GG[:, i].logsumexp(0)) for i in range(len(logits_GG))]
    return (torch.stack(rows).mean() + torch.stack(columns).mean()) / 2


def loss_and_gradients(processes: Processes, pairs: int, tile: int) -> tuple[float, list[Tensor]]:
    """The loss of `pairs` pairs shared among the processes, and the gradients of what made this process's share."""
    share = pairs // processes.world_size
    mine = slice(processes.rank * share, (processes.rank + 1) * share)
    raw = [features(pairs, seed)[mine].requires_grad_() for seed in (1, 2)]
    log_scale = torch.tensor(math.log(10.0), requires_grad=True)
    image_BD, text_BD = (F.normalize(part, dim=1) for part in raw)
    (text_GD,) = processes.gather(text_BD)
    loss = contrastive_loss(
        image_BD, text_GD, log_scale.exp(), tile, processes.rank * share, processes.merge_exponentials
    )
    loss.backward()
    gradients = [part.grad for part in (*raw, log_scale)]
    return processes.mean(loss), [gradient for gradient in gradients if gradient is not None]


ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("tile", [1, 5, 12, 1000])
def test_loss_and_gradients_are_those_of_figure_3(tile: int) -> None:
    raw = [F.normalize(features(12, seed), dim=1).double().requires_grad_() for seed in (3, 4)]
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    found, expected = contrastive_loss(*raw, scale, tile), dense_loss(*raw, scale)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, (*raw, scale)), torch.autograd.grad(3 * expected, (*raw, scale)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_directions_may_weigh_differently() -> None:
    image_GD, text_GD = (F.normalize(features(12, seed), dim=1) for seed in (3, 4))
    logits_GG, target_G = 10 * image_GD @ text_GD.T, torch.arange(12)
    expected = 0.75 * F.cross_entropy(logits_GG, target_G) + 0.25 * F.cross_entropy(logits_GG.T, target_G)
    found = contrastive_loss(image_GD, text_GD, torch.tensor(10.0), tile=5, image_weight=0.75)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scale", [1 / 0.07, 100.0])
def test_single_precision_gradients_are_those_of_double_precision(scale: float) -> None:
    """Rows without a right answer near them and logits from -100 to 100: no exponential may overflow or vanish."""
    wide = torch.randn(2, 700, 64, generator=torch.Generator().manual_seed(0))
    image_GD, text_GD = F.normalize(wide, dim=2)
    text_GD[:9], text_GD[9:18] = image_GD[:9], -image_GD[9:18]
    gradients = []
    for dtype, loss in ((torch.float64, dense_loss), (torch.float32, partial(contrastive_loss, tile=256))):
        inputs = [part.to(dtype, copy=True).requires_grad_() for part in (image_GD, text_GD, torch.tensor(scale))]
        gradients.append(torch.autograd.grad(loss(*inputs), inputs))
    rounding = scale * 2.0**-24  # of a logit, which moves its exponential by as much
    for expected, found in zip(*gradients, strict=True):
        assert (found - expected).abs().max() <= max(1e-6, rounding) * expected.abs().max()


def test_memory_is_that_of_tiles() -> None:
    """No tensor that is made has as many numbers as the matrix of similarities has, or a tenth of them."""

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            self.numbers = max(self.numbers, result.numel() if isinstance(result, Tensor) else 0)
            return result

    image_GD, text_GD = (F.normalize(features(1000, seed), dim=1).requires_grad_() for seed in (1, 2))
    with Largest() as largest:
        contrastive_loss(image_GD, text_GD, torch.tensor(10.0), tile=100).backward()
    assert largest.numbers == 1000 * 16


@pytest.mark.parametrize("world_size", [2, 3])
def test_gradients_of_several_processes_are_those_of_one(world_size: int) -> None:
    loss, (image_GD, text_GD, log_scale) = loss_and_gradients(ALONE, 12, 12)
    results = run_ranks(world_size, loss_and_gradients, 12, 5)
    assert [result[0] for result in results] == pytest.approx([loss] * world_size, rel=1e-6)
    # Averaging gradients over processes divides by their number what the sum of local losses gives.
    for number, expected in ((0, image_GD), (1, text_GD)):
        found = torch.cat([result[1][number] for result in results]) / world_size
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-5)
    found = torch.stack([result[1][2] for result in results]).mean()
    torch.testing.assert_close(found, log_scale, atol=1e-7, rtol=1e-5)


def test_hits_count_own_targets_and_shares_of_ties() -> None:
    target_GD = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]), dim=1)
    query_BD = torch.tensor([[0.1, 1.0], [0.9, 0.1]])
    assert hits_at_1(query_BD, target_GD, first=1).item() == 0.5  # the tie of rows 1 and 2; row 0 beats row 2
    assert hits_at_1(query_BD, target_GD, first=0).item() == 0
    collapsed_GD = torch.ones(8, 2) / 2**0.5
    assert hits_at_1(collapsed_GD, collapsed_GD, first=0).item() == 1  # of 8: chance
