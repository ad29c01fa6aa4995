"""Hugging Face's format: a folder of CLIPModel, with config.json, model.safetensors and the files of its processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.clip_vocabulary import hugging_face_backend
from model.config import ClipConfig, TextConfig, VitConfig
from model.data.images import MEAN_RGB, STD_RGB
from model.errors import InputError
from model.tokenizer import Tokenizer
from model.weights.described import read_json, require, require_normalisation
from model.weights.tensors import Weights, make_weights, read_tensors

CONFIG = "config.json"
FILE = "model.safetensors"
PREPROCESSOR = "preprocessor_config.json"

BICUBIC = 3  # Pillow's number
LEGACY_END_ID = 2  # of older configurations; transformers then looks for the largest id
LEGACY_BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
TOWER = {"layer_norm_eps": 1e-5}
# Defaults of transformers' CLIPTextConfig and CLIPVisionConfig: a configuration may leave them out.
TEXT_DEFAULTS = {
    "vocab_size": 49_408,
    "hidden_size": 512,
    "intermediate_size": 2_048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "eos_token_id": 49_407,
}
VISION_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3_072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
}

# Ours -> theirs, but for what a block holds.
NAMES = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # transformers' own spelling
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
IN_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def read(folder: Path) -> tuple[Weights, Tokenizer]:
    """The weights and the tokenizer of a folder. Raises InputError for what cannot be represented."""
    path = folder / CONFIG
    described = read_json(path)
    require(path, described, {"model_type": "clip"}, "the configuration")
    config = _config(path, described)
    tokenizer = Tokenizer(hugging_face_backend(folder), config.text.context_length)
    end_id = {**TEXT_DEFAULTS, **(described.get("text_config") or {})}["eos_token_id"]
    if end_id not in (tokenizer.end_id, LEGACY_END_ID):
        raise InputError(
            f"{path}: text_config.eos_token_id is {end_id}, but the tokenizer beside it ends texts with "
            f"{tokenizer.end_id}; copy the folder again"
        )
    if (folder / PREPROCESSOR).is_file():
        found = read_json(folder / PREPROCESSOR)
        require_normalisation(folder / PREPROCESSOR, found.get("image_mean"), found.get("image_std"))
        require(folder / PREPROCESSOR, found, {"resample": BICUBIC}, "the preprocessor")
    theirs = read_tensors(folder / FILE)
    for name in LEGACY_BUFFERS:
        theirs.pop(name, None)
    return make_weights(folder / FILE, config, _ours(config, theirs)), tokenizer


def _config(path: Path, described: dict[str, Any]) -> ClipConfig:
    text = {**TEXT_DEFAULTS, **(described.get("text_config") or {})}
    vision = {**VISION_DEFAULTS, **(described.get("vision_config") or {})}
    for where, tower in (("text_config", text), ("vision_config", vision)):
        wanted = {**TOWER, "intermediate_size": 4 * tower["hidden_size"], "num_channels": 3}
        require(path, tower, wanted, where)
    require(path, vision, {"hidden_act": text["hidden_act"]}, "vision_config")
    try:
        return ClipConfig(
            embed_dim=described.get("projection_dim", 512),
            vision=VitConfig(
                image_px=vision["image_size"],
                patch_px=vision["patch_size"],
                width=vision["hidden_size"],
                layers=vision["num_hidden_layers"],
                heads=vision["num_attention_heads"],
            ),
            text=TextConfig(
                context_length=text["max_position_embeddings"],
                vocab_size=text["vocab_size"],
                width=text["hidden_size"],
                layers=text["num_hidden_layers"],
                heads=text["num_attention_heads"],
            ),
            activation=text["hidden_act"],
        )
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _blocks(config: ClipConfig) -> list[tuple[str, str]]:
    """Name of each block, ours and theirs."""
    assert isinstance(config.vision, VitConfig)
    text = [(f"transformer.resblocks.{i}", f"text_model.encoder.layers.{i}") for i in range(config.text.layers)]
    vision = [
        (f"visual.transformer.resblocks.{i}", f"vision_model.encoder.layers.{i}") for i in range(config.vision.layers)
    ]
    return text + vision


def _renamed(config: ClipConfig) -> dict[str, str]:
    """Ours -> theirs, of the tensors that are the same in both."""
    in_blocks = {
        f"{ours}.{our_part}.{kind}": f"{theirs}.{their_part}.{kind}"
        for ours, theirs in _blocks(config)
        for our_part, their_part in IN_BLOCK.items()
        for kind in ("weight", "bias")
    }
    return NAMES | in_blocks


def _split(config: ClipConfig) -> dict[str, tuple[str, ...]]:
    """Ours -> theirs, of the projections that are one tensor here and three there."""
    return {
        f"{ours}.attn.in_proj_{kind}": tuple(f"{theirs}.self_attn.{letter}_proj.{kind}" for letter in "qkv")
        for ours, theirs in _blocks(config)
        for kind in ("weight", "bias")
    }


def _ours(config: ClipConfig, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names; what has none keeps its own, to be refused by it."""
    tensors, left = {}, dict(theirs)
    for ours, name in _renamed(config).items():
        if name in left:
            tensors[ours] = left.pop(name)
    for ours, name in TRANSPOSED.items():
        if name in left:
            tensors[ours] = left.pop(name).T
    for ours, names in _split(config).items():
        if all(name in left for name in names):
            tensors[ours] = torch.cat([left.pop(name) for name in names])
    return {**tensors, **left}


def _theirs(config: ClipConfig, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {theirs: ours[name] for name, theirs in _renamed(config).items()}
    tensors |= {theirs: ours[name].T.contiguous() for name, theirs in TRANSPOSED.items()}
    for name, names in _split(config).items():
        tensors |= {theirs: part.contiguous() for theirs, part in zip(names, ours[name].chunk(3), strict=True)}
    return tensors


def write(folder: Path, weights: Weights, tensors: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    """Write configuration, weights and image processor. Raises InputError for what the format cannot say."""
    config = weights.config
    vision = config.vision
    if not isinstance(vision, VitConfig):
        raise InputError("Hugging Face's CLIPModel has a vision transformer only; choose --format open_clip, or onnx")
    described = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "torch_dtype": str(tensors["visual.conv1.weight"].dtype).removeprefix("torch."),
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": float(weights.tensors["logit_scale"]),
        "text_config": {
            "model_type": "clip_text_model",
            "projection_dim": config.embed_dim,
            "vocab_size": config.text.vocab_size,
            "max_position_embeddings": config.text.context_length,
            **_tower(config.text.width, config.text.layers, config.text.heads, config.activation),
            "bos_token_id": tokenizer.end_id - 1,
            "eos_token_id": tokenizer.end_id,
            "pad_token_id": tokenizer.end_id,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "projection_dim": config.embed_dim,
            "image_size": vision.image_px,
            "patch_size": vision.patch_px,
            **_tower(vision.width, vision.layers, vision.heads, config.activation),
        },
    }
    side = {"height": vision.image_px, "width": vision.image_px}
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": vision.image_px},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN_RGB,
        "image_std": STD_RGB,
    }
    (folder / CONFIG).write_text(json.dumps(described, indent=2), encoding="utf-8")
    (folder / PREPROCESSOR).write_text(json.dumps(preprocessor, indent=2), encoding="utf-8")
    save_file(_theirs(config, tensors), folder / FILE, metadata={"format": "pt"})


def _tower(width: int, layers: int, heads: int, activation: str) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": activation,
        **TOWER,
    }
