"""Several data sets in one run: exact shares in every epoch, all of each before any again, for any number of processes."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shards_for_model import colour_samples, write_shards
from small_runs import ALONE, SETTINGS, TEXT, metrics

from model.config import ClipConfig, DataConfig, PretrainConfig, VitConfig
from model.data import Loader, open_dataset
from model.data.mixture import MixedOrder, MixedSplit, largest_remainder, mixture_digest
from model.data.sources import open_data
from model.errors import InputError
from model.tokenizer import Tokenizer
from model.train import run

SIZES, WEIGHTS = (40, 9, 23), (1.0, 2.0, 1.5)
ORDER = MixedOrder(SIZES, WEIGHTS, global_batch=8, seed=3)
MODEL = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2), text=TEXT)


def epoch_ids(order: MixedOrder, epoch: int) -> np.ndarray:
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    return np.concatenate([order.sample_ids(step) for step in steps])


def per_data_set(ids: np.ndarray, sizes: tuple[int, ...] = SIZES) -> list[int]:
    ends = np.cumsum(sizes)
    return [int(((ids >= end - size) & (ids < end)).sum()) for size, end in zip(sizes, ends, strict=True)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 50).map(float), min_size=1, max_size=6), st.integers(0, 500))
def test_shares_are_those_of_the_largest_remainder(weights: list[float], total: int) -> None:
    counts = largest_remainder(weights, total)
    exact = [Fraction(weight) * total / Fraction(sum(weights)) for weight in weights]
    over = [share - count for share, count in zip(exact, counts, strict=True)]
    assert sum(counts) == total and all(-1 < left < 1 for left in over)
    rounded_up = [share % 1 for share, left in zip(exact, over, strict=True) if left < 0]
    rounded_down = [share % 1 for share, left in zip(exact, over, strict=True) if left >= 0]
    assert min(rounded_up, default=Fraction(1)) >= max(rounded_down, default=Fraction(0))


def test_every_epoch_has_exactly_the_shares() -> None:
    assert (ORDER.samples, ORDER.steps_per_epoch, ORDER.samples_of) == (72, 9, (16, 32, 24))
    for epoch in range(4):
        ids = epoch_ids(ORDER, epoch)
        assert len(ids) == 72 and per_data_set(ids) == [16, 32, 24]
    by_step = [per_data_set(ORDER.sample_ids(step)) for step in range(9)]
    assert by_step == [list(ORDER.counts(step)) for step in range(9)]
    assert len({tuple(counts) for counts in by_step}) > 3  # mixed at random, not in turn


def test_all_samples_of_a_data_set_are_seen_before_one_is_seen_again() -> None:
    seen = np.zeros(sum(SIZES), int)
    starts = np.cumsum((0, *SIZES))
    for epoch in range(7):
        seen += np.bincount(epoch_ids(ORDER, epoch), minlength=len(seen))
        for start, end in pairwise(starts):
            assert seen[start:end].max() - seen[start:end].min() <= 1


def test_passes_and_epochs_are_in_different_orders() -> None:
    order = MixedOrder((300, 300), (1.0, 1.0), global_batch=600, seed=0)
    first, second = (order.sample_ids(step) for step in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(600))
    ranks = np.empty((2, 600))
    for row, ids in enumerate((first, second)):
        ranks[row, ids] = np.arange(600)
    assert abs(np.corrcoef(ranks)[0, 1]) < 0.15
    assert abs(np.corrcoef(ranks[:, :300].ravel(), ranks[:, 300:].ravel())[0, 1]) < 0.15  # the data sets differ, too


def test_the_order_of_a_mixed_run_never_changes() -> None:
    """Written down: another version of this project must resume a run where this one left it."""
    assert ORDER.sample_ids(0).tolist() == FIRST
    assert ORDER.sample_ids(20).tolist() == LATER


FIRST = [11, 44, 43, 42, 45, 40, 62, 44]
LATER = [35, 28, 50, 51, 49, 14, 37, 46]


def test_a_sample_is_cropped_anew_each_time_but_alike_in_every_process() -> None:
    order = MixedOrder((30, 3), (1.0, 1.0), global_batch=4, seed=1)
    crops_of_31 = []  # one step has it in one pass, or in several, and then takes the first
    for step in range(2 * order.steps_per_epoch):
        ids = order.sample_ids(step)
        whole = order.crops(step, ids)
        assert [*order.crops(step, ids[:2]), *order.crops(step, ids[2:])] == whole
        draws = order.draws(step, ids, 11)
        assert np.array_equal(np.concatenate([order.draws(step, ids[:1], 11), order.draws(step, ids[1:], 11)]), draws)
        if 31 in ids:
            crops_of_31.append(whole[ids.tolist().index(31)])
    assert len(set(crops_of_31)) == len(crops_of_31) >= 7


@pytest.mark.parametrize(
    ("sizes", "weights", "batch", "says"),
    [
        ((3, 4), (1.0, 1.0), 8, "the mixed data sets have 7 samples, fewer than one global batch of 8"),
        ((50, 0), (1.0, 1.0), 8, "data set 2 has 0 samples"),
        (
            (50, 50),
            (1.0, 0.001),
            8,
            "data set 2 has 50 samples and would give 0 of the 96 of an epoch; raise its weight",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(
    sizes: tuple[int, ...], weights: tuple[float, ...], batch: int, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        MixedOrder(sizes, weights, batch, 0)


# --- reading and training ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("mixture")
    made = {"a": colour_samples(26, seed=1), "b": colour_samples(11, seed=2), "c": colour_samples(5, seed=3)}
    named = {name: [(image, f"{text} of {name}") for image, text in samples] for name, samples in made.items()}
    return {name: str(write_shards(root / name, pairs, pairs[:4])) for name, pairs in named.items()}


def test_the_samples_of_all_are_numbered_on(folders: dict[str, str]) -> None:
    parts = {name: open_dataset(folder).train for name, folder in folders.items()}
    split = MixedSplit(parts)
    expected = [part.read(number) for part in parts.values() for number in range(len(part))]
    assert [split.read(number) for number in range(len(split))] == expected
    assert split.where(26) == parts["b"].where(0) and split.where(41) == parts["c"].where(4)
    captions = list(split.captions())
    assert sorted(captions) == sorted(sample.caption for sample in expected)
    assert [caption[-1] for caption in captions[:15]] == list("abc" * 5) and captions[-1].endswith("of a")


def test_mixed_batches_are_the_same_for_any_number_of_processes_and_from_any_step(folders: dict[str, str]) -> None:
    split = MixedSplit({name: open_dataset(folder).train for name, folder in folders.items()})
    tokenizer = Tokenizer.train(split.captions(), 300, 32)
    order = MixedOrder((26, 11, 5), (1.0, 3.0, 0.5), global_batch=12, seed=5)

    def batches(world_size: int, start: int = 0) -> list[tuple[list[int], bytes]]:
        loaders = [Loader(split, tokenizer, order, 32, 2, rank, world_size) for rank in range(world_size)]
        steps = zip(*(loader.batches(start, 7) for loader in loaders), strict=True)
        return [
            (
                np.concatenate([part.sample_ids for part in parts]).tolist(),
                torch.cat([part.image_BHWC for part in parts]).numpy().tobytes(),
            )
            for parts in steps
        ]

    expected = batches(1)
    assert [ids for ids, _ in expected] == [order.sample_ids(step).tolist() for step in range(7)]
    assert batches(2) == batches(3) == expected and batches(4, start=4) == expected[4:]


def new_mixed_run(folder: Path, mix: dict[str, float]) -> Path:
    folder.mkdir()
    train = SETTINGS.model_copy(update={"epochs": 2})
    config = PretrainConfig(name="mixed", dataset="b", model=MODEL, train=train, data=DataConfig(mix=mix))
    (folder / "config.json").write_text(config.model_dump_json())
    return folder


def test_a_mixed_run_resumes_exactly_and_tells_what_it_saw(
    folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix = {"a": 1.0, "b": 2.0, "c": 1.0}
    mixed = [folders["a"], folders["c"]]
    whole, stopped = (new_mixed_run(tmp_path / name, mix) for name in ("whole", "stopped"))
    run(whole, folders["b"], ALONE, lambda: False, mixed)
    told = capsys.readouterr().err
    assert "36 samples, 6 steps of 12" in told and "of each epoch 9 of a (26), 18 of b (11), 9 of c (5)" in told
    lines = [line for line in metrics(whole) if line["kind"] == "train"]
    for epoch in (lines[:3], lines[3:]):
        assert [sum(line["samples_of"][name] for line in epoch) for name in "abc"] == [9, 18, 9]
    asked = iter(range(100))
    run(stopped, folders["b"], ALONE, lambda: next(asked) >= 4, mixed)
    run(stopped, folders["b"], ALONE, lambda: False, mixed)
    assert metrics(stopped) == metrics(whole)
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    (stopped / "config.json").write_text((stopped / "config.json").read_text().replace('"a":1.0', '"a":2.0'))
    with pytest.raises(InputError, match="holds a finished run of another configuration or data set"):
        run(stopped, folders["b"], ALONE, lambda: False, mixed)


def test_the_folders_must_be_those_of_the_mix(folders: dict[str, str]) -> None:
    config = PretrainConfig(name="x", dataset="b", data=DataConfig(mix={"a": 1, "b": 1, "c": 1}))
    with pytest.raises(
        InputError, match=r"--mixed has 1 folders of shards, but data\.mix has 2 .* 'b': a, c; give one"
    ):
        open_data(folders["b"], [folders["a"]], config)
    with pytest.raises(InputError, match=r"--mixed has 1 folders of shards, but data\.mix has 0 data sets beside"):
        open_data(folders["b"], [folders["a"]], PretrainConfig(name="x", dataset="b"))
    with pytest.raises(ValidationError, match=r"data\.mix does not name dataset 'b', whose validation split is used"):
        PretrainConfig(name="x", dataset="b", data=DataConfig(mix={"a": 1}))
    with pytest.raises(ValidationError, match="greater than 0"):
        DataConfig(mix={"a": 0})
    opened = open_data(folders["b"], [folders["a"], folders["c"]], config)
    assert (opened.name, len(opened.train), len(opened.val)) == ("colours", 42, 4)


def test_the_identity_of_a_mixture_is_its_data_sets_and_shares() -> None:
    digest = mixture_digest(["x", "y"], [1, 2])
    assert digest == mixture_digest(["x", "y"], [0.5, 1])
    assert digest not in (mixture_digest(["y", "x"], [1, 2]), mixture_digest(["x", "y"], [1, 3]))
