"""scikit-learn's digits, read from folders of images and learned from the features of a small model without texts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from evaluation_inputs import write_config, write_run, write_shards
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from model.evaluation.__main__ import main
from model.evaluation.sets import read_set


def test_digits_are_told_apart_by_a_probe_as_scikit_learn_does(tmp_path: Path) -> None:
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:700], digits.target[:700], strict=True)):
        folder = tmp_path / "digits" / ("train" if number < 500 else "test") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray((pixels * 15.9).astype(np.uint8)).convert("RGB").save(buffer, "PNG")
        (folder / f"{number:04d}.png").write_bytes(buffer.getvalue())
    write_shards(tmp_path / "shards", train=[["a digit"]])
    write_run(tmp_path / "run", objective={"kind": "simclr"})
    out = write_config(tmp_path / "out", [tmp_path / "digits"], batch=100, few_shot=[], retrieval_samples=0)
    assert main([str(out), "--run", str(tmp_path / "run"), "--shards", str(tmp_path / "shards")]) == 0
    found = json.loads((out / "results" / "digits.json").read_text())
    probe = found["learned"]["probe"]
    read = read_set(tmp_path / "digits")
    assert read.train is not None and found["images"] == 200 and probe["train_images"] + probe["val_images"] == 500
    train = load_file(out / "features" / "train" / "digits.safetensors")["before"].numpy()
    test = load_file(out / "features" / "digits.safetensors")["before"].numpy()
    theirs = LogisticRegression(C=1 / probe["penalty"], max_iter=1_000)
    theirs.fit(train, [sample.label for sample in read.train.samples])
    expected = theirs.score(test, [sample.label for sample in read.samples])
    assert abs(probe["metric"]["value"] - expected) <= 0.015
    # A random tower keeps enough of a digit; chance is a tenth.
    assert probe["metric"]["value"] > 0.5
