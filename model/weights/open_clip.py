"""open_clip's format: a folder with open_clip_config.json and open_clip_model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from model.config import ClipConfig, ResNetConfig, TextConfig, VitConfig
from model.data.images import MEAN_RGB, STD_RGB
from model.errors import InputError
from model.weights.described import read_json, require, require_normalisation
from model.weights.openai import heads_of
from model.weights.tensors import Weights, make_weights, read_tensors

CONFIG = "open_clip_config.json"
FILE = "open_clip_model.safetensors"

# What changes what a model computes, and the only value of it that is the paper's architecture, open_clip's default.
TOWER = {
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "output_tokens": False,
    "final_ln_after_pool": False,
    "act_kwargs": None,
    "norm_kwargs": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
VISION = {
    **TOWER,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "pool_type": "tok",
    "timm_model_name": None,
}
TEXT: dict[str, Any] = {
    **TOWER,
    "embed_cls": False,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_type": "linear",
    "proj_bias": False,
    "hf_model_name": None,
    "tokenizer_mode": None,
    "tokenizer_kwargs": {},
}
# In training only, or without effect unless a field above is another.
WITHOUT_EFFECT = {
    "patch_dropout",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
    "pad_id",
    "eos_id",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
    "hf_tokenizer_name",
    "block_type",
}
VISION_READ = {"layers", "width", "head_width", "patch_size", "image_size"}
TEXT_READ = {"context_length", "vocab_size", "width", "heads", "layers"}
MODEL_READ = {
    "embed_dim",
    "vision_cfg",
    "text_cfg",
    "quick_gelu",
    "custom_text",
    "init_logit_scale",
    "nonscalar_logit_scale",
}


def read(folder: Path) -> tuple[Weights, bool]:
    """The weights of a folder, and whether it has a tokenizer of its own (else it is the official one).

    Raises InputError for what cannot be represented.
    """
    path = folder / CONFIG
    described = read_json(path)
    model = described.get("model_cfg")
    if not isinstance(model, dict):
        raise InputError(f"{path}: no model_cfg; copy the folder again")
    preprocessing = described.get("preprocess_cfg", {})
    require_normalisation(path, preprocessing.get("mean"), preprocessing.get("std"))
    require(path, preprocessing, {"interpolation": "bicubic", "resize_mode": "shortest"}, "preprocess_cfg")
    config = _config(path, model)
    tensors = {_official_name(name): tensor for name, tensor in read_tensors(folder / FILE).items()}
    if "logit_scale" in tensors:
        tensors["logit_scale"] = tensors["logit_scale"].reshape(())  # of one dimension where nonscalar_logit_scale
    return make_weights(folder / FILE, config, tensors), bool(model["text_cfg"].get("hf_tokenizer_name"))


def _official_name(name: str) -> str:
    """Where a configuration says custom_text, the text tower is a module of its own."""
    return name.removeprefix("text.")


def _config(path: Path, model: dict[str, Any]) -> ClipConfig:
    try:
        vision, text = model["vision_cfg"], model["text_cfg"]
        _require_known(path, model, MODEL_READ, "model_cfg")
        _require_known(path, vision, VISION_READ | VISION.keys() | WITHOUT_EFFECT, "vision_cfg")
        _require_known(path, text, TEXT_READ | TEXT.keys() | WITHOUT_EFFECT, "text_cfg")
        require(path, vision, VISION, "vision_cfg")
        require(path, text, TEXT, "text_cfg")
        return ClipConfig(
            embed_dim=model["embed_dim"],
            vision=_vision(vision),
            text=TextConfig(
                context_length=text.get("context_length", 77),
                vocab_size=text.get("vocab_size", 49_408),
                width=text.get("width", 512),
                heads=text.get("heads", 8),
                layers=text.get("layers", 12),
            ),
            activation="quick_gelu" if model.get("quick_gelu", False) else "gelu",
        )
    except KeyError as error:
        raise InputError(f"{path}: no {error}; copy the folder again") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _vision(vision: dict[str, Any]) -> VitConfig | ResNetConfig:
    layers, width, head_width = vision.get("layers", 12), vision.get("width", 768), vision.get("head_width", 64)
    image_px = vision.get("image_size", 224)
    if isinstance(layers, list):
        first, second, third, fourth = layers
        return ResNetConfig(
            image_px=image_px, width=width, blocks=(first, second, third, fourth), heads=32 * width // head_width
        )
    return VitConfig(
        image_px=image_px,
        patch_px=vision.get("patch_size", 16),
        width=width,
        layers=layers,
        heads=width // head_width,
    )


def _require_known(path: Path, found: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(found.keys() - known)
    if unknown:
        raise InputError(f"{path}: {where}.{unknown[0]} has no counterpart here, so the model cannot be represented")


def write(folder: Path, weights: Weights, tensors: dict[str, Tensor], own_tokenizer: str | None) -> None:
    """Write configuration and weights; `own_tokenizer` names the tokenizer whose files the folder holds, if not the official."""
    config = weights.config
    (_, _, _), (_, width, heads) = heads_of(config)
    vision: dict[str, Any] = {"image_size": config.vision.image_px, "head_width": width // heads}
    if isinstance(config.vision, VitConfig):
        vision |= {
            "layers": config.vision.layers,
            "width": config.vision.width,
            "patch_size": config.vision.patch_px,
        }
    else:
        assert isinstance(config.vision, ResNetConfig)
        vision |= {"layers": list(config.vision.blocks), "width": config.vision.width, "patch_size": None}
    text = config.text.model_dump()
    if own_tokenizer is not None:
        text["hf_tokenizer_name"] = own_tokenizer  # open_clip looks in the folder if it is loaded from one
    described = {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "vision_cfg": vision,
            "text_cfg": text,
            "quick_gelu": config.activation == "quick_gelu",
        },
        "preprocess_cfg": {
            "mean": MEAN_RGB,
            "std": STD_RGB,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / CONFIG).write_text(json.dumps(described, indent=2), encoding="utf-8")
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
