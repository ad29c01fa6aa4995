"""The paper's figures as packaged: they say what the paper says of itself, and which of its models is the nearest."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from model.config import ClipConfig, PretrainConfig, TextConfig, TrainConfig, VitConfig
from model.evaluation.reference import RESNET50, image_gflop, nearest_tower, paper, reference_of
from model.evaluation.registry import find, known_sets, views
from model.objectives.build import build_objective
from model.paper import PAPER_MODELS

BEST = "ViT-L/14-336px"
ROWS = [known_sets()[name].paper_row or "" for name in views()["paper27"].sets]


def vit_gflop(vision: VitConfig, embed_dim: int) -> float:
    """By hand: products of a block are 12 width² a token and 2 width a pair of tokens."""
    patches = (vision.image_px // vision.patch_px) ** 2
    tokens, width = patches + 1, vision.width
    block = 12 * width**2 * tokens + 2 * width * tokens**2
    products = vision.layers * block + patches * 3 * vision.patch_px**2 * width + width * embed_dim
    return 2 * products / 1e9


def test_the_tables_agree_with_what_the_paper_says_of_them() -> None:
    sets = paper().sets
    zero_shot = [sets[row].zero_shot[BEST] for row in ROWS]
    # Section 3.1.5: zero-shot wins on 16 of 27 over the probe of a ResNet-50 (figure 5); section 3.2: r = 0.82 (figure 8).
    assert sum(ours > sets[row].linear_probe[RESNET50] for ours, row in zip(zero_shot, ROWS, strict=True)) == 16
    probes = [sets[row].linear_probe[BEST] for row in ROWS]
    assert np.corrcoef(zero_shot, probes)[0, 1] == pytest.approx(0.82, abs=0.01)
    for row, printed in paper().zero_shot_minus_resnet50.items():
        if row not in ("KITTI", "UCF101"):
            assert sets[row].zero_shot[BEST] - sets[row].linear_probe[RESNET50] == pytest.approx(printed, abs=0.11)
    # Figure 7: median 5.4, mean 20.8.
    needed = [found.examples_to_match_zero_shot for found in sets.values() if found.examples_to_match_zero_shot]
    assert statistics.median(needed) == pytest.approx(5.4, abs=0.1) and statistics.mean(needed) == pytest.approx(
        20.8, abs=0.1
    )


def test_flags_follow_from_the_figures_that_were_measured_again() -> None:
    for row in ROWS:
        found = paper().sets[row]
        if not found.measured_again:
            assert found.flag == "loose"
            continue
        apart = statistics.mean(abs(found.measured_again[name] - found.zero_shot[name]) for name in found.zero_shot)
        assert found.flag == ("firm" if apart <= 0.505 else "near" if apart <= 2 else "loose"), row


def test_the_work_of_an_image_tower_is_counted() -> None:
    towers = {tower.name: tower for tower in paper().models}
    assert set(towers) == set(paper().sets["ImageNet"].zero_shot)
    for tower in towers.values():
        model = PAPER_MODELS[tower.recipe].model
        assert isinstance(model.vision, VitConfig) == tower.is_vit
        if isinstance(model.vision, VitConfig):
            assert tower.image_gflop == pytest.approx(vit_gflop(model.vision, model.embed_dim), rel=0.01)
    vision = VitConfig(image_px=32, patch_px=8, width=32, layers=2, heads=2)
    text = TextConfig(context_length=8, vocab_size=260, width=8, layers=1, heads=1)
    config = PretrainConfig(
        name="small", dataset="d", model=ClipConfig(embed_dim=8, vision=vision, text=text), train=TrainConfig()
    )
    counted = image_gflop(build_objective(config).eval(), 32, torch.device("cpu"))
    assert counted == pytest.approx(vit_gflop(vision, 8), rel=0.01)


def test_the_nearest_model_is_of_the_same_kind_and_work() -> None:
    assert nearest_tower(True, 0.01).name == "ViT-B/32" and nearest_tower(False, 0.01).name == "RN50"
    # Halfway is meant as a ratio: between 8.8 and 35.1 that is 17.6.
    assert nearest_tower(True, 17.4).name == "ViT-B/32" and nearest_tower(True, 17.8).name == "ViT-B/16"
    assert nearest_tower(False, 1e6).name == "RN50x64"
    found = reference_of(find("wds_vtab-pets"), nearest_tower(True, 10))
    assert found is not None
    assert (found.row, found.model, found.zero_shot_percent, found.probe_percent) == (
        "OxfordPets",
        "ViT-B/32",
        87.0,
        90.0,
    )
    assert (found.resnet50_probe_percent, found.flag) == (92.4, "firm")
    assert reference_of(None, nearest_tower(True, 10)) is None
    shift = reference_of(find("imagenet-a"), nearest_tower(False, 10))
    assert shift is not None and shift.zero_shot_percent is None and shift.measured_again_percent == 23.27
