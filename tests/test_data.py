"""Shards in, batches out: the same ones for any number of processes and threads, from any step."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CHECKOUT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shards_for_model import colour_samples, write_shards

from model.data import InSequence, Loader, Order, SampleError, normalise, open_dataset, preprocess
from model.data.images import decode, square
from model.data.order import permute, uniform
from model.data.shards import REBUILD
from model.errors import InputError
from model.evaluation.shards import first_pairs, read_shards, training_captions
from model.tokenizer import Tokenizer

SAMPLES = colour_samples(47)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", SAMPLES, SAMPLES[:5])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([caption for _, caption in SAMPLES], vocab_size=300, context_length=32)


# --- order ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(size=st.integers(1, 700), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_order_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(size), size, (seed, epoch)).tolist()) == list(range(size))


def test_order_is_computed_position_by_position() -> None:
    whole = permute(np.arange(1000), 1000, (3, 1))
    assert [int(permute(np.array([i]), 1000, (3, 1))[0]) for i in range(0, 1000, 37)] == whole[::37].tolist()
    assert permute(np.arange(999, 1000), 10**12, (0, 0))[0] < 10**12


def test_orders_of_epochs_and_seeds_are_unlike_each_other() -> None:
    orders = [permute(np.arange(5000), 5000, key) for key in ((0, 0), (0, 1), (1, 0))]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (orders[first] == orders[second]).mean() < 0.005
        assert abs(np.corrcoef(orders[first], orders[second])[0, 1]) < 0.06
    assert abs(np.corrcoef(orders[0], np.arange(5000))[0, 1]) < 0.06
    assert abs(np.corrcoef(orders[0][1:], orders[0][:-1])[0, 1]) < 0.06


def test_the_order_of_a_run_never_changes() -> None:
    """Written down: another version of this project must resume a run where this one left it."""
    assert permute(np.arange(10), 10, (0, 0)).tolist() == PERMUTED
    assert uniform(np.arange(2), 2, (0, 0)).ravel().tolist() == pytest.approx(UNIFORM)


PERMUTED = [0, 1, 5, 4, 8, 2, 9, 7, 3, 6]
UNIFORM = [0.38579888530751705, 0.9948285473487088, 0.4578529082257745, 0.07447771346022536]


def test_an_epoch_takes_each_sample_once_and_drops_the_rest() -> None:
    order = Order(samples=47, global_batch=8, seed=0)
    assert (order.steps_per_epoch, order.dropped_per_epoch) == (5, 7)
    for epoch in range(3):
        ids = np.concatenate([order.sample_ids(step) for step in range(5 * epoch, 5 * epoch + 5)])
        assert len(set(ids.tolist())) == 40 and order.epoch(5 * epoch + 4) == epoch


def test_a_data_set_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="7 samples, fewer than one global batch of 8; lower global_batch"):
        Order(samples=7, global_batch=8, seed=0)


def test_crops_are_uniform_and_keyed_by_epoch() -> None:
    crops = uniform(np.arange(20_000), 2, (0, 0))
    assert crops.min() >= 0 and crops.max() < 1
    assert np.histogram(crops[:, 0], 10)[0] == pytest.approx(2000, rel=0.1)
    assert abs(np.corrcoef(crops[:, 0], crops[:, 1])[0, 1]) < 0.03
    assert not np.array_equal(crops, uniform(np.arange(20_000), 2, (0, 1)))


# --- images -----------------------------------------------------------------------------------------------------------


def picture(width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("at", [(0.0, 0.0), (0.5, 0.3), (0.999, 0.999)])
def test_where_the_short_side_fits_it_is_a_pure_crop(at: tuple[float, float]) -> None:
    pixels = picture(50, 32)
    left = int(at[0] * 19)
    assert np.array_equal(square(pixels, 32, at), pixels[:, left : left + 32])
    assert np.array_equal(
        square(pixels.transpose(1, 0, 2), 32, at[::-1]), pixels[:, left : left + 32].transpose(1, 0, 2)
    )


@pytest.mark.parametrize("size", [(90, 64), (64, 101), (20, 27), (32, 32)])
@pytest.mark.parametrize("at", [None, (0.0, 0.9), (0.7, 0.2)])
def test_else_it_is_the_crop_of_the_resized_image(size: tuple[int, int], at: tuple[float, float] | None) -> None:
    pixels, px = picture(*size), 32
    width, height = (int(px * side / min(size)) for side in size)
    resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    x, y = at or (None, None)
    left = round((width - px) / 2) if x is None else int(x * (width - px + 1))
    top = round((height - px) / 2) if y is None else int(y * (height - px + 1))
    error = np.abs(square(pixels, px, at).astype(int) - resized[top : top + px, left : left + px])
    assert error.max() <= 3 and error.mean() < 0.3  # Pillow rounds after each of its two passes


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_evaluation_images_of_several_formats_are_decoded(format: str, mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(70, 40)).convert(mode).save(buffer, format, quality=95)
    pixels = preprocess(buffer.getvalue(), 32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    expected = np.asarray(Image.open(buffer).convert("RGB").resize((56, 32), Image.Resampling.BICUBIC))[:, 12:44]
    assert np.abs(pixels.astype(int) - expected).mean() < 2


def test_normalised_images_have_the_official_mean_and_deviation() -> None:
    image_BHWC = torch.randint(0, 256, (2, 5, 4, 3), dtype=torch.uint8)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    expected = ((image_BHWC / 255 - mean) / std).permute(0, 3, 1, 2)
    image_BCHW = normalise(image_BHWC)
    torch.testing.assert_close(image_BCHW, expected, atol=1e-5, rtol=0)
    assert image_BCHW.is_contiguous(memory_format=torch.channels_last)


# --- shards -----------------------------------------------------------------------------------------------------------


def test_every_sample_is_read_as_it_was_written(shards: Path) -> None:
    dataset = open_dataset(str(shards))
    assert (len(dataset.train), len(dataset.val)) == (47, 5)
    assert [(s.image, s.caption) for s in map(dataset.train.read, range(47))] == SAMPLES
    assert list(dataset.train.captions()) == [caption for _, caption in SAMPLES]


def test_shards_are_read_from_any_file_system(shards: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/bucket/shards", recursive=True)
    dataset = open_dataset("memory://bucket/shards")
    assert [(s.image, s.caption) for s in map(dataset.train.read, range(47))] == SAMPLES
    assert next(dataset.train.captions()) == SAMPLES[0][1]


def test_a_process_that_has_read_a_data_set_ends_well_and_without_pandas(tmp_path: Path) -> None:
    """Threads of Arrow that outlive the reading aborted two of three such processes as they ended."""
    folder = write_shards(tmp_path / "shards", SAMPLES, per_shard=1)
    program = (
        f"import sys; from model.data import open_dataset; read = list(open_dataset({str(folder)!r}).train.captions()); "
        "print(len(read), 'pandas' in sys.modules)"
    )
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stdout) == (0, "47 False\n"), ended.stderr


def test_more_shards_than_files_kept_open(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.data.shards.MAX_OPEN_FILES", 2)
    dataset = open_dataset(str(shards))
    for _ in range(2):
        assert [dataset.train.read(i).caption for i in range(47)] == [caption for _, caption in SAMPLES]
    dataset.train.folder.close()


def test_what_is_no_folder_of_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: no such file; is this a folder of shards .*\?"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda manifest: manifest.update(format_version=2), "format_version: Input should be 1"),
        (lambda manifest: manifest["splits"]["train"]["shards"][1].update(samples=9), "10 rows, the manifest says 9"),
        (lambda manifest: manifest["splits"]["train"].update(samples=46), "train has 46 samples, its shards 47"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, change: object, says: str) -> None:
    folder = write_shards(tmp_path / "shards", SAMPLES)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)  # type: ignore[operator]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=says):
        open_dataset(str(folder))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "file: Invalid JSON"),
        (b"\xff\xfe", "file: Invalid JSON"),
        (b"[]", "file: Input should be an object"),
        (b'{"format_version": 1}', "name: Field required; digest: Field required; splits: Field required"),
        (b'{"format_version": 1, "name": "a", "digest": "b", "splits": []}', "splits: Input should be"),
        (
            b'{"format_version": 1, "name": "a", "digest": "b", "splits": {"train": {"samples": 1, "shards": [{}]}}}',
            "splits.train.shards.0.file: Field required",
        ),
    ],
)
def test_a_damaged_manifest_is_named_with_the_remedy(tmp_path: Path, content: bytes, says: str) -> None:
    folder = write_shards(tmp_path / "shards", SAMPLES)
    (folder / "manifest.json").write_bytes(content)
    for read in (open_dataset, read_shards):
        with pytest.raises(InputError) as told:
            read(str(folder))
        assert str(told.value).startswith(f"{folder}/manifest.json: not a manifest of format_version 1 (")
        assert says in str(told.value) and str(told.value).endswith(REBUILD)


@pytest.mark.parametrize("places", [pa.array([0, None] * 5), pa.array(["0"] * 10)])
def test_an_index_without_whole_numbers_is_named(tmp_path: Path, places: pa.Array) -> None:
    folder = write_shards(tmp_path / "shards", SAMPLES)
    index = folder / "train/000000.index.parquet"
    table = pq.read_table(index)
    pq.write_table(table.set_column(table.column_names.index("text_offset"), "text_offset", places), index)
    with pytest.raises(InputError, match=r"000000\.index\.parquet: not every row has a whole number in text_offset"):
        open_dataset(str(folder))


@pytest.mark.parametrize("file", ["train/000000.index.parquet", "train/samples.parquet"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "no such file, but manifest.json names it"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "not readable Parquet"),
        (lambda path: path.write_bytes(b""), "not readable Parquet"),
        (lambda path: pq.write_table(pa.table({"a": range(10)}), path), "no column"),
    ],
)
def test_a_damaged_table_is_named_with_the_remedy(tmp_path: Path, file: str, damage: Any, says: str) -> None:
    folder = write_shards(tmp_path / "shards", SAMPLES)
    damage(folder / file)

    def read_like_training() -> None:
        list(open_dataset(str(folder)).train.captions())

    def read_like_evaluation() -> None:
        list(training_captions(read_shards(str(folder))))
        first_pairs(read_shards(str(folder)), "train", 0 if "samples" in file else 30)

    for read in (read_like_training, read_like_evaluation):
        with pytest.raises(InputError) as told:
            read()
        assert str(told.value).startswith(f"{folder}/{file}: {says}") and str(told.value).endswith(REBUILD)


def test_a_tar_that_is_missing_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = write_shards(tmp_path / "shards", SAMPLES[:20])
    (folder / "train/000010.tar").unlink()
    loader = Loader(open_dataset(str(folder)).train, tokenizer, Order(20, 20, 0), 32, 2)
    with pytest.raises(
        SampleError, match=r"000010\.tar: sample 0000000\d\d: cannot be read .*build-dataset command again"
    ):
        list(loader.batches(0, 1))


# --- loader -----------------------------------------------------------------------------------------------------------


def batches(shards: Path, tokenizer: Tokenizer, world_size: int, threads: int, start: int = 0) -> list[tuple]:
    """Sample ids, images and captions of the global batches, put together from those of all processes."""
    split, order = open_dataset(str(shards)).train, Order(47, 12, seed=5)
    loaders = [Loader(split, tokenizer, order, 32, threads, rank, world_size) for rank in range(world_size)]
    whole = []
    for parts in zip(*(loader.batches(start, 7) for loader in loaders), strict=True):
        ids = np.concatenate([part.sample_ids for part in parts]).tolist()
        images = torch.cat([part.image_BHWC for part in parts])
        rows = [row[1 : row.argmax()].tolist() for part in parts for row in part.tokens_BL]
        texts = [tokenizer.backend.decode(row) for row in rows]
        whole.append((ids, images.numpy().tobytes(), texts))
    return whole


def test_batches_are_the_same_for_any_number_of_processes_and_threads(shards: Path, tokenizer: Tokenizer) -> None:
    expected = batches(shards, tokenizer, world_size=1, threads=1)
    assert len(expected) == 7 and len({tuple(ids) for ids, _, _ in expected}) == 7
    for world_size, threads in ((2, 1), (3, 4), (4, 2), (1, 5)):
        assert batches(shards, tokenizer, world_size, threads) == expected
    assert batches(shards, tokenizer, 2, 2, start=4) == expected[4:]


def test_batches_hold_what_the_order_and_the_crops_say(shards: Path, tokenizer: Tokenizer) -> None:
    order = Order(47, 12, seed=5)
    for step, (ids, images, texts) in enumerate(batches(shards, tokenizer, 1, 2)):
        assert ids == order.sample_ids(step).tolist()
        crops = uniform(np.array(ids), 2, (5, step // 3))
        slow = [square(decode(SAMPLES[i][0]), 32, tuple(crop)) for i, crop in zip(ids, crops, strict=True)]
        assert images == np.stack(slow).tobytes()
        assert [text.split() for text in texts] == [SAMPLES[i][1].lower().split() for i in ids]


def test_the_same_sample_is_cropped_anew_in_each_epoch() -> None:
    order = Order(40, 40, seed=0)
    ids = np.arange(40)
    assert order.crops(0, ids) == order.crops(0, ids) != order.crops(1, ids)


def test_cut_captions_are_counted(shards: Path, tokenizer: Tokenizer) -> None:
    short = Tokenizer(tokenizer.backend, 5)
    loader = Loader(open_dataset(str(shards)).train, short, Order(47, 12, 0), 32, 2)
    (batch,) = loader.batches(0, 1)
    assert batch.captions_cut == 12 and batch.tokens_BL.shape == (12, 5)
    assert (batch.tokens_BL[:, -1] == short.end_id).all()


def test_validation_takes_all_in_sequence_and_repeats_the_last(shards: Path, tokenizer: Tokenizer) -> None:
    split = open_dataset(str(shards)).val
    loader = Loader(split, tokenizer, InSequence(5, 4), 32, 1)
    ids = [batch.sample_ids.tolist() for batch in loader.batches(0, InSequence(5, 4).steps)]
    assert ids == [[0, 1, 2, 3], [4, 4, 4, 4]]
    (batch, _) = loader.batches(0, 2)
    assert np.array_equal(batch.image_BHWC[1].numpy(), preprocess(SAMPLES[1][0], 32))


def test_a_batch_that_does_not_divide_is_refused(shards: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="12 is not divisible by 5 processes"):
        Loader(open_dataset(str(shards)).train, tokenizer, Order(47, 12, 0), 32, 1, 0, 5)


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ((SAMPLES[3][0][:200], "fine"), "the image cannot be decoded"),
        ((b"no image at all", "fine"), "the image cannot be decoded"),
        ((SAMPLES[3][0], "  "), "the caption is empty"),
        ((SAMPLES[3][0], None), "the caption is not UTF-8"),
    ],
)
def test_a_damaged_sample_is_named(tmp_path: Path, tokenizer: Tokenizer, sample: tuple, says: str) -> None:
    damaged = [*SAMPLES[:13], (sample[0], sample[1] or "ABCD"), *SAMPLES[14:20]]
    folder = write_shards(tmp_path / "shards", damaged)
    if sample[1] is None:
        path = folder / "train/000010.tar"
        with tarfile.open(path) as tar:
            offset = tar.getmember("000000013.txt").offset_data
        data = bytearray(path.read_bytes())
        data[offset] = 0xFF
        path.write_bytes(data)
    loader = Loader(open_dataset(str(folder)).train, tokenizer, Order(20, 20, 0), 32, 2)
    with pytest.raises(SampleError, match=rf"train/000010\.tar: sample 000000013: {says}.*build-dataset command again"):
        list(loader.batches(0, 1))


def test_a_tar_cut_short_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = write_shards(tmp_path / "shards", SAMPLES[:20])
    path = folder / "train/000010.tar"
    path.write_bytes(path.read_bytes()[:9000])
    loader = Loader(open_dataset(str(folder)).train, tokenizer, Order(20, 20, 0), 32, 2)
    with pytest.raises(SampleError, match=r"000010\.tar: sample 0000000\d\d: the tar ends before it"):
        list(loader.batches(0, 1))
