"""A whole evaluation of a set with a training split: what is written, cached, skipped and told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_inputs import picture, write_config, write_run, write_set, write_shards, write_split, write_tar
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from model.checkpoint import load_run
from model.data import normalise
from model.evaluation.__main__ import main
from model.evaluation.images import pixels
from model.evaluation.results import SetResult
from model.evaluation.sets import read_set
from model.evaluation.summary import Summary, table

FEW = {"few_shot": [2, 8], "few_shot_seeds": 2, "neighbours": 5, "probe_val_share": 0.25}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shards, run, and colours with six training images of each class; tests add to copies only."""
    folder = tmp_path_factory.mktemp("inputs")
    write_shards(folder / "shards", train=[["a red thing"]] * 4)
    write_run(folder / "run")
    write_split(write_set(folder / "colours") / "train", 6, first=100)
    return folder


def evaluate(inputs: Path, out: Path, set_folder: Path, **fields: object) -> SetResult:
    write_config(out, [set_folder], **{**FEW, **fields})
    assert main([str(out), "--run", str(inputs / "run"), "--shards", str(inputs / "shards")]) == 0
    return SetResult.model_validate_json((out / "results" / f"{set_folder.name}.json").read_text())


@pytest.fixture(scope="module")
def done(inputs: Path) -> Path:
    """The folder of an evaluation that only one test, the last, writes to."""
    evaluate(inputs, inputs / "out", inputs / "colours")
    return inputs / "out"


def result(out: Path) -> SetResult:
    return SetResult.model_validate_json((out / "results" / "colours.json").read_text())


def test_a_training_split_is_learned_from(done: Path) -> None:
    found = result(done)
    learned = found.learned
    assert learned.status == "measured" and learned.probe is not None and learned.neighbours is not None
    # Six of each class: a quarter of 6 is 2, held out.
    assert learned.is_val_carved and (learned.probe.train_images, learned.probe.val_images) == (16, 8)
    # The transformer's width, not the shared space's 8.
    assert learned.probe.dimensions == 16
    assert [shot.examples for shot in learned.few_shot] == [2, 8]
    assert len(learned.few_shot[0].values) == 2
    assert learned.few_shot[1].reason == "a class has only 4 training images"
    # Four plain colours are told apart by any features.
    assert learned.probe.top1.value == 1 and learned.neighbours.top1.value > 0.5
    summary = Summary.model_validate_json((done / "summary.json").read_text())
    printed = table(summary)
    assert "colours, linear probe" in printed and "colours, neighbours" in printed and "probe of" not in printed
    (row,) = json.loads((done / "summary.json").read_text())["rows"]
    assert (row["metric"], row["probe_percent"], row["probe_high_percent"]) == ("accuracy", 100.0, 100.0)
    report = (done / "report.html").read_text()
    assert "What labels add (accuracy)" in report and "8 of each class: skipped, a class has only 4" in report
    assert "With labels, a linear classifier on the image tower’s 16".replace("’", "&#39;") in report


def test_features_before_the_projection_come_in_the_same_pass(inputs: Path, done: Path) -> None:
    run = load_run(inputs / "run")
    for file, samples in (
        ("colours.safetensors", read_set(inputs / "colours").samples),
        ("train/colours.safetensors", read_set(inputs / "colours").train.samples),  # type: ignore[union-attr]
    ):
        cached = load_file(done / "features" / file)
        assert cached["before"].shape == (len(samples), 16) and cached["features"].shape == (len(samples), 8)
        image = normalise(torch.from_numpy(pixels(samples[3].image.read(), 32).copy())[None])
        with torch.inference_mode():
            assert torch.allclose(cached["features"][3], run.model.encode_image(image)[0], atol=1e-5)
            assert torch.allclose(cached["before"][3] @ run.model.visual.proj, cached["features"][3], atol=1e-5)


def test_the_probe_is_scikit_learns_on_the_cached_features(done: Path) -> None:
    found = result(done)
    train, test = (load_file(done / "features" / name)["before"].double().numpy() for name in (
        "train/colours.safetensors", "colours.safetensors"))  # fmt: skip
    probe = found.learned.probe
    assert probe is not None
    peer = LogisticRegression(C=1 / probe.penalty, solver="newton-cholesky", tol=1e-6).fit(train, np.arange(24) % 4)
    assert probe.top1.value == peer.score(test, np.arange(12) % 4)


def test_a_model_that_scores_texts_is_probed_too(inputs: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", objective={"kind": "bag_of_words"})
    out = write_config(tmp_path / "out", [inputs / "colours"], **FEW)
    assert main([str(out), "--run", str(run), "--shards", str(inputs / "shards")]) == 0
    found = result(out)
    assert found.learned.probe is not None and found.learned.probe.top1.value == 1
    assert found.learned.probe.dimensions == 16  # before the tower's projection, as with CLIP
    assert found.metric_share == found.top1
    assert found.learned.zero_shot_calibration is None
    assert "The temperature of zero-shot was not fitted" in (out / "report.html").read_text()


def test_the_sets_own_validation_split_and_metric_are_used(inputs: Path, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "colours")
    write_split(folder / "train", 4, first=100)
    write_split(folder / "val", 2, first=200)
    (folder / "metric.txt").write_text("mean_top1_top5\n")
    found = evaluate(inputs, tmp_path / "out", folder)
    assert found.learned.probe is not None and not found.learned.is_val_carved
    assert (found.learned.probe.train_images, found.learned.probe.val_images) == (16, 8)
    assert (tmp_path / "out" / "features" / "val" / "colours.safetensors").is_file()
    # Four classes, so the right one is always among five.
    assert found.metric_share.value == pytest.approx((found.top1.value + 1) / 2)
    assert found.metric_chance == pytest.approx((0.25 + 1) / 2)


def write_two_classes(folder: Path) -> Path:
    """A set for roc_auc whose validation split shows one of its two classes."""
    for split, labels in (("test", "01"), ("train", "0011"), ("val", "00")):
        members = [
            member
            for number, label in enumerate(labels)
            for member in (
                (f"{number}.jpg", picture(("red", "blue")[int(label)], number)),
                (f"{number}.cls", label.encode()),
            )
        ]
        write_tar(folder / split / "0.tar", members)
        (folder / split / "nshards.txt").write_text("1")
    (folder / "classnames.txt").write_text("red\nblue\n")
    (folder / "metric.txt").write_text("roc_auc")
    return folder


@pytest.mark.parametrize(
    "why", ["no split", "switched off", "one class", "one image of each", "one class to choose by"]
)
def test_what_cannot_be_learned_from_is_skipped_with_a_reason(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    folder = write_set(tmp_path / "colours")
    if why == "one class":
        members = [(f"{n}.{end}", data) for n in (1, 2) for end, data in (("jpg", picture("red", n)), ("cls", b"0"))]
        write_tar(write_split(folder / "train", 1, 0) / "0.tar", members)
    elif why == "one class to choose by":
        folder = write_two_classes(tmp_path / "two/colours")
    elif why != "no split":
        write_split(folder / "train", 1, first=100)
    learned = evaluate(inputs, tmp_path / "out", folder, probe=why != "switched off").learned
    reason = {
        "no split": "the set has no training split (train beside test, in the layout of the set)",
        "switched off": "the configuration says probe = false",
        "one class": "its training split shows 1 class",
        "one image of each": "no class has two training images",
        "one class to choose by": "its validation images show one class, and roc_auc needs both",
    }[why]
    assert (learned.status, learned.reason, learned.probe) == ("skipped", reason, None)
    assert f"linear probe of colours skipped: {reason}" in capsys.readouterr().out
    summary = Summary.model_validate_json((tmp_path / "out" / "summary.json").read_text())
    assert summary.rows[0].probe_percent is None
    assert f"neighbours were skipped: {reason}" in (tmp_path / "out" / "report.html").read_text()


def test_features_are_reused_and_settings_are_not_ignored(
    inputs: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = result(done)
    second = evaluate(inputs, done, inputs / "colours", neighbours=1, few_shot=[2], few_shot_seeds=1)
    printed = capsys.readouterr().out
    assert "features of colours/train are in the cache" in printed and "embedding" not in printed
    assert second.learned.probe == first.learned.probe
    assert second.learned.neighbours is not None and second.learned.neighbours.neighbours == 1
    assert [(shot.examples, len(shot.values), shot.deviation) for shot in second.learned.few_shot] == [(2, 1, None)]
