"""Weights to and from other programs: the same features there and here, whichever way they went."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_inputs import COLOURS, write_config, write_set, write_shards
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoint import Run, load_run, save_final
from model.clip import CLIP
from model.config import Activation, ClipConfig, PretrainConfig, ResNetConfig, TextConfig, TorchvisionConfig, VitConfig
from model.data.images import MEAN_RGB, STD_RGB
from model.evaluation.__main__ import main as evaluate
from model.tokenizer import Tokenizer
from model.weights.__main__ import main
from model.weights.onnx_files import write_tower

CAPTIONS = [f"a photo of a {colour} thing" for colour in COLOURS] * 3
TEXTS = ["a red thing", "A photo of a BLUE thing, isn't it?", "green"]
VIT = VitConfig(image_px=32, patch_px=8, width=128, layers=2, heads=2)
RESNET = ResNetConfig(image_px=64, width=8, blocks=(2, 1, 1, 1), heads=4)
TEXT = TextConfig(context_length=20, vocab_size=300, width=64, layers=2, heads=1)


def config(
    vision: VitConfig | ResNetConfig | TorchvisionConfig = VIT, activation: Activation = "quick_gelu"
) -> ClipConfig:
    return ClipConfig(embed_dim=24, vision=vision, text=TEXT, activation=activation)


def write_run(folder: Path, model_config: ClipConfig, tokenizer: str = "trained") -> Run:
    """A finished run whose every weight is random: norms and running statistics too, and no block is its shortcut."""
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    if tokenizer == "trained":
        made = Tokenizer.train(CAPTIONS, 280, model_config.text.context_length)  # fewer entries than the model has rows
    else:
        made = Tokenizer.ready_made(tokenizer, model_config.text.context_length)
    model = CLIP(model_config)
    for name, tensor in model.state_dict().items():
        of_norm = name.endswith(("running_var", "running_mean", "bias")) or "ln_" in name or "bn" in name
        if of_norm and tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand_like(tensor))
    run_config = PretrainConfig(name=folder.name, dataset="colours", tokenizer=tokenizer, model=model_config)
    (folder / "config.json").write_text(run_config.model_dump_json())
    (folder / "tokenizer.json").write_text(made.to_json(), encoding="utf-8")
    save_final(folder, model, steps=1, samples_seen=1, loss=1.0, run_fingerprint="0" * 64)
    return load_run(folder)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """Copies of a run that was exported once to each format."""
    root = tmp_path_factory.mktemp("exported")
    write_run(root / "run", config())

    def copy(to: str, folder: Path) -> Path:
        if not (root / to).exists():
            weights("export", root / "run", root / to, "--format", to)
        return shutil.copytree(root / to, folder)

    return copy


def weights(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def images(run: Run) -> Tensor:
    side = run.config.model.vision.image_px
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def assert_same_features(run: Run, encode_image: Callable[[Tensor], Any], encode_text: Callable[[Tensor], Any]) -> None:
    """Unit features, ours and a peer's, within 1e-5. The peers want texts of the whole length."""
    tokens_BL = torch.nn.functional.pad(run.tokenizer.encode(TEXTS), (0, run.config.model.text.context_length))
    tokens_BL = tokens_BL[:, : run.config.model.text.context_length]
    with torch.no_grad():
        ours = run.model(images(run), tokens_BL)
        theirs = (encode_image(images(run)), encode_text(tokens_BL))
    for one, other in zip(ours, theirs, strict=False):
        torch.testing.assert_close(one, torch.nn.functional.normalize(other), atol=1e-5, rtol=0)


def peer_of(model_config: ClipConfig) -> Any:
    """The same architecture in open_clip, random weights."""
    open_clip = pytest.importorskip("open_clip")
    vision = model_config.vision
    if isinstance(vision, VitConfig):
        described = {"image_size": vision.image_px, "patch_size": vision.patch_px, "width": vision.width}
        described |= {"layers": vision.layers, "head_width": vision.width // vision.heads}
    else:
        assert isinstance(vision, ResNetConfig)
        described = {"image_size": vision.image_px, "width": vision.width, "layers": list(vision.blocks)}
    torch.manual_seed(4)
    return open_clip.CLIP(
        model_config.embed_dim,
        described,
        model_config.text.model_dump(),
        quick_gelu=model_config.activation == "quick_gelu",
    ).eval()


@pytest.mark.parametrize(
    ("vision", "activation"),
    [(VIT, "quick_gelu"), (VIT, "gelu"), (RESNET, "quick_gelu"), (RESNET, "gelu")],
)
def test_open_clip_loads_what_we_save(vision: Any, activation: Activation, tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    run = write_run(tmp_path / "run", config(vision, activation))
    weights("export", tmp_path / "run", tmp_path / "out", "--format", "open_clip")
    peer = open_clip.create_model(f"local-dir:{tmp_path / 'out'}").eval()
    assert_same_features(run, peer.encode_image, peer.encode_text)
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")
    assert [ids[: ids.index(run.tokenizer.end_id) + 1] for ids in tokenize(TEXTS).tolist()] == (
        run.tokenizer.encode_ids(TEXTS)[0]
    )
    weights("import", tmp_path / "out", tmp_path / "back", "--dataset", "colours")
    back = load_run(tmp_path / "back")
    assert back.config.model == run.config.model
    assert_same_features(back, run.model.encode_image, run.model.encode_text)


@pytest.mark.parametrize("vision", [VIT, RESNET])
def test_we_load_what_open_clip_saves(vision: Any, tmp_path: Path) -> None:
    from open_clip.push_to_hf_hub import save_config_for_hf

    model_config = config(vision, "gelu").model_copy(update={"text": TEXT.model_copy(update={"vocab_size": 49_408})})
    peer = peer_of(model_config)
    described = {"embed_dim": 24, "text_cfg": model_config.text.model_dump(), "vision_cfg": {}}
    described["vision_cfg"] = (
        {"image_size": 32, "patch_size": 8, "width": 128, "layers": 2}
        if isinstance(vision, VitConfig)
        else {"image_size": 64, "width": 8, "layers": [2, 1, 1, 1]}
    )
    folder = tmp_path / "open_clip"
    folder.mkdir()
    peer.visual.image_mean, peer.visual.image_std = MEAN_RGB, STD_RGB
    save_config_for_hf(peer, folder / "open_clip_config.json", described)
    save_file(peer.state_dict(), folder / "open_clip_model.safetensors")
    weights("import", folder, tmp_path / "run", "--dataset", "colours")
    run = load_run(tmp_path / "run")
    assert run.config.model == model_config and run.tokenizer.cleans_as_official
    assert_same_features(run, peer.encode_image, peer.encode_text)


def test_a_text_tower_that_open_clip_keeps_apart(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    described = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 128, "layers": 1},
        "text_cfg": {**TEXT.model_dump(), "vocab_size": 49_408},
        "custom_text": True,
    }
    peer = open_clip.CustomTextCLIP(24, described["vision_cfg"], described["text_cfg"]).eval()
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": described}))
    save_file(peer.state_dict(), tmp_path / "open_clip_model.safetensors")
    weights("import", tmp_path, tmp_path / "run", "--dataset", "colours")
    assert_same_features(load_run(tmp_path / "run"), peer.encode_image, peer.encode_text)


@pytest.mark.parametrize("vision", [VIT, RESNET])
def test_openais_state_dicts(vision: Any, tmp_path: Path) -> None:
    """open_clip's function for them reads the architecture from the shapes, as the official code does."""
    from open_clip.model import build_model_from_openai_state_dict

    run = write_run(tmp_path / "run", config(vision))
    weights("export", tmp_path / "run", tmp_path / "out", "--format", "openai")
    saved = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    peer = build_model_from_openai_state_dict(dict(saved), cast_dtype=torch.float32).float()  # it was rounded to fp16
    peer.load_state_dict(saved)
    assert_same_features(run, peer.encode_image, peer.encode_text)
    theirs = {**peer.state_dict(), "input_resolution": torch.tensor(32), "vocab_size": torch.tensor(300)}
    torch.save(theirs, tmp_path / "out" / "model.pt")
    weights("import", tmp_path / "out", tmp_path / "back", "--dataset", "colours")
    back = load_run(tmp_path / "back")
    assert back.config.model == run.config.model and back.tokenizer.to_json() == run.tokenizer.to_json()
    assert_same_features(back, peer.encode_image, peer.encode_text)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_hugging_face_loads_what_we_save(activation: Activation, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run = write_run(tmp_path / "run", config(VIT, activation))
    out = tmp_path / "out"
    weights("export", tmp_path / "run", out, "--format", "hugging_face")
    peer = transformers.CLIPModel.from_pretrained(out).eval()
    assert_same_features(
        run,
        lambda image_BCHW: peer(pixel_values=image_BCHW, input_ids=run.tokenizer.encode(["a"])).image_embeds,
        lambda tokens_BL: peer(pixel_values=images(run)[:1], input_ids=tokens_BL).text_embeds,
    )
    assert peer.logit_scale.item() == pytest.approx(run.model.logit_scale.item())
    for tokenize in (
        transformers.AutoTokenizer.from_pretrained(out),
        transformers.CLIPProcessor.from_pretrained(out).tokenizer,
    ):
        assert tokenize(TEXTS, truncation=True, max_length=20)["input_ids"] == run.tokenizer.encode_ids(TEXTS)[0]
    weights("import", out, tmp_path / "back", "--dataset", "colours")
    back = load_run(tmp_path / "back")
    assert back.config.model == run.config.model and back.tokenizer.encode_ids(TEXTS) == run.tokenizer.encode_ids(TEXTS)
    assert_same_features(back, run.model.encode_image, run.model.encode_text)


def test_hugging_faces_processor_sees_the_same_pixels(exported: Callable[[str, Path], Path], tmp_path: Path) -> None:
    from PIL import Image

    from model.data.images import normalise, square

    transformers = pytest.importorskip("transformers")
    processor = transformers.CLIPProcessor.from_pretrained(exported("hugging_face", tmp_path / "out"))
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    theirs = processor(images=Image.fromarray(pixels_HWC), return_tensors="pt")["pixel_values"]
    ours = normalise(torch.from_numpy(square(pixels_HWC, 32).copy())[None])
    torch.testing.assert_close(ours.contiguous(), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("end_id", [299, 2])
def test_we_load_what_hugging_face_saves(end_id: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run = write_run(tmp_path / "run", config())
    weights("export", tmp_path / "run", tmp_path / "out", "--format", "hugging_face")  # for its tokenizer
    end_id = run.tokenizer.end_id if end_id == 299 else end_id  # 2: configurations of before
    peer_config = transformers.CLIPConfig(
        projection_dim=24,
        text_config={**tower(64, 1), "vocab_size": 300, "max_position_embeddings": 20, "eos_token_id": end_id},
        vision_config={**tower(128, 2), "image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(5)
    peer = transformers.CLIPModel(peer_config).eval()
    peer.save_pretrained(tmp_path / "out")
    weights("import", tmp_path / "out", tmp_path / "back", "--dataset", "colours")
    back = load_run(tmp_path / "back")
    assert back.config.model == config(activation="gelu")
    assert_same_features(
        back,
        lambda image_BCHW: peer(pixel_values=image_BCHW, input_ids=run.tokenizer.encode(["a"])).image_embeds,
        lambda tokens_BL: peer(pixel_values=images(run)[:1], input_ids=tokens_BL).text_embeds,
    )


def tower(width: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
    }


@pytest.mark.parametrize("to", ["openai", "open_clip", "hugging_face"])
def test_fp16_files_hold_the_model_rounded(to: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", config())
    weights("export", tmp_path / "run", tmp_path / "out", "--format", to, "--dtype", "fp16")
    weights("import", tmp_path / "out", tmp_path / "back", "--dataset", "colours")
    before, after = run.model.state_dict(), load_run(tmp_path / "back").model.state_dict()
    halved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    for name in halved:
        torch.testing.assert_close(after[name], before[name].half().float(), atol=0, rtol=0)
    assert {"visual.proj", "visual.conv1.weight", "transformer.resblocks.1.attn.in_proj_weight"} <= halved
    assert not any("ln_" in name or "embedding" in name or name == "logit_scale" for name in halved)


def test_an_imported_model_is_evaluated(tmp_path: Path) -> None:
    write_run(tmp_path / "run", config())
    weights("export", tmp_path / "run", tmp_path / "out", "--format", "open_clip")
    weights("import", tmp_path / "out", tmp_path / "imported", "--dataset", "colours")
    write_set(tmp_path / "set" / "colours")
    write_shards(tmp_path / "shards", train=[[caption] for caption in CAPTIONS], val=[["a red thing"], ["a blue one"]])
    results = []
    for name in ("run", "imported"):
        out = write_config(tmp_path / f"evaluation-{name}", [tmp_path / "set" / "colours"])
        assert evaluate([str(out), "--run", str(tmp_path / name), "--shards", str(tmp_path / "shards")]) == 0
        results.append((out / "results" / "colours.json").read_text())
    assert results[0] == results[1]


@pytest.mark.slow
def test_onnx_gives_the_same_features_for_any_batch(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    one_block = ClipConfig(
        embed_dim=24, vision=VIT.model_copy(update={"layers": 1}), text=TEXT.model_copy(update={"layers": 1})
    )
    run = write_run(tmp_path / "run", one_block)
    weights("export", tmp_path / "run", tmp_path / "out", "--format", "onnx")
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    tokens_BL = torch.zeros(7, about["tokens"]["shape"][1], dtype=torch.int64)
    for row, ids in enumerate(run.tokenizer.encode_ids([*TEXTS, "", *TEXTS])[0]):
        tokens_BL[row, : len(ids)] = torch.tensor(ids)
    assert_same_onnx(
        tmp_path / "out" / "image.onnx", torch.randn(7, *about["pixels"]["shape"][1:]), run.model.encode_image
    )
    assert_same_onnx(tmp_path / "out" / "text.onnx", tokens_BL, run.model.encode_text)
    assert about["features"]["scale"] == pytest.approx(run.model.logit_scale.exp().item())


class SideBySide(torch.nn.Module):
    """Several towers that see the same images, as one: of an export, much is spent before it comes to the tower."""

    def __init__(self, towers: Iterable[torch.nn.Module]) -> None:
        super().__init__()
        self.towers = torch.nn.ModuleList(towers)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return torch.cat([tower(image_BCHW) for tower in self.towers], dim=1)


@pytest.mark.slow
def test_the_other_image_towers_as_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    others = (RESNET, TorchvisionConfig(name="resnet18", image_px=64))
    both = SideBySide(write_run(tmp_path / vision.kind, config(vision)).model.visual for vision in others)
    write_tower(tmp_path / "image.onnx", both, "pixels", torch.zeros(2, 3, 64, 64))
    image_BCHW = torch.randn(7, 3, 64, 64)
    assert both(image_BCHW).shape == (7, 48)
    assert_same_onnx(tmp_path / "image.onnx", image_BCHW, both)


def assert_same_onnx(path: Path, batch: Tensor, encode: Callable[[Tensor], Tensor]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in (1, 7):
        with torch.no_grad():
            expected = encode(batch[:size])
        (found,) = session.run(["features"], {session.get_inputs()[0].name: batch[:size].numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=0)


def refuse(said: str, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    assert said in capsys.readouterr().err


def test_what_a_format_cannot_say_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    narrow = VitConfig(image_px=32, patch_px=8, width=96, layers=1, heads=3)
    for name, model_config, to, said in (
        ("gelu", config(VIT, "gelu"), "openai", "QuickGELU"),
        ("narrow", config(narrow), "openai", "the vision transformer has 32"),
        ("resnet", config(RESNET), "hugging_face", "vision transformer only"),
        ("plain", config(TorchvisionConfig(name="resnet18", image_px=32)), "open_clip", "--format onnx"),
    ):
        write_run(tmp_path / name, model_config)
        refuse(said, capsys, "export", tmp_path / name, tmp_path / "out", "--format", to)
        assert not (tmp_path / "out").exists()
    refuse("fp32 only", capsys, "export", tmp_path / "gelu", tmp_path / "out", "--format", "onnx", "--dtype", "fp16")
    refuse("is there already", capsys, "export", tmp_path / "gelu", tmp_path / "narrow", "--format", "open_clip")


@pytest.mark.parametrize(
    ("file", "path", "value", "said"),
    [
        ("open_clip_config.json", "model_cfg.vision_cfg.pool_type", "avg", "vision_cfg.pool_type is 'avg'"),
        ("open_clip_config.json", "model_cfg.vision_cfg.mlp_ratio", 4.3637, "vision_cfg.mlp_ratio is 4.3637"),
        ("open_clip_config.json", "model_cfg.init_logit_bias", -10, "model_cfg.init_logit_bias has no counterpart"),
        ("open_clip_config.json", "model_cfg.text_cfg.hf_model_name", "roberta-base", "text_cfg.hf_model_name is"),
        ("open_clip_config.json", "model_cfg.text_cfg.layers", 3, "transformer.resblocks.2"),
        ("open_clip_config.json", "model_cfg.embed_dim", 25, "text_projection is (64, 24), not (64, 25)"),
        ("open_clip_config.json", "preprocess_cfg.mean", [0.5, 0.5, 0.5], "normalised with mean [0.5, 0.5, 0.5]"),
        ("config.json", "text_config.hidden_act", "relu", "vision_config.hidden_act is 'quick_gelu'"),
        ("config.json", "vision_config.layer_norm_eps", 1e-6, "vision_config.layer_norm_eps is 1e-06"),
        ("config.json", "text_config.eos_token_id", 7, "text_config.eos_token_id is 7"),
        ("config.json", "model_type", "siglip", "model_type is 'siglip'"),
        ("preprocessor_config.json", "image_std", [0.5, 0.5, 0.5], "normalised with std"),
    ],
)
def test_what_we_cannot_represent_is_named(
    file: str,
    path: str,
    value: Any,
    said: str,
    exported: Callable[[str, Path], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = exported("open_clip" if file.startswith("open_clip") else "hugging_face", tmp_path / "out")
    described = json.loads((out / file).read_text())
    *parents, last = path.split(".")
    parent = described
    for name in parents:
        parent = parent[name]
    parent[last] = value
    (out / file).write_text(json.dumps(described))
    refuse(said, capsys, "import", out, tmp_path / "back", "--dataset", "colours")
    assert not (tmp_path / "back").exists()


def test_files_that_are_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(said: str) -> None:
        refuse(said, capsys, "import", tmp_path, tmp_path / "run", "--dataset", "colours")

    refused("neither open_clip_config.json nor config.json nor model.pt")
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    refused("torch.jit.load('model.pt'")
    torch.save({"epoch": 3, "state_dict": {}}, path)
    refused("not a plain state dict, names to tensors")
    torch.save({"weight": torch.zeros(2)}, path)
    refused("not a CLIP model in OpenAI's format ('text_projection')")
    path.write_bytes(b"nonsense")
    refused("model.pt: not a plain state dict")


def test_a_damaged_export_is_named(
    exported: Callable[[str, Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = exported("hugging_face", tmp_path / "out")
    tensors = load_file(out / "model.safetensors")
    del tensors["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    save_file(tensors, out / "model.safetensors")
    said = "transformer.resblocks.1.attn.in_proj_bias is missing; text_model.encoder.layers.1.self_attn.q_proj.bias is unknown"
    refuse(said, capsys, "import", out, tmp_path / "back", "--dataset", "colours")
    (out / "model.safetensors").write_bytes(b"\x00" * 20)
    refuse("damaged, or not safetensors", capsys, "import", out, tmp_path / "back", "--dataset", "colours")


def test_the_official_tokenizer_goes_out_as_clips(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    open_clip = pytest.importorskip("open_clip")
    model_config = config().model_copy(update={"text": TEXT.model_copy(update={"vocab_size": 49_408})})
    run = write_run(tmp_path / "run", model_config, tokenizer="clip")
    weights("export", tmp_path / "run", tmp_path / "face", "--format", "hugging_face")
    tokenize = transformers.AutoTokenizer.from_pretrained(tmp_path / "face")
    assert isinstance(tokenize, transformers.CLIPTokenizer)
    assert tokenize(TEXTS)["input_ids"] == run.tokenizer.encode_ids(TEXTS)[0]
    assert tokenize.decode(run.tokenizer.encode_ids(["a red thing"])[0][0], skip_special_tokens=True) == "a red thing"
    weights("export", tmp_path / "run", tmp_path / "open", "--format", "open_clip")
    assert isinstance(open_clip.get_tokenizer(f"local-dir:{tmp_path / 'open'}"), open_clip.SimpleTokenizer)


@pytest.mark.slow
def test_wit_brings_a_model_into_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows import cli

    monkeypatch.setenv("WIT_WORKSPACE", str(tmp_path / "workspace"))
    before = write_run(tmp_path / "run", config())
    weights("export", tmp_path / "run", tmp_path / "out", "--format", "openai")
    assert cli.run(["import-weights", str(tmp_path / "out"), "brought", "--dataset", "colours"]) == 0
    brought = load_run(tmp_path / "workspace" / "runs" / "brought")
    assert brought.config.dataset == "colours"
    assert_same_features(brought, before.model.encode_image, before.model.encode_text)
    assert cli.run(["export-weights", "brought"]) == 2
    assert "give a run and a new folder" in capsys.readouterr().err
    assert cli.run(["export-weights", "nobody", str(tmp_path / "new")]) == 2
    assert "runs/nobody: no run; name one that wit pretrain" in capsys.readouterr().err
    assert not (tmp_path / "workspace" / "runs" / "nobody").exists()
