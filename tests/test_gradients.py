"""Large batches by pieces: the gradients of the whole, dropout included; what batch norm does; several processes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from shards_for_model import write_shards
from small_runs import RESNET, TEXT, TRAIN, go, metrics, new_run
from torch import Tensor, nn

from model.config import ClipConfig, PretrainConfig, TrainConfig, VitConfig, deciding_settings
from model.distributed import Processes
from model.gradients import backward
from model.objectives.contrastive import Contrastive
from model.objectives.objective import Inputs, Objective, Outputs

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2), text=TEXT)
ALONE = Processes(0, 1, torch.device("cpu"))


def contrastive(model: ClipConfig) -> Contrastive:
    torch.manual_seed(0)
    train = TrainConfig(loss_tile=5)
    return Contrastive(PretrainConfig(name="test", dataset="none", model=model, train=train)).train()


def pairs(number: int) -> Inputs:
    noise = torch.Generator().manual_seed(1)
    image_BHWC = torch.randint(0, 256, (number, 32, 32, 3), generator=noise, dtype=torch.uint8)
    tokens_BL = torch.cat([torch.randint(1, 290, (number, 6), generator=noise), torch.full((number, 1), 299)], dim=1)
    return Inputs(image_BHWC, tokens_BL, torch.empty(number, 0))


def gradients(objective: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in objective.named_parameters() if weight.grad is not None}


def of_share(processes: Processes, number: int, micro_batch: int) -> tuple[float, dict[str, Tensor]]:
    """The loss and the gradients, averaged over the processes, of `number` pairs shared among them."""
    share = number // processes.world_size
    objective = contrastive(VIT)
    inputs = Inputs(*(part[processes.rank * share :][:share] for part in pairs(number)))
    loss, _ = backward(objective, processes.wrap(objective), inputs, processes, micro_batch, precision="fp32")
    return processes.mean(loss), gradients(objective)


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6 * largest, rtol=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 5, 12])
def test_gradients_of_pieces_are_those_of_the_whole(micro_batch: int) -> None:
    loss, expected = of_share(ALONE, 12, 0)
    found_loss, found = of_share(ALONE, 12, micro_batch)
    assert found_loss == pytest.approx(loss, rel=1e-6)
    assert len(expected) == len(list(contrastive(VIT).parameters()))
    assert_same_gradients(found, expected)


def test_gradients_of_pieces_in_two_processes_are_those_of_the_whole() -> None:
    loss, expected = of_share(ALONE, 12, 0)
    for found_loss, found in run_ranks(2, of_share, 12, 4):
        assert found_loss == pytest.approx(loss, rel=1e-6)
        assert_same_gradients(found, expected)


class Dropping(Contrastive):
    """Dropout on the image's features, and a record of what was dropped."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self.kept: list[Tensor] = []

    def forward(self, inputs: Inputs) -> Outputs:
        outputs = super().forward(inputs)
        image_BD, text_BD = outputs.rows
        kept_BD = torch.rand_like(image_BD) < 0.5
        self.kept.append(kept_BD)
        return outputs._replace(rows=(image_BD * kept_BD, text_BD))


def test_second_pass_drops_what_the_first_dropped() -> None:
    objective = Dropping(PretrainConfig(name="test", dataset="none", model=VIT))
    torch.manual_seed(7)
    backward(objective, objective, pairs(12), ALONE, 5, precision="fp32")
    first, second = objective.kept[:3], objective.kept[3:]
    assert [len(kept_BD) for kept_BD in first] == [5, 5, 2]
    assert all(torch.equal(*same) for same in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


def statistics(objective: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in objective.named_buffers()}


def by_hand(objective: Objective, inputs: Inputs, micro_batch: int) -> None:
    """Every piece kept with its graph, one loss over all: what feature caching stands for."""
    outputs = [objective(piece) for piece in inputs.split(micro_batch)]
    rows = tuple(torch.cat(parts) for parts in zip(*(part.rows for part in outputs), strict=True))
    objective.loss(outputs[-1]._replace(rows=rows), ALONE).backward()


def test_batch_norm_is_over_each_piece_and_learns_each_once() -> None:
    found = contrastive(RESNET)
    for norm in (part for part in found.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)  # else the blocks' last norms, which begin at zero, would hide the others
    expected = copy.deepcopy(found)
    by_hand(expected, pairs(12), 4)
    loss, outputs = backward(found, found, pairs(12), ALONE, 4, precision="fp32")
    assert_same_gradients(gradients(found), gradients(expected))
    assert statistics(found).keys() == statistics(expected).keys()
    for name, buffer in statistics(expected).items():
        torch.testing.assert_close(statistics(found)[name], buffer, msg=name)
    assert found.towers.visual.bn1.num_batches_tracked == 3  # type: ignore[union-attr]
    # The loss was made of the rows of the first pass; these are a third pass's.
    again = torch.cat([found(piece).rows[0] for piece in pairs(12).split(4)])
    torch.testing.assert_close(outputs.rows[0], again)
    assert loss.isfinite()


def test_a_run_by_pieces_learns_what_a_whole_one_does(tmp_path: Path) -> None:
    shards = str(write_shards(tmp_path / "shards", TRAIN))
    losses = []
    for micro_batch in (0, 5):
        folder = new_run(tmp_path / str(micro_batch), VIT, epochs=1, micro_batch=micro_batch)
        assert go(ALONE, folder, shards)
        losses.append([line["loss"] for line in metrics(folder) if line["kind"] == "train"])
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_pieces_are_part_of_what_a_resnet_learns_alone() -> None:
    def settings(model: ClipConfig, micro_batch: int) -> dict[str, object]:
        train = TrainConfig(micro_batch=micro_batch)
        return deciding_settings(PretrainConfig(name="test", dataset="none", model=model, train=train))

    assert settings(VIT, 0) == settings(VIT, 64)
    assert settings(RESNET, 0) != settings(RESNET, 64)
    assert "micro_batch" not in str(settings(RESNET, 0))
