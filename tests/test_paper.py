"""The paper's nine models: their sizes, their tables, and how their weights begin."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flows import cli
from flows.recipes import RECIPES
from model.clip import CLIP
from model.config import ClipConfig, ResNetConfig, TextConfig, TorchvisionConfig, VitConfig
from model.paper import PAPER_MODELS

# Counted in the official code.
PARAMETERS = {
    "rn50": 102_007_137,
    "rn101": 119_688_033,
    "rn50x4": 178_300_601,
    "rn50x16": 290_979_217,
    "rn50x64": 623_258_305,
    "vit-b-32": 151_277_313,
    "vit-b-16": 149_620_737,
    "vit-l-14": 427_616_513,
    "vit-l-14-336": 427_944_193,
}
# Tables 19 and 20: the rates; the rest of a row is compared with open_clip's files.
RATES = dict(zip(PARAMETERS, (5e-4, 5e-4, 5e-4, 4e-4, 3.6e-4, 5e-4, 5e-4, 4e-4, 2e-5), strict=True))
PEERS_NAMES = {
    "rn50": "RN50",
    "rn101": "RN101",
    "rn50x4": "RN50x4",
    "rn50x16": "RN50x16",
    "rn50x64": "RN50x64",
    "vit-b-32": "ViT-B-32",
    "vit-b-16": "ViT-B-16",
    "vit-l-14": "ViT-L-14",
    "vit-l-14-336": "ViT-L-14-336",
}
TEXT = TextConfig(context_length=77, vocab_size=2_000, width=128, layers=4, heads=2)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_papers(name: str) -> None:
    with torch.device("meta"):
        model = CLIP(PAPER_MODELS[name].model)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_architectures_are_those_of_open_clips_files(name: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    file = Path(open_clip.__file__).parent / "model_configs" / f"{PEERS_NAMES[name]}.json"
    peer, ours = json.loads(file.read_text()), PAPER_MODELS[name].model
    assert ours.embed_dim == peer["embed_dim"]
    assert ours.text.model_dump() == peer["text_cfg"]
    vision = peer["vision_cfg"]
    assert (ours.vision.image_px, ours.vision.width) == (vision["image_size"], vision["width"])  # type: ignore[union-attr]
    if isinstance(ours.vision, VitConfig):
        assert (ours.vision.layers, ours.vision.patch_px) == (vision["layers"], vision["patch_size"])
        assert ours.vision.heads == vision["width"] // vision.get("head_width", 64)
    else:
        assert isinstance(ours.vision, ResNetConfig)
        assert list(ours.vision.blocks) == vision["layers"]
        assert ours.vision.heads == vision["width"] * 32 // vision.get("head_width", 64)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_recipe_trains_each_as_the_tables_say(name: str) -> None:
    recipe = RECIPES[name]()
    train, is_vit = recipe.pretrain.train, name.startswith("vit")
    assert recipe.pretrain.model == PAPER_MODELS[name].model
    assert train.learning_rate == RATES[name]
    assert (train.global_batch, train.warmup_steps, train.weight_decay) == (32_768, 2_000, 0.2)
    assert (train.adam_statistics, train.text_weights) == ("fp16", "fp16_stochastic")  # section 2.5
    assert train.epochs == (1 if name == "vit-l-14-336" else 32)
    assert (train.adam_beta1, train.adam_beta2, train.adam_eps) == ((0.9, 0.98, 1e-6) if is_vit else (0.9, 0.999, 1e-8))
    assert recipe.pretrain.start_from == ("vit-l-14" if name == "vit-l-14-336" else "")
    assert recipe.pretrain.model.max_logit_scale == 100
    assert recipe.dataset.download.short_side_px >= recipe.pretrain.model.vision.image_px
    assert recipe.pretrain.dataset == recipe.dataset.name and recipe.evaluate.run == recipe.pretrain.name == name


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_weights_begin_as_in_the_peers_code(kind: str) -> None:
    """Each tensor's mean and deviation against open_clip's, which has the official initialisation."""
    open_clip = pytest.importorskip("open_clip")
    vision: VitConfig | ResNetConfig
    if kind == "vit":
        vision = VitConfig(image_px=64, patch_px=8, width=128, layers=2, heads=2)
        peer_vision: dict[str, Any] = {"layers": 2, "width": 128, "patch_size": 8, "image_size": 64}
    else:
        vision = ResNetConfig(image_px=64, width=16, blocks=(1, 2, 1, 1), heads=8)
        peer_vision = {"layers": [1, 2, 1, 1], "width": 16, "image_size": 64, "patch_size": None}
    torch.manual_seed(0)
    ours = CLIP(ClipConfig(embed_dim=128, vision=vision, text=TEXT)).state_dict()
    peer = open_clip.CLIP(128, peer_vision, TEXT.model_dump(), quick_gelu=True).state_dict()
    assert ours.keys() == peer.keys()
    for name, tensor in ours.items():
        expected = peer[name].float()
        assert tensor.shape == expected.shape, name
        if expected.unique().numel() == 1:  # zeros, ones, the temperature
            torch.testing.assert_close(tensor.float(), expected)
            continue
        spread, numbers = expected.std().item(), tensor.numel()
        # Five deviations of the difference of two estimates.
        assert tensor.std().item() == pytest.approx(spread, rel=5 / math.sqrt(numbers)), name
        assert tensor.mean().item() == pytest.approx(expected.mean().item(), abs=8 * spread / math.sqrt(numbers)), name
        # Of so many numbers a normal distribution reaches beyond 2.5 deviations, a uniform one never.
        if numbers > 4_000:
            assert (tensor.abs().max() > 2.5 * spread) == (expected.abs().max() > 2.5 * spread), name


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 512), ("efficientnet_b0", 1_280)])
def test_torchvisions_networks_with_a_linear_projection(name: Any, channels: int) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = CLIP(ClipConfig(embed_dim=24, vision=TorchvisionConfig(name=name, image_px=64), text=TEXT)).eval()
    peer = torchvision.models.get_model(name, weights=None).eval()
    classifier = nn.Linear(channels, 24, bias=False)
    if name == "resnet18":
        peer.fc = classifier
    else:
        peer.classifier = nn.Sequential(peer.classifier[0], classifier)
    weights = {key.removeprefix("visual.trunk."): value for key, value in model.state_dict().items() if "trunk" in key}
    weights["fc.weight" if name == "resnet18" else "classifier.1.weight"] = model.state_dict()["visual.proj.weight"]
    peer.load_state_dict(weights)
    image_BCHW = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(image_BCHW), peer(image_BCHW), atol=1e-6, rtol=0)
        before, after = model.encode_image_twice(image_BCHW)
        torch.testing.assert_close(after, peer(image_BCHW), atol=1e-6, rtol=0)
        torch.testing.assert_close(classifier(before), after, atol=1e-6, rtol=0)
    assert before.shape == (2, channels)
    assert classifier.weight.std().item() == pytest.approx(channels**-0.5, rel=0.05)


def test_a_network_of_torchvision_draws_no_random_numbers_in_training() -> None:
    vision = TorchvisionConfig(name="efficientnet_b0", image_px=32)
    visual = CLIP(ClipConfig(embed_dim=8, vision=vision, text=TEXT)).train().visual
    image_BCHW = torch.randn(4, 3, 32, 32)
    before = torch.get_rng_state()
    visual(image_BCHW)
    assert torch.equal(before, torch.get_rng_state())


def commands_of_the_page() -> list[str]:
    text = (Path(__file__).parents[1] / "docs" / "weights.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    wit pretrain")]
    return sorted({re.split(r"\s{3,}", line)[0] for line in lines})


@pytest.mark.parametrize("command", commands_of_the_page())
def test_each_training_on_the_page_is_understood(command: str) -> None:
    _, _, name, *options = command.split()
    config, _ = cli._configured(RECIPES[name]().pretrain, options, "pretrain")
    assert config.dataset == "cc12m" and config.name == name
    for option, value in zip(options[::2], options[1::2], strict=True):
        found: Any = config
        for field in option.removeprefix("--").replace("-", "_").split("."):
            found = getattr(found, field)
        assert found == value
