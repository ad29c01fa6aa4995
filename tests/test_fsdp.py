"""A model spread over processes: it learns what DDP learns, resumes to the same bits, moves to another number of processes, and
each process holds no more than its part.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from ranks import run_ranks
from safetensors.torch import load_file
from shards_for_model import write_shards
from small_runs import ALONE, TRAIN, VAL, assert_same_run, go, metrics, new_run
from test_gradients import VIT, contrastive, pairs
from test_objectives import objective_of
from test_objectives import pairs as drawn_pairs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from model.checkpoint import newest_checkpoint, read_config
from model.config import TrainConfig
from model.data.loader import Batch
from model.distributed import Processes
from model.errors import InputError
from model.fsdp import average_scalars, gathered, spread
from model.gradients import backward
from model.half_adam import HalfAdamW
from model.objectives.objective import Inputs
from model.step import batches, train_step
from model.train import run
from model.training import prepare
from model.work import Work

EVERYTHING: dict[str, Any] = {
    "epochs": 1,
    "adam_eps": 1e-3,  # else Adam makes much of differences in the last bit
    "clip_gradient_norm": 0.5,
    "micro_batch": 4,
    "ema_decay": 0.9,
    "keep_best": "loss",
}
KINDS = ("captioning", "masked_lm", "sigmoid", "bag_of_words_contrastive")


class Found(NamedTuple):
    """What one of two processes found out."""

    held: int  # bytes of weights, gradients and optimiser in a resumed run after a step
    gradients: dict[str, list[tuple[Tensor, Tensor]]]  # of each objective's parameters, spread and by DDP
    adam: list[tuple[Tensor, Tensor]]  # weights and statistics after steps of HalfAdamW, spread and whole
    flop: tuple[int, ...]  # of batches of several lengths
    texts: list[Tensor]  # features of as many batches of texts as no other process embeds


def work(processes: Processes, folder: Path, shards: str) -> Found:
    """All that needs two processes, in one start of them."""
    go(processes, folder / "ddp", shards)
    go(processes, folder / "fsdp", shards)
    for name in ("half_ddp", "half_fsdp"):
        go(processes, folder / name, shards)
    go(processes, folder / "stopped", shards, 2, "stop")
    held = held_by(processes, folder / "stopped", shards)
    processes.first_alone(lambda: shutil.copytree(folder / "stopped", folder / "to_one", symlinks=True))
    go(processes, folder / "stopped", shards)
    go(processes, folder / "from_one", shards)
    return Found(held, {kind: both(processes, kind) for kind in KINDS}, adam(), flop(processes), texts(processes))


def held_by(processes: Processes, folder: Path, shards: str) -> int:
    training = prepare(folder, read_config(folder), shards, processes)
    assert training is not None and training.step == 2
    batch = next(batches(training, lambda: False))
    assert batch is not None and train_step(training, batch) is None
    weights = list(training.objective.parameters())
    states = [value for state in training.optimizer.state.values() for value in state.values()]
    tensors = [tensor for tensor in (*weights, *[weight.grad for weight in weights], *states) if tensor is not None]
    parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    # A gradient may be a view of a buffer of several.
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage() for part in parts}
    return sum(storage.nbytes() for storage in storages.values())


def both(processes: Processes, kind: str) -> list[tuple[Tensor, Tensor]]:
    """The gradients of a batch by both ways."""
    by_ddp, spread_out = objective_of(kind), objective_of(kind)
    every = drawn_pairs(16, by_ddp.draws)
    share = Inputs(*(part[8 * processes.rank :][:8] for part in every))
    backward(by_ddp, processes.wrap(by_ddp), share, processes, 0, "fp32")
    backward(spread_out, spread(spread_out, processes), share, processes, 0, "fp32")
    average_scalars(spread_out, processes)
    found = []
    for (name, weight), (same, other) in zip(spread_out.named_parameters(), by_ddp.named_parameters(), strict=True):
        assert name == same and (weight.grad is None) == (other.grad is None)
        if weight.grad is not None and other.grad is not None:
            found.append((whole(weight.grad), other.grad))
    return found


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def adam() -> list[tuple[Tensor, Tensor]]:
    """In half precision, of a tensor of an odd number of rows, one of one row (which one process has) and a scalar."""
    mesh = init_device_mesh("cpu", (2,))
    noise = torch.Generator().manual_seed(3)
    starts = [torch.randn(shape, generator=noise) for shape in ((5, 3), (1, 4), ())]
    gradients = [[torch.randn(start.shape, generator=noise) for start in starts] for _ in range(4)]

    def placed(tensor: Tensor, are_spread: bool) -> Tensor:
        return distribute_tensor(tensor, mesh, [Shard(0)]) if are_spread and tensor.ndim else tensor.clone()

    ends = []
    for are_spread in (True, False):
        weights = [nn.Parameter(placed(start, are_spread)) for start in starts]
        optimizer = HalfAdamW([{"params": weights}], 1e-2, (0.9, 0.98), 1e-6, 0, True, weights[:2])
        for of_step in gradients:
            for weight, gradient in zip(weights, of_step, strict=True):
                weight.grad = placed(gradient, are_spread)
            optimizer.step()
        states = [
            optimizer.state[weight][name] for weight in weights for name in ("first", "second_root", "first_scale")
        ]
        ends.append([whole(tensor.detach()) for tensor in (*weights, *states)])
    return list(zip(*ends, strict=True))


def flop(processes: Processes) -> tuple[int, ...]:
    """Each process with a length that is new to it where the other's is not."""
    objective = contrastive(VIT)
    spread(objective, processes)
    return tuple(
        flop_of(Work(objective, lambda flag: any(processes.any_flags(flag))), lengths[processes.rank])
        for lengths in ((7, 7), (7, 4), (5, 4))
    )


def texts(processes: Processes) -> list[Tensor]:
    """As zero-shot accuracy is measured: by one tower alone, as often as a process's own share asks for."""
    objective = contrastive(VIT)
    spread(objective, processes)
    with torch.no_grad():
        objective(pairs(2))  # a run begins with a step
        with gathered(objective):
            features = [objective.encode_text(pairs(2).tokens_BL) for _ in range(1 + 2 * processes.rank)]
        objective(pairs(2))
    assert all(isinstance(weight, DTensor) for weight in objective.parameters() if weight.ndim)
    return features


def flop_of(work: Work, length: int) -> int:
    tokens_BL = torch.cat([torch.ones(2, length - 1, dtype=torch.int64), torch.full((2, 1), 299)], dim=1)
    batch = Batch(
        0, np.arange(2), torch.zeros(2, 32, 32, 3, dtype=torch.uint8), tokens_BL, captions_cut=0, waited_s=0.0
    )
    return work.flop(batch, lambda found: Inputs(found.image_BHWC, found.tokens_BL, torch.empty(2, 0)))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("fsdp") / "shards", TRAIN, VAL))


@pytest.fixture(scope="module")
def folder(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all kinds; what became of them is in `found`."""
    folder = tmp_path_factory.mktemp("fsdp_runs")
    new_run(folder / "ddp", VIT, **EVERYTHING)
    for name in ("fsdp", "stopped"):
        new_run(folder / name, VIT, parallel="fsdp", gradient_checkpointing=True, **EVERYTHING)
    for parallel in ("ddp", "fsdp"):
        new_run(folder / f"half_{parallel}", VIT, parallel=parallel, epochs=1, adam_eps=1e-3, precision="fp16")
    go(ALONE, new_run(folder / "from_one", VIT, **EVERYTHING), shards, 2, "stop")
    new_run(folder / "from_one", VIT, parallel="fsdp", **EVERYTHING)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path, shards: str) -> list[Found]:
    results = run_ranks(2, work, folder, shards)
    assert all(isinstance(result, tuple) for result in results), results
    return [Found(*result) for result in results]


def assert_alike(one: Path, other: Path) -> None:
    """All lines and the finished weights are the same but for the order of sums."""
    for line, same in zip(metrics(one), metrics(other), strict=True):
        assert line["kind"] == same["kind"] and line.keys() == same.keys()
        for name in line.keys() - {"kind", "set"}:
            assert line[name] == pytest.approx(same[name], rel=1e-5), (same["step"], name)
    weights, expected = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert list(weights) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-6, rtol=1e-5)


# --- what it learns ---------------------------------------------------------------------------------------------------


def test_a_spread_model_learns_what_ddp_learns(folder: Path, found: list[Found]) -> None:
    """With clipped gradients, pieces of a batch, activations computed twice, an average, validation and the best weights."""
    assert_alike(folder / "fsdp", folder / "ddp")
    lines = metrics(folder / "fsdp")
    assert any(line["kind"] == "train" and line["gradient_norm"] > 0.5 for line in lines), "else nothing is clipped"
    assert {line["kind"] for line in lines} == {"train", "validation", "end"}
    assert_alike_best(folder)


def test_in_fp16_the_same_steps_are_left_out(folder: Path, found: list[Found]) -> None:
    """A part of a gradient overflows in one process, and all halve the scale of the loss."""
    assert_alike(folder / "half_fsdp", folder / "half_ddp")
    assert {line["kind"] for line in metrics(folder / "half_fsdp")} == {"train", "skipped", "validation", "end"}


def assert_alike_best(folder: Path) -> None:
    best, expected = (load_file(folder / name / "best" / "model.safetensors") for name in ("fsdp", "ddp"))
    for name, tensor in expected.items():
        torch.testing.assert_close(best[name], tensor, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_an_objective_are_those_of_ddp(kind: str, found: list[Found]) -> None:
    for one in found:
        assert len(one.gradients[kind]) > 10
        largest = max(float(expected.abs().max()) for _, expected in one.gradients[kind])
        for gradient, expected in one.gradients[kind]:
            torch.testing.assert_close(gradient, expected, atol=1e-6 * largest, rtol=1e-5)


def test_adam_in_half_precision_rounds_each_part_as_the_whole(found: list[Found]) -> None:
    for one in found:
        assert len(one.adam) == 3 + 9
        for spread_out, expected in one.adam:
            assert torch.equal(spread_out, expected)


def test_arithmetic_is_counted_where_lengths_differ(found: list[Found]) -> None:
    alone = {length: flop_of(Work(contrastive(VIT)), length) for length in (4, 5, 7)}
    assert [one.flop for one in found] == [
        (alone[7], alone[7], alone[5]),
        (alone[7], alone[4], alone[4]),
    ]


def test_a_tower_alone_works_in_each_process_as_often_as_it_likes(found: list[Found]) -> None:
    with torch.no_grad():
        expected_TD = contrastive(VIT).encode_text(pairs(2).tokens_BL)
    assert [len(one.texts) for one in found] == [1, 3]
    for one in found:
        for text_TD in one.texts:
            torch.testing.assert_close(text_TD, expected_TD)


# --- checkpoints and memory -------------------------------------------------------------------------------------------


def test_stopped_and_started_again_gives_the_same_bits(folder: Path, found: list[Found]) -> None:
    assert_same_run(folder / "stopped", folder / "fsdp")


def test_a_run_moves_between_one_process_and_two_spread_ones(folder: Path, found: list[Found], shards: str) -> None:
    newest = newest_checkpoint(folder / "to_one")
    assert newest is not None and newest[1].step == 2
    state = torch.load(newest[0] / "training_state.pt", weights_only=True)
    weights = load_file(newest[0] / "model.safetensors")
    assert {type(value) for values in state["optimizer"]["state"].values() for value in values.values()} == {Tensor}
    assert {tensor.shape for tensor in state["average"].values()} <= {tensor.shape for tensor in weights.values()}
    config = read_config(folder / "to_one")
    moved = config.model_copy(update={"train": config.train.model_copy(update={"parallel": "ddp"})})
    (folder / "to_one" / "config.json").write_text(moved.model_dump_json())
    go(ALONE, folder / "to_one", shards)
    for name in ("to_one", "from_one"):
        assert_alike(folder / name, folder / "ddp")


def test_each_of_two_processes_holds_half(found: list[Found], shards: str, tmp_path: Path) -> None:
    go(ALONE, new_run(tmp_path / "run", VIT, **EVERYTHING), shards, 2, "stop")
    whole_bytes = held_by(ALONE, tmp_path / "run", shards)
    weights = sum(weight.nbytes for weight in contrastive(VIT).parameters())
    assert whole_bytes == pytest.approx(4 * weights, rel=0.02), "weights, gradients, two moments"
    for one in found:
        assert one.held == pytest.approx(whole_bytes / 2, rel=0.02)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_one_process_is_refused_with_the_field_and_the_remedy(shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", VIT, parallel="fsdp")
    with pytest.raises(InputError, match=r"train\.parallel is fsdp, .* has one; start more .* or set it to ddp"):
        run(folder, shards, ALONE, lambda: False)
    with pytest.raises(ValidationError, match=r"processes is 1; raise it .*, or set parallel to ddp"):
        TrainConfig(parallel="fsdp", processes=1)
