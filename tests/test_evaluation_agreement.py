"""Our zero-shot accuracy is open_clip's own, to the last image, on the same weights, images, prompts and preprocessing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_inputs import TEMPLATES, write_config, write_run, write_set, write_shards
from PIL import Image

from model.checkpoint import load_run, save_final
from model.evaluation.__main__ import main
from model.evaluation.sets import read_set
from model.weights.folders import export_weights

CLASSES = ("a tabby cat", "blue", "the sea", "a red thing", "house", "two dogs", "yellow photo", "nothing")
IMAGES, BATCH = 160, 32


def scene(draw: np.random.Generator) -> bytes:
    """Blocks of random colours, one side of 32 pixels and the other longer: what is cropped needs no resizing."""
    long = int(draw.integers(33, 60))
    size = (32, long) if draw.random() < 0.5 else (long, 32)
    few = Image.fromarray(draw.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    few.resize(size, Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


def write_lively_run(folder: Path) -> Path:
    """A run whose every weight is drawn anew, so wide that different images are taken for different classes."""
    objective = load_run(write_run(folder)).objective
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in objective.named_parameters():
            if not name.endswith("logit_scale"):
                weight.copy_(torch.randn(weight.shape, generator=generator))
    save_final(folder, objective, steps=5, samples_seen=40, loss=1.5, run_fingerprint="0" * 64)
    return folder


def test_accuracy_and_every_answer_are_open_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_clip = pytest.importorskip("open_clip")
    draw = np.random.default_rng(5)
    members = [
        member
        for number in range(IMAGES)
        for member in (
            (f"{number:04d}.png", scene(draw)),
            (f"{number:04d}.cls", str(int(draw.integers(len(CLASSES)))).encode()),
        )
    ]
    folder = write_set(tmp_path / "scenes", [members], CLASSES)
    shards = write_shards(tmp_path / "shards", train=[["a red thing"]] * 4)
    run = write_lively_run(tmp_path / "run")
    out = write_config(tmp_path / "out", [folder], batch=BATCH)
    assert main([str(out), "--run", str(run), "--shards", str(shards)]) == 0
    ours = json.loads((out / "results" / "scenes.json").read_text())

    export_weights(run, tmp_path / "open_clip", "open_clip", "fp32")
    peer, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'open_clip'}")
    peer.eval()
    tokenizer = load_run(run).tokenizer

    def tokenize(texts: list[str]) -> torch.Tensor:
        tokens_BL = tokenizer.encode(texts)
        return torch.nn.functional.pad(tokens_BL, (0, 16 - tokens_BL.shape[1]))

    templates = [template.replace("{c}", "{}") for template in TEMPLATES]
    classifier = open_clip.build_zero_shot_classifier(peer, tokenize, CLASSES, templates)
    samples = read_set(folder).samples
    image_NCHW = torch.stack([preprocess(Image.open(io.BytesIO(sample.image.read()))) for sample in samples])
    label_N = torch.tensor([sample.label for sample in samples])
    # As its training loop evaluates (open_clip_train/zero_shot.py, run), whose counting does not run on numpy 2.4 and later.
    with torch.inference_mode():
        feature_ND = torch.cat([peer(image=image_BCHW)[0] for image_BCHW in image_NCHW.split(BATCH)])
        place_NK = (100.0 * feature_ND @ classifier).topk(5, dim=1).indices
    answer_N, is_right_NK = place_NK[:, 0], place_NK == label_N[:, None]
    assert round(ours["top1"]["value"] * IMAGES) == int(is_right_NK[:, 0].sum())
    assert round(ours["top5"]["value"] * IMAGES) == int(is_right_NK.sum())
    pairs = list(zip(label_N.tolist(), answer_N.tolist(), strict=True))
    assert {(label, answer): images for label, answer, images in ours["confusion"]} == {
        pair: pairs.count(pair) for pair in pairs
    }
    assert len(set(answer_N.tolist())) >= 3  # else equal figures would say little
