"""scikit-learn's digits, read from folders of images and told apart by the features of a small model without texts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from evaluation_inputs import write_config, write_run, write_shards
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from model.evaluation.__main__ import main
from model.evaluation.sets import read_set


def test_digits_are_told_apart_by_their_features(tmp_path: Path) -> None:
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:400], digits.target[:400], strict=True)):
        folder = tmp_path / "digits" / ("train" if number < 280 else "test") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray((pixels * 15.9).astype(np.uint8)).convert("RGB").save(buffer, "PNG")
        (folder / f"{number:04d}.png").write_bytes(buffer.getvalue())
    write_shards(tmp_path / "shards", train=[["a digit"]])
    write_run(tmp_path / "run", objective={"kind": "simclr"})
    out = write_config(tmp_path / "out", [tmp_path / "digits"], batch=100, few_shot=[], retrieval_samples=0)
    assert main([str(out), "--run", str(tmp_path / "run"), "--shards", str(tmp_path / "shards")]) == 0
    found = json.loads((out / "results" / "digits.json").read_text())
    learned, read = found["learned"], read_set(tmp_path / "digits")
    assert read.train is not None and found["images"] == 120
    assert learned["probe"]["train_images"] + learned["probe"]["val_images"] == 280
    # A tower of random weights keeps enough of a digit; chance is a tenth.
    assert learned["probe"]["metric"]["low"] > 0.3
    # The neighbours one by one: each of the 20 with the largest cosine votes with it.
    known = load_file(out / "features" / "train" / "digits.safetensors")["features"].double().numpy()
    asked = load_file(out / "features" / "digits.safetensors")["features"].double().numpy()
    right = 0
    for image, sample in zip(asked, read.samples, strict=True):
        cosines = known @ image / np.linalg.norm(known, axis=1) / np.linalg.norm(image)
        votes = np.zeros(10)
        for row in np.argsort(-cosines)[:20]:
            votes[read.train.samples[row].label] += cosines[row]
        right += int(votes.argmax()) == sample.label
    assert abs(learned["neighbours"]["top1"]["value"] - right / 120) <= 1 / 120
