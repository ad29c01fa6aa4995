"""What a run begins with: random weights or another run's, a learned tokenizer or one that was there before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from shards_for_model import write_shards
from small_runs import ALONE, SETTINGS, TEXT, TRAIN, VAL

from model.checkpoint import save_final
from model.clip import CLIP
from model.config import ClipConfig, PretrainConfig, ResNetConfig, VitConfig
from model.errors import InputError
from model.start import copy_weights, load_start
from model.tokenizer import Tokenizer
from model.training import prepare

VIT = VitConfig(image_px=32, patch_px=8, width=16, layers=1, heads=2)
RESNET = ResNetConfig(image_px=32, width=8, blocks=(1, 1, 1, 1), heads=4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("start") / "shards", TRAIN, VAL))


def configured(vision: Any = VIT, **fields: Any) -> PretrainConfig:
    model = ClipConfig(embed_dim=16, vision=vision, text=TEXT)
    return PretrainConfig(**{"name": "next", "dataset": "colours", "model": model, "train": SETTINGS, **fields})


def write_run(folder: Path, config: PretrainConfig) -> CLIP:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.model_dump_json())
    tokenizer = Tokenizer.train(["a red square"], 300, TEXT.context_length)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    torch.manual_seed(7)
    model = CLIP(config.model)
    save_final(folder, model, steps=1, samples_seen=1, loss=1.0, run_fingerprint="0")
    return model


@pytest.mark.parametrize("by_path", [False, True])
def test_a_run_starts_from_another_ones_weights_and_tokenizer(by_path: bool, shards: str, tmp_path: Path) -> None:
    before = write_run(tmp_path / "runs" / "first", configured())
    name = str(tmp_path / "runs" / "first") if by_path else "first"
    (tmp_path / "runs" / "next").mkdir()
    training = prepare(tmp_path / "runs" / "next", configured(start_from=name), shards, ALONE)
    assert training is not None and training.step == 0
    for one, other in zip(training.objective.towers.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    first = (tmp_path / "runs" / "first" / "tokenizer.json").read_bytes()
    assert (tmp_path / "runs" / "next" / "tokenizer.json").read_bytes() == first


def test_positions_are_interpolated_as_in_open_clip(tmp_path: Path) -> None:
    from open_clip.model import resize_pos_embed

    before = write_run(tmp_path / "first", configured())
    config = configured(VIT.model_copy(update={"image_px": 56}), start_from="first")
    model = CLIP(config.model)
    copy_weights(load_start(tmp_path / "next", config), model)
    expected = before.state_dict()
    resize_pos_embed(expected, SimpleNamespace(visual=SimpleNamespace(grid_size=(7, 7))))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)


def test_a_resnets_pool_is_interpolated_too(tmp_path: Path) -> None:
    before = write_run(tmp_path / "first", configured(RESNET))
    config = configured(RESNET.model_copy(update={"image_px": 96}), start_from="first")
    model = CLIP(config.model)
    copy_weights(load_start(tmp_path / "next", config), model)
    small, large = (each.visual.attnpool.positional_embedding for each in (before, model))  # type: ignore[union-attr]
    assert torch.equal(large[0], small[0]) and torch.equal(large[1:], small[1].expand(9, -1))  # from one place to nine


def test_a_start_that_does_not_fit_is_told(shards: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run, which start_from names; train it first, or import it"):
        prepare(tmp_path / "next", configured(start_from="first"), shards, ALONE)
    write_run(tmp_path / "first", configured())
    for wrong in (
        configured(RESNET, start_from="first"),
        configured(VIT.model_copy(update={"heads": 4}), start_from="first"),
    ):
        with pytest.raises(InputError, match="a run of another architecture"):
            prepare(tmp_path / "next", wrong, shards, ALONE)


def test_a_run_keeps_clips_tokenizer(shards: str, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    (tmp_path / "run").mkdir()
    with pytest.raises(
        InputError, match=r"model\.text\.vocab_size is 300, but the tokenizer 'clip' has 49,408 entries"
    ):
        prepare(tmp_path / "run", configured(tokenizer="clip"), shards, ALONE)
    text = TEXT.model_copy(update={"vocab_size": 49_408})
    model = ClipConfig(embed_dim=16, vision=VIT, text=text)
    training = prepare(tmp_path / "run", configured(tokenizer="clip", model=model), shards, ALONE)
    assert training is not None and training.tokenizer.cleans_as_official
    saved = Tokenizer.load(tmp_path / "run" / "tokenizer.json", 16)
    assert saved.encode(["a red cat"]).tolist() == [[49_406, 320, 736, 2_368, 49_407]]
