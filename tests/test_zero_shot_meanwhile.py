"""Zero-shot accuracy while a run trains: on any number of processes what a loop over the images finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation_inputs import COLOURS, TEMPLATES, picture, write_set
from ranks import run_ranks
from shards_for_model import write_shards
from small_runs import ALONE, TEXT, TRAIN, go, metrics, new_run
from torch.nn.functional import normalize

from model.checkpoint import load_run
from model.config import ClipConfig, VitConfig
from model.data import normalise, preprocess
from model.errors import InputError

VIT = ClipConfig(embed_dim=16, vision=VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2), text=TEXT)
IMAGES = 11


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("meanwhile") / "shards", TRAIN))


def write_images(folder: Path, images: int = IMAGES, readable: bool = True) -> Path:
    """So many images of four colours; a share of 3 processes is not the same for all."""
    members = []
    for number in range(images):
        data = picture(list(COLOURS)[number % 4], number) if readable else b"no image"
        members += [(f"{number:04d}.jpg", data), (f"{number:04d}.cls", str(number % 4).encode())]
    return write_set(folder, [members], class_names=[*COLOURS, "grey"])


@torch.no_grad()
def slow_share_right(folder: Path) -> float:
    """One image and one prompt at a time (section 3.1.4)."""
    run = load_run(folder)
    classes = []
    for name in [*COLOURS, "grey"]:
        texts = [run.tokenizer.encode([template.replace("{c}", name)]) for template in TEMPLATES]
        mean_D = torch.stack([normalize(run.model.encode_text(tokens_1L)[0], dim=0) for tokens_1L in texts]).mean(0)
        classes.append(normalize(mean_D, dim=0))
    right = 0
    for number in range(IMAGES):
        pixels_HWC = preprocess(picture(list(COLOURS)[number % 4], number), 32)
        image_D = run.model.encode_image(normalise(torch.from_numpy(pixels_HWC.copy())[None]))[0]
        right += max(range(5), key=lambda label: float(image_D @ classes[label])) == number % 4
    return right / IMAGES


@pytest.mark.parametrize("world_size", [1, 3])
def test_lines_of_evaluation_are_what_a_loop_finds(world_size: int, shards: str, tmp_path: Path) -> None:
    sets = (str(write_images(tmp_path / "sets" / "colours")), str(write_images(tmp_path / "sets" / "few", images=2)))
    folder = new_run(tmp_path / "run", VIT, learning_rate=5e-3, evaluation_sets=sets, evaluate_every_epochs=2)
    assert run_ranks(world_size, go, folder, shards) == [True] * world_size
    lines = [line for line in metrics(folder) if line["kind"] == "evaluation"]
    assert [(line["epoch"], line["set"], line["images"]) for line in lines] == [
        (2, "colours", IMAGES),
        (2, "few", 2),
        (3, "colours", IMAGES),
        (3, "few", 2),
    ]
    assert lines[2]["top1"] == pytest.approx(slow_share_right(folder)) and 0 < lines[2]["top1"] < 1
    assert all(line["top5"] == 1 and line["unreadable"] == 0 for line in lines), "there are five classes"


def test_images_that_cannot_be_read_end_the_run(shards: str, tmp_path: Path) -> None:
    sets = (str(write_images(tmp_path / "broken", readable=False)),)
    folder = new_run(tmp_path / "run", VIT, epochs=1, evaluation_sets=sets)
    with pytest.raises(InputError, match="11 of the 11 images of broken cannot be read"):
        go(ALONE, folder, shards)


def test_an_objective_that_judges_no_texts_is_refused(shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", VIT, {"kind": "simclr"}, evaluation_sets=("a/b",))
    with pytest.raises(InputError, match=r"train\.evaluation_sets has a/b, but the objective simclr learns no match"):
        go(ALONE, folder, shards)
