"""ImageNet's variants by its classes, effective robustness, and what overlap with the training data is worth."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evaluation_inputs import COLOURS, picture, write_config, write_run, write_set, write_shards, write_split
from scipy.stats import binomtest

from model.evaluation.__main__ import main
from model.evaluation.overlap import overlap_of
from model.evaluation.robustness import accuracy_among, baseline, classes_of, same_classes
from model.evaluation.sets import read_set
from model.evaluation.summary import Summary


def test_accuracy_among_the_classes_of_a_variant(tmp_path: Path) -> None:
    whole = read_set(write_set(tmp_path / "imagenet1k", class_names=["Red", "green", "blue", "green"]))
    part = read_set(write_set(tmp_path / "imagenet-a", class_names=["GREEN", "blue", "red", "blue"]))
    assert same_classes(part, whole) == {"red", "green", "blue"}
    assert (
        same_classes(read_set(write_set(tmp_path / "objectnet", class_names=["a", "green", "b", "c"])), whole) is None
    )
    # A copy with more names than ImageNet-A has is among the classes that its images show.
    many = read_set(write_set(tmp_path / "wds_imagenet-a", class_names=[str(number) for number in range(201)]))
    assert classes_of(many) == {"0", "1", "2", "3"}
    labels_N = torch.tensor([0, 1, 2, 3, 3])
    logits_NC = torch.tensor([[1.0, 9, 0, 0], [0, 0, 1, 9], [8, 1, 0, 0], [0, 5, 0, 1], [9, 2, 3, 1]])
    # One by one: of green (1, 3) and blue (2) alone, the second takes 3 (green, right), the third 1 (wrong), the fourth 1
    # (green, right), the fifth 2 (wrong); the first is neither.
    assert accuracy_among(whole, logits_NC, labels_N, {"green", "blue"}, 0.95).value == 2 / 4


def test_the_line_of_the_baselines_is_the_least_squares_one() -> None:
    line = baseline("ImageNetV2")
    assert line is not None and baseline("Flickr30k") is None
    # Three points of the paper; the best line leaves residuals without mean and without slope.
    points = [(76.2, 64.3), (86.4, 78.0), (88.3, 80.2)]
    x = [math.log(a / (100 - a)) for a, _ in points]
    rest = [math.log(b / (100 - b)) - line.at_zero - line.slope * at for at, (_, b) in zip(x, points, strict=True)]
    assert sum(rest) == pytest.approx(0, abs=1e-9)
    assert sum(r * at for r, at in zip(rest, x, strict=True)) == pytest.approx(0, abs=1e-9)
    assert line.expected(0.762) == pytest.approx(0.643, abs=0.01)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """ImageNet and a variant in four colours, a set that the shards overlap with, one that they were not compared with."""
    folder = tmp_path_factory.mktemp("shifts")
    write_shards(folder / "shards", train=[["a red thing"]] * 4)
    manifest = json.loads((folder / "shards" / "manifest.json").read_text())
    manifest["evaluation_overlap"] = {"sets": {"imagenet1k": {"images": 12}, "imagenet-r": {"images": 12}, "other": {}}}
    (folder / "shards" / "manifest.json").write_text(json.dumps(manifest))
    seen = [("imagenet1k", f"0.tar/{number:04d}.jpg") for number in range(5)] + [("other", "gone.jpg")]
    table = pa.table({"evaluation_set": [name for name, _ in seen], "evaluation_image": [image for _, image in seen]})
    pq.write_table(table, folder / "shards" / "overlap.parquet")
    write_run(folder / "run")
    names = ("imagenet1k", "imagenet-r", "apart", "other")
    sets = [write_set(folder / name, class_names=list(COLOURS)) for name in names]
    arguments = [str(folder / "out"), "--run", str(folder / "run"), "--shards", str(folder / "shards")]
    # At first without the variant, which then adds to what there is of ImageNet.
    for known in (sets[:1] + sets[2:], sets):
        write_config(folder / "out", known, retrieval_samples=0)
        assert main(arguments) == 0
    for name, found in (("robustness", 1), ("overlap", 4)):
        assert len(json.loads((folder / "out" / "results" / f"{name}.json").read_text())) == found
    return Summary.model_validate_json((folder / "out" / "summary.json").read_text())


def test_a_variant_stands_beside_imagenet(evaluated: Summary) -> None:
    (shift,) = evaluated.shifts
    imagenet, variant = evaluated.sets[:2]
    assert (shift.set, shift.row, shift.classes) == ("imagenet-r", "ImageNet-R", 4)
    assert shift.share == variant.top1 and shift.imagenet == imagenet.top1 == shift.imagenet_same_classes
    assert shift.expected is not None and shift.effective is not None
    assert shift.effective.value == pytest.approx(variant.top1.value - shift.expected)
    assert imagenet.reference is not None and imagenet.reference.model == "ViT-B/32"
    assert evaluated.rows[0].paper_percent == 63.2 and evaluated.rows[2].paper_percent is None


def test_overlap_is_tested_as_scipy_tests_it(evaluated: Summary) -> None:
    found, none, apart, other = evaluated.overlaps
    assert (found.set, found.images, found.overlapping) == ("imagenet1k", 12, 5)
    assert found.all is not None and found.clean is not None and found.overlap is not None and found.gain is not None
    assert found.all == evaluated.sets[0].top1
    assert 5 * found.overlap.value + 7 * found.clean.value == pytest.approx(12 * found.all.value)
    assert found.gain == pytest.approx(found.all.value - found.clean.value)
    expected = binomtest(round(5 * found.overlap.value), 5, found.clean.value, alternative="greater").pvalue
    assert found.p_value == pytest.approx(expected)
    assert (none.overlapping, none.overlap, none.gain, none.p_value) == (0, None, 0, None)
    assert "was not compared with it; name it in images.evaluation_sets" in apart.reason
    assert "compared with another copy of it, which has 'gone'" in other.reason


def test_a_model_without_texts_is_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", objective={"kind": "masked_lm"})
    write_shards(tmp_path / "shards", train=[["a red thing"]] * 4)
    write_split(write_set(tmp_path / "colours") / "train", 4, first=100)
    write_config(tmp_path / "out", [tmp_path / "colours"], few_shot=[2], few_shot_seeds=1, retrieval_samples=0)
    assert main([str(tmp_path / "out"), "--run", str(tmp_path / "run"), "--shards", str(tmp_path / "shards")]) == 0
    printed = capsys.readouterr().out
    summary = Summary.model_validate_json((tmp_path / "out" / "summary.json").read_text())
    (found,) = summary.probed
    assert summary.sets == [] and found.classes == 4 and found.metric_chance == 0.25
    assert found.learned.probe is not None and found.learned.neighbours is not None
    assert found.learned.zero_shot_calibration is None and found.learned.few_shot[0].mean is not None
    assert f"colours, linear probe  {100 * found.learned.probe.metric.value:>10.1f}" in " ".join(printed.split("\n"))
    assert summary.rows[0].accuracy_percent is None and summary.rows[0].probe_percent is not None
    assert json.loads((tmp_path / "out" / "results" / "colours.json").read_text())["learned"]["status"] == "measured"


def test_overlap_finds_files_by_their_path_in_the_set(tmp_path: Path) -> None:
    for split in ("test", "train"):
        for name in ("red", "blue"):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            (tmp_path / "mine" / split / name / "0.jpg").write_bytes(picture(name, 1))
    found = read_set(tmp_path / "mine")
    keys = [sample.key for sample in found.samples]
    # As pipeline/evaluation_images.py names them: the path below the folder of the set.
    result = overlap_of(found, keys, [True, False], {"mine": {"test/red/0.jpg", "train/blue/0.jpg"}}, 0.95)
    assert (result.images, result.overlapping, result.gain, result.p_value) == (2, 1, -0.5, 1.0)
    result = overlap_of(found, keys, [True, False], {"mine": {"test/red/9.jpg"}}, 0.95)
    assert "compared with another copy of it, which has 'test/red/9.jpg'" in result.reason
