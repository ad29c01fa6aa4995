"""The pass over images: several models at once, parts that outlive a kill, progress, and texts by their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from evaluation_inputs import picture, write_run

from model.checkpoint import load_run
from model.data import normalise
from model.data.shards import Folder
from model.evaluation import embed
from model.evaluation.embed import Embedder, batches_of_tokens, cached_by_each
from model.evaluation.feature_cache import Embedded
from model.evaluation.images import ImageRef, pixels
from model.evaluation.passes import Progress

BROKEN = (4, 5)


@dataclass
class CountingFolder(Folder):
    """Which files were read, in order."""

    root: Path
    read_names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(str(self.root))

    def read(self, name: str, start: int, size: int) -> bytes:
        self.read_names.append(name)
        return super().read(name, start, size)


@dataclass(frozen=True)
class Setting:
    """Two models, and 24 images of which two cannot be read."""

    folder: CountingFolder
    models: list[Embedder]
    images: list[tuple[str, ImageRef]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    root = tmp_path_factory.mktemp("embed")
    few = [picture("red", number) for number in range(7)]
    for number in range(24):
        (root / f"{number:03d}.jpg").write_bytes(b"no image" if number in BROKEN else few[number % 7])
    runs = [load_run(write_run(root / f"run{seed}", seed)) for seed in (0, 1)]
    models = [
        Embedder(run.objective, run.tokenizer, str(seed) * 64, 32, torch.device("cpu"), 4)
        for seed, run in enumerate(runs)
    ]
    folder = CountingFolder(root)
    images = [(path.stem, ImageRef(folder, path.name, 0, path.stat().st_size)) for path in sorted(root.glob("*.jpg"))]
    return Setting(folder, models, images)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch, made: Setting) -> None:
    monkeypatch.setattr(embed, "PART_IMAGES", 2)
    made.folder.read_names.clear()


def one_by_one(model: Embedder, made: Setting, rows: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat(
            [
                model.towers.encode_image_twice(
                    normalise(torch.from_numpy(pixels(made.images[row][1].read(), 32).copy())[None])
                )[1]
                for row in rows
            ]
        )


def embed_some(made: Setting, caches: list[Path], say: embed.Say, first: int = 0) -> list[Embedded]:
    return cached_by_each(made.models[: len(caches)], caches, "some", "digest", made.images[first:], say)


def test_two_models_see_each_image_once_and_each_as_alone(made: Setting, small_parts: None, tmp_path: Path) -> None:
    caches = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    both = embed_some(made, caches, lambda _: None, first=12)
    assert sorted(made.folder.read_names) == [f"{number:03d}.jpg" for number in range(12, 24)]
    for model, found in zip(made.models, both, strict=True):
        assert found.rows == list(range(12))
        torch.testing.assert_close(found.features, one_by_one(model, made, list(range(12, 24))), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[0].features, both[1].features, atol=1e-2)
    # Another pass for a third cache reads them again, and only for the model that lacks them.
    made.folder.read_names.clear()
    caches[1] = tmp_path / "2.safetensors"
    again = embed_some(made, caches, lambda _: None, first=12)
    assert len(made.folder.read_names) == 12
    assert all(torch.equal(one.features, other.features) for one, other in zip(both, again, strict=True))
    assert caches[1].read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors", "2.safetensors"]


def test_a_killed_pass_goes_on_where_it_was(made: Setting, small_parts: None, tmp_path: Path) -> None:
    def kill(line: str) -> None:
        if "7/12" in line or "8/12" in line:
            raise KeyboardInterrupt

    caches = [tmp_path / "killed.safetensors"]
    with pytest.raises(KeyboardInterrupt):
        embed_some(made, caches, kill, first=12)
    assert not caches[0].exists()
    made.folder.read_names.clear()
    lines: list[str] = []
    (found,) = embed_some(made, caches, lines.append, first=12)
    # Three parts of two were whole; the fourth was under way.
    assert sorted(made.folder.read_names) == [f"{number:03d}.jpg" for number in range(18, 24)]
    assert lines[0].startswith("embedding some 8/12")
    (whole,) = embed_some(made, [tmp_path / "whole.safetensors"], lambda _: None, first=12)
    assert torch.equal(found.features, whole.features) and found.rows == whole.rows
    assert caches[0].read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_part_without_a_readable_image(
    made: Setting, small_parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "MAX_UNREADABLE_SHARE", 0.1)  # else one such part needs two hundred images beside it
    (found,) = embed_some(made, [tmp_path / "all.safetensors"], lambda _: None)
    assert found.rows == [number for number in range(24) if number not in BROKEN]
    assert [(each.key, each.reason) for each in found.unreadable] == [
        ("004", "not an image that can be decoded"),
        ("005", "not an image that can be decoded"),
    ]
    assert found.features.shape == (22, 8) and found.before.shape == (22, 16)


def test_time_left() -> None:
    now, lines = 100.0, []
    progress = Progress("embedding photos", 100_000, 20_000, lines.append, lambda: now)
    for after_s, images in ((100.0, 10_000), (200.0, 100), (700.0, 69_700), (701.0, 200)):
        now = 100.0 + after_s
        progress.add(images)
    # 10,000 in 100 s leave 70,000 for 700 s; 100 images more are not worth a line.
    assert lines == [
        "embedding photos 30000/100000, 12 min left",
        "embedding photos 99800/100000",
        "embedding photos 100000/100000",
    ]


def test_texts_of_like_length_share_a_batch() -> None:
    rows = [(1,) * length for length in sorted([3] * 6000 + [5] * 10 + [70] * 300)]
    batches = batches_of_tokens(rows)
    assert [row for batch in batches for row in batch] == rows
    assert all(len(batch) * len(batch[-1]) <= embed.TOKENS_AT_ONCE for batch in batches)
    padding = sum(len(batch) * len(batch[-1]) - sum(map(len, batch)) for batch in batches)
    assert padding < 0.2 * sum(map(len, rows))
