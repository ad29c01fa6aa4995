"""Evaluation sets: what is read, and what a person is told when it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_inputs import COLOURS, picture, write_set, write_split, write_tar

from model.errors import InputError
from model.evaluation.images import UnreadableError, pixels
from model.evaluation.locate import read_sets
from model.evaluation.names import fill
from model.evaluation.sets import read_set


def test_reads_every_sample_of_every_tar(tmp_path: Path) -> None:
    found = read_set(write_set(tmp_path / "colours"))
    assert found.name == "colours"
    assert found.class_names == tuple(COLOURS)
    assert [sample.label for sample in found.samples] == [number % 4 for number in range(12)]
    assert [sample.key for sample in found.samples][5:7] == ["0.tar/0005", "1.tar/0006"]
    assert found.samples[7].image.read() == picture("yellow", 7)


def test_both_placeholders_mean_the_class_name() -> None:
    assert fill("a {c}, a type of {c}", "cat") == "a cat, a type of cat"
    assert fill("a {}", "cat") == "a cat"


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    first = read_set(write_set(tmp_path / "a" / "colours"))
    same = read_set(write_set(tmp_path / "b" / "colours"))
    other_words = read_set(write_set(tmp_path / "c" / "colours", templates=["a {c}"]))
    assert (first.digest, first.images_digest) == (same.digest, same.images_digest)
    assert first.images_digest == other_words.images_digest
    assert first.digest != other_words.digest


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_kinds_of_images(tmp_path: Path, ending: str) -> None:
    found = read_set(write_set(tmp_path / "s", [[(f"a.{ending}", picture("red", 1, ending)), ("a.cls", b"0\n")]]))
    square = pixels(found.samples[0].image.read(), 32)
    assert square.shape == (32, 32, 3)
    assert square[..., 0].mean() > 150 > 100 > square[..., 2].mean()


def test_unreadable_image_has_a_reason() -> None:
    with pytest.raises(UnreadableError, match="not an image that can be decoded"):
        pixels(b"GIF, they said", 32)
    with pytest.raises(UnreadableError):
        pixels(picture("red", 1)[:200], 32)


def test_absent_folder_names_it_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder; give evaluation_sets .*classnames\.txt"):
        read_set(tmp_path / "nowhere")


def test_label_outside_the_classes_names_tar_and_key(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "s", [[("x/one.jpg", picture("red", 1)), ("x/one.cls", b"4")]])
    with pytest.raises(InputError, match=r"0\.tar: key 'x/one' has the label 4, but classnames\.txt names 4 .*0 to 3"):
        read_set(folder)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("k.cls", b"0")], "key 'k' has no image"),
        ([("k.jpg", b"x")], r"key 'k' has no label \(\.cls\)"),
        ([("k.jpg", b"x"), ("k.cls", b"red")], "key 'k' has the label 'red'"),
        ([("k.jpg", b"x"), ("k.cls", b"-1")], "key 'k' has the label '-1'"),
        ([("k.jpg", b"x"), ("k.cls", b"0"), ("k.jpg", b"y")], r"two members 'k\.jpg'"),
        ([], "no samples"),
    ],
)
def test_broken_samples(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_set(write_set(tmp_path / "s", [members]))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classnames.txt", None, r"classnames\.txt: no such file"),
        ("classnames.txt", b"", r"classnames\.txt: empty"),
        ("classnames.txt", b"red\n\ngreen\n", "line 2: an empty line would shift"),
        ("classnames.txt", b"r\xe9d\n", "not UTF-8"),
        ("classnames.txt", b"red\nred \nred\nred\n", "all 4 lines say 'red'; write the name of each class"),
        ("zeroshot_classification_templates.txt", b"{c}\na photo\n", "line 2: 'a photo' has no place"),
        ("test/nshards.txt", b"three", "'three' is not a number of tars"),
        ("test/nshards.txt", b"3", r"2\.tar: no such file, but"),
        ("test/0.tar", b"this is no tar", "not a readable, uncompressed tar"),
        ("dataset_type.txt", b"multilabel\n", "'multilabel' cannot be measured"),
    ],
)
def test_broken_files(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    folder = write_set(tmp_path / "s")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_set(folder)


def test_tar_that_was_cut_off(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "s", [[("a.cls", b"0"), ("a.jpg", picture("red", 1))]])
    tar = folder / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:1_800])
    with pytest.raises(InputError, match=r"0\.tar"):
        read_set(folder)


def test_names_must_differ(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'colours' is taken"):
        read_sets([write_set(tmp_path / "a" / "colours"), write_set(tmp_path / "b" / "colours")])
    with pytest.raises(InputError, match="'retrieval' is taken"):
        read_sets([write_set(tmp_path / "retrieval")])


def test_splits_beside_the_test_split(tmp_path: Path) -> None:
    alone = read_set(write_set(tmp_path / "a" / "colours"))
    folder = write_set(tmp_path / "b" / "colours")
    write_split(folder / "train", 3, first=100)
    found = read_set(folder)
    assert (alone.train, alone.val, found.val) == (None, None, None)
    assert found.train is not None and [sample.label for sample in found.train.samples] == [0, 1, 2, 3] * 3
    assert found.train.samples[5].image.read() == picture("green", 105)
    assert found.digest != alone.digest and found.images_digest == alone.images_digest
    write_split(folder / "val", 1, first=200)
    assert read_set(folder).val is not None
    (folder / "train" / "0.tar").unlink()
    with pytest.raises(InputError, match=r"train/0\.tar: no such file, but .*nshards\.txt says 1"):
        read_set(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("precision\n", r"metric\.txt: 'precision' is no metric; write one of accuracy, mean_per_class, "),
        ("accuracy\nroc_auc\n", "'accuracy roc_auc' is no metric"),
        ("roc_auc\n", "roc_auc needs two classes and test images of both"),
    ],
)
def test_metric_of_a_set(tmp_path: Path, text: str, message: str) -> None:
    folder = write_set(tmp_path / "s")
    assert read_set(folder).metric == "accuracy"
    (folder / "metric.txt").write_text("mean_per_class\n")
    assert read_set(folder).metric == "mean_per_class"
    (folder / "metric.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_set(folder)


def test_other_members_are_left_alone(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "s", [[("a.jpg", picture("red", 1)), ("a.cls", b"1"), ("a.json", b"{}")]])
    write_tar(folder / "train" / "0.tar", [])
    assert [sample.label for sample in read_set(folder).samples] == [1]
