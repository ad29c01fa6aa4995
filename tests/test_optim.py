"""The schedule by hand arithmetic, and which parameters decay, by name."""

from __future__ import annotations

import pytest
import torch

from model.clip import CLIP
from model.config import ClipConfig, ResNetConfig, TextConfig, TrainConfig, VitConfig
from model.optim import build_optimizer, learning_rate, set_learning_rate, split_parameters

TEXT = TextConfig(context_length=8, vocab_size=300, width=16, layers=1, heads=2)


def test_warmup_is_linear_and_the_cosine_ends_near_zero() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_steps=4)
    rates = [learning_rate(step, 12, config) for step in range(12)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[8] == pytest.approx(0.5)
    assert 0 < rates[11] < 0.05 and rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(12, 12, config) == pytest.approx(0.0)


def test_no_warmup_and_a_run_shorter_than_its_warmup() -> None:
    assert learning_rate(0, 10, TrainConfig(learning_rate=2.0, warmup_steps=0)) == 2.0
    assert learning_rate(2, 3, TrainConfig(learning_rate=1.0, warmup_steps=10)) == pytest.approx(0.3)


def test_gains_and_biases_do_not_decay_and_everything_else_does() -> None:
    vit = CLIP(
        ClipConfig(embed_dim=8, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2), text=TEXT)
    )
    decayed, exempt = split_parameters(vit)
    assert set(decayed) == {
        "positional_embedding",
        "text_projection",
        "token_embedding.weight",
        "transformer.resblocks.0.attn.in_proj_weight",
        "transformer.resblocks.0.attn.out_proj.weight",
        "transformer.resblocks.0.mlp.c_fc.weight",
        "transformer.resblocks.0.mlp.c_proj.weight",
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.proj",
        "visual.conv1.weight",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
        "visual.transformer.resblocks.0.attn.out_proj.weight",
        "visual.transformer.resblocks.0.mlp.c_fc.weight",
        "visual.transformer.resblocks.0.mlp.c_proj.weight",
    }
    assert len(decayed) + len(exempt) == len(list(vit.parameters()))
    resnet = CLIP(
        ClipConfig(embed_dim=8, vision=ResNetConfig(image_px=32, width=8, blocks=(1, 1, 1, 1), heads=4), text=TEXT)
    )
    decayed, exempt = split_parameters(resnet)
    assert {
        "visual.bn1.weight",
        "visual.layer1.0.downsample.1.weight",
        "visual.attnpool.q_proj.bias",
        "logit_scale",
    } <= set(exempt)
    assert {"visual.layer1.0.downsample.0.weight", "visual.attnpool.q_proj.weight"} <= set(decayed)


def test_decay_is_decoupled_from_the_gradient() -> None:
    model = CLIP(
        ClipConfig(embed_dim=8, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2), text=TEXT)
    )
    optimizer = build_optimizer(model, TrainConfig(weight_decay=0.2))
    set_learning_rate(optimizer, 0.1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed, _ = split_parameters(model)
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.2 if name in decayed else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
