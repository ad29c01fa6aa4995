"""The towers: the paper's sizes, the official names, and the numbers of independent implementations."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import ValidationError
from torch import Tensor, nn

from model.clip import CLIP
from model.config import ClipConfig, ResNetConfig, TextConfig, VitConfig
from model.resnet import AttentionPool
from model.transformer import Attention, LayerNorm, QuickGELU

SMALL_TEXT = TextConfig(context_length=12, vocab_size=300, width=32, layers=2, heads=2)
SMALL_VIT = ClipConfig(
    embed_dim=24, vision=VitConfig(image_px=32, patch_px=8, width=48, layers=2, heads=3), text=SMALL_TEXT
)
SMALL_RESNET = ClipConfig(
    embed_dim=24, vision=ResNetConfig(image_px=64, width=8, blocks=(2, 1, 1, 1), heads=4), text=SMALL_TEXT
)


def build(config: ClipConfig) -> CLIP:
    torch.manual_seed(0)
    return CLIP(config)


def some_tokens() -> Tensor:
    """Four texts of lengths 5, 12, 3 and 8, padded to the context length; 299 ends a text."""
    tokens_BL = torch.zeros(4, 12, dtype=torch.int64)
    for row, length in enumerate((5, 12, 3, 8)):
        tokens_BL[row, : length - 1] = torch.randint(
            1, 299, (length - 1,), generator=torch.Generator().manual_seed(row)
        )
        tokens_BL[row, length - 1] = 299
    return tokens_BL


def test_parameters_are_named_as_in_the_official_checkpoints() -> None:
    vit, resnet = (set(build(config).state_dict()) for config in (SMALL_VIT, SMALL_RESNET))
    assert {
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.proj",
        "visual.conv1.weight",
        "visual.ln_pre.weight",
        "visual.ln_post.bias",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
        "visual.transformer.resblocks.0.attn.in_proj_bias",
        "visual.transformer.resblocks.1.attn.out_proj.weight",
        "transformer.resblocks.0.ln_1.weight",
        "transformer.resblocks.0.mlp.c_fc.weight",
        "transformer.resblocks.0.mlp.c_proj.bias",
        "transformer.resblocks.1.ln_2.bias",
        "token_embedding.weight",
        "positional_embedding",
        "ln_final.weight",
        "text_projection",
        "logit_scale",
    } <= vit
    assert {
        "visual.conv1.weight",
        "visual.bn3.running_var",
        "visual.layer1.0.conv1.weight",
        "visual.layer1.0.downsample.0.weight",
        "visual.layer1.0.downsample.1.running_mean",
        "visual.layer1.1.bn3.weight",
        "visual.layer4.0.conv3.weight",
        "visual.attnpool.positional_embedding",
        "visual.attnpool.q_proj.weight",
        "visual.attnpool.c_proj.bias",
    } <= resnet


def test_vit_and_text_tower_equal_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    ours, vision, text = build(SMALL_VIT), SMALL_VIT.vision, SMALL_VIT.text
    assert isinstance(vision, VitConfig)
    peer_config = transformers.CLIPConfig(
        projection_dim=24,
        vision_config={
            "image_size": vision.image_px,
            "patch_size": vision.patch_px,
            "hidden_size": vision.width,
            "intermediate_size": 4 * vision.width,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
        },
        text_config={
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "eos_token_id": 299,
            "bos_token_id": 298,
        },
    )
    peer = transformers.CLIPModel(peer_config).eval()
    missing, unexpected = peer.load_state_dict(as_transformers(ours.state_dict()), strict=False)
    assert not unexpected and all(name.endswith("position_ids") for name in missing)
    image_BCHW, tokens_BL = torch.randn(3, 3, 32, 32), some_tokens()
    with torch.no_grad():
        peer_out = peer(pixel_values=image_BCHW, input_ids=tokens_BL)
        image_BD, text_BD, scale = ours(image_BCHW, tokens_BL)
    torch.testing.assert_close(image_BD, peer_out.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(text_BD, peer_out.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(scale * image_BD @ text_BD.T, peer_out.logits_per_image, atol=1e-4, rtol=0)


def as_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> those of transformers' CLIPModel."""
    renamed = {}
    for name, tensor in weights.items():
        side = "vision_model." if name.startswith("visual.") else "text_model."
        name = name.removeprefix("visual.")
        if name == "logit_scale":
            renamed[name] = tensor
        elif name in ("proj", "text_projection"):
            renamed["visual_projection.weight" if name == "proj" else "text_projection.weight"] = tensor.T
        elif ".in_proj_" in name:
            layer, kind = name.split(".attn.in_proj_")
            layer = layer.replace("transformer.resblocks", "encoder.layers")
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{side}{layer}.self_attn.{letter}_proj.{kind}"] = part
        else:
            for old, new in (
                ("transformer.resblocks", "encoder.layers"),
                ("attn.out_proj", "self_attn.out_proj"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("ln_pre", "pre_layrnorm"),
                ("ln_post", "post_layernorm"),
                ("ln_final", "final_layer_norm"),
                ("class_embedding", "embeddings.class_embedding"),
                ("conv1", "embeddings.patch_embedding"),
                ("token_embedding", "embeddings.token_embedding"),
                ("positional_embedding", "embeddings.position_embedding.weight"),
            ):
                name = name.replace(old, new)
            renamed[side + name] = tensor
    return renamed


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_torchs_own(causal: bool) -> None:
    torch.manual_seed(1)
    ours, peer = Attention(32, 4, causal), nn.MultiheadAttention(32, 4, batch_first=True)
    peer.load_state_dict(ours.state_dict())
    x_BLC = torch.randn(3, 7, 32)
    mask = torch.triu(torch.full((7, 7), -math.inf), 1) if causal else None
    torch.testing.assert_close(ours(x_BLC), peer(x_BLC, x_BLC, x_BLC, attn_mask=mask)[0], atol=1e-6, rtol=0)


def test_attention_pool_equals_torchs_own_attention() -> None:
    torch.manual_seed(2)
    pool = AttentionPool(grid=2, channels=32, heads=4, embed_dim=24)
    x_BCHW = torch.randn(3, 32, 2, 2)
    x_LBC = x_BCHW.flatten(2).permute(2, 0, 1)
    x_LBC = torch.cat([x_LBC.mean(0, keepdim=True), x_LBC]) + pool.positional_embedding[:, None]
    expected, _ = F.multi_head_attention_forward(
        query=x_LBC[:1],
        key=x_LBC,
        value=x_LBC,
        embed_dim_to_check=32,
        num_heads=4,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        need_weights=False,
    )
    torch.testing.assert_close(pool(x_BCHW), expected[0], atol=1e-6, rtol=0)


def test_resnet_strides_by_pooling_only() -> None:
    visual = build(SMALL_RESNET).visual
    strides = {name: m.stride for name, m in visual.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)}
    assert strides == {"conv1": (2, 2)}
    assert visual(torch.randn(2, 3, 64, 64)).shape == (2, 24)


def test_each_residual_block_starts_as_its_shortcut() -> None:
    weights = build(SMALL_RESNET).state_dict()
    last_gains = [weight for name, weight in weights.items() if "layer" in name and name.endswith("bn3.weight")]
    assert len(last_gains) == 5 and not any(gain.any() for gain in last_gains)


def test_text_tower_starts_as_gpt2_does() -> None:
    text = TextConfig(context_length=77, vocab_size=5_000, width=128, layers=6, heads=2)
    model = build(SMALL_VIT.model_copy(update={"text": text, "embed_dim": 256}))
    block = model.transformer.resblocks[3]
    branch_std = 128**-0.5 * (2 * 6) ** -0.5
    for tensor, std in (
        (model.token_embedding.weight, 0.02),
        (model.positional_embedding, 0.01),
        (block.attn.in_proj_weight, 128**-0.5),
        (block.attn.out_proj.weight, branch_std),
        (block.mlp.c_fc.weight, 256**-0.5),
        (block.mlp.c_proj.weight, branch_std),
        (model.text_projection, 128**-0.5),
    ):
        assert tensor.std().item() == pytest.approx(std, rel=0.05)
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)


def test_trimming_to_the_longest_text_changes_no_feature() -> None:
    model, tokens_BL = build(SMALL_VIT), some_tokens()
    short_BL = tokens_BL[[0, 2, 3]]
    with torch.no_grad():
        whole_BD, trimmed_BD = (F.normalize(model.encode_text(part)) for part in (short_BL, short_BL[:, :8]))
    torch.testing.assert_close(trimmed_BD, whole_BD, atol=1e-6, rtol=0)


def test_what_follows_the_end_token_is_not_seen() -> None:
    model, tokens_BL = build(SMALL_VIT), some_tokens()
    changed_BL = tokens_BL.clone()
    changed_BL[0, 5:] = 17
    with torch.no_grad():
        torch.testing.assert_close(model.encode_text(changed_BL), model.encode_text(tokens_BL), atol=1e-6, rtol=0)
        changed_BL[0, 3] = 18  # one before the end token
        assert not torch.allclose(model.encode_text(changed_BL)[0], model.encode_text(tokens_BL)[0])


def test_quick_gelu_and_fp32_layer_norm() -> None:
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))
    norm, big = LayerNorm(64), torch.randn(4, 64).to(torch.bfloat16) * 300
    assert norm(big).dtype == torch.bfloat16
    torch.testing.assert_close(norm(big), F.layer_norm(big.float(), (64,)).to(torch.bfloat16))


def test_scale_is_clipped_at_its_maximum() -> None:
    model = build(SMALL_VIT)
    with torch.no_grad():
        model.logit_scale.fill_(7.0)
    model.clip_scale()
    assert model.logit_scale.exp().item() == pytest.approx(100.0)


def test_features_have_unit_length_in_forward_only() -> None:
    model = build(SMALL_RESNET)
    image_BCHW, tokens_BL = torch.randn(4, 3, 64, 64), some_tokens()
    image_BD, text_BD, _ = model(image_BCHW, tokens_BL)
    for features_BD in (image_BD, text_BD):
        torch.testing.assert_close(features_BD.norm(dim=1), torch.ones(4))
    assert not torch.allclose(model.encode_text(tokens_BL).norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VitConfig(image_px=30, patch_px=8), "not divisible by patch_px"),
        (lambda: VitConfig(width=50, heads=3), "attention heads"),
        (lambda: ResNetConfig(image_px=48), "not divisible by 32"),
        (lambda: ResNetConfig(width=9, heads=1), "odd"),
        (lambda: TextConfig(width=50, heads=3), "attention heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make()
