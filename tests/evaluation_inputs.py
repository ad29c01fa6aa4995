"""What an evaluation needs, small and real: an evaluation set, shards with captions, a run of random weights."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from model.checkpoint import save_final
from model.config import ClipConfig, PretrainConfig, TextConfig, TrainConfig, VitConfig
from model.objectives.build import build_objective
from model.tokenizer import Tokenizer

COLOURS = {"red": (210, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210), "yellow": (220, 210, 50)}
TEMPLATES = ("a photo of a {c}", "{c}", "this is {c}.")


def picture(colour: str, number: int, ending: str = "jpg") -> bytes:
    """A noisy image of one colour; another number is another image."""
    noise = np.random.default_rng(number).integers(-30, 30, (36, 40, 3))
    buffer = io.BytesIO()
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[ending])
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """A plain tar of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_set(
    folder: Path,
    tars: Sequence[Sequence[tuple[str, bytes]]] | None = None,
    class_names: Sequence[str] = tuple(COLOURS),
    templates: Sequence[str] = TEMPLATES,
) -> Path:
    """An evaluation set in the wds layout: two tars of six images, if no other is given."""
    colours = list(COLOURS)
    if tars is None:
        tars = [
            [
                member
                for number in range(first, first + 6)
                for member in (
                    (f"{number:04d}.jpg", picture(colours[number % 4], number)),
                    (f"{number:04d}.cls", str(number % 4).encode()),
                )
            ]
            for first in (0, 6)
        ]
    for index, members in enumerate(tars):
        write_tar(folder / "test" / f"{index}.tar", members)
    (folder / "test" / "nshards.txt").write_text(f"{len(tars)}\n")
    (folder / "classnames.txt").write_text("\n".join(class_names) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
    return folder


def write_split(folder: Path, per_class: int, first: int) -> Path:
    """A train or val split beside the test split: `per_class` images of each colour, numbered from `first`."""
    members = [
        member
        for number in range(first, first + 4 * per_class)
        for member in (
            (f"{number:04d}.jpg", picture(list(COLOURS)[number % 4], number)),
            (f"{number:04d}.cls", str(number % 4).encode()),
        )
    ]
    write_tar(folder / "0.tar", members)
    (folder / "nshards.txt").write_text("1\n")
    return folder


def write_shards(folder: Path, train: Sequence[Sequence[str]], val: Sequence[Sequence[str]] = ()) -> Path:
    """Shards as docs/shards.md says: one image for each list of captions."""
    splits: dict[str, Any] = {}
    for split, captions in (("train", train), ("val", val)):
        if not captions:
            continue
        members = []
        for number, own in enumerate(captions):
            key, colour = f"{number:09d}", list(COLOURS)[number % 4]
            url = f"http://site.test/{split}/{key}.jpg"
            record = json.dumps({"pair_id": key, "url": url, "captions": list(own)}).encode()
            image = picture(colour, 1_000 * len(split) + number)
            members += [(f"{key}.jpg", image), (f"{key}.txt", own[0].encode()), (f"{key}.json", record)]
        tar_path = folder / split / "000000.tar"
        write_tar(tar_path, members)
        with tarfile.open(tar_path) as tar:
            infos = tar.getmembers()
        rows = [
            {"key": infos[first].name.split(".")[0]}
            | {
                f"{what}_{field}": value
                for what, info in zip(("image", "text", "json"), infos[first : first + 3], strict=True)
                for field, value in (("offset", info.offset_data), ("size", info.size))
            }
            for first in range(0, len(infos), 3)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / split / "000000.index.parquet")
        pq.write_table(pa.table({"caption": [own[0] for own in captions]}), folder / split / "samples.parquet")
        shard = {"file": f"{split}/000000.tar", "index": f"{split}/000000.index.parquet", "samples": len(captions)}
        shard["sha256"] = hashlib.sha256(tar_path.read_bytes()).hexdigest()
        splits[split] = {"samples": len(captions), "shards": [shard]}
    manifest = {
        "format_version": 1,
        "name": "colours",
        "config": {"name": "colours"},
        "funnel": [{"stage": "pair_verdicts", "rows_in": 40, "rows_kept": 32, "dropped": {"short_caption": 8}}],
        "splits": splits,
        "tools": {"pillow": "1.2.3"},
        "digest": hashlib.sha256(json.dumps(splits).encode()).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_run(folder: Path, seed: int = 0, objective: dict[str, Any] | None = None, image_px: int = 32) -> Path:
    """A finished run of random weights, of CLIP's objective or another."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = [f"a photo of a {colour} thing" for colour in COLOURS] * 3
    tokenizer = Tokenizer.train(captions, vocab_size=300, context_length=16)
    config = PretrainConfig(
        name="random",
        dataset="colours",
        model=ClipConfig(
            embed_dim=8,
            vision=VitConfig(image_px=image_px, patch_px=16, width=16, layers=1, heads=2),
            text=TextConfig(context_length=16, vocab_size=300, width=16, layers=1, heads=2),
        ),
        train=TrainConfig(global_batch=8),
        objective=objective or {"kind": "contrastive"},
    )
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    metrics = [
        {"kind": "train", "step": step, "loss": 2 - step / 10, "learning_rate": 1e-3, "logit_scale": 14.3}
        for step in range(1, 6)
    ]
    recalls = {"image_to_text_recall_at_1": 0.2, "text_to_image_recall_at_1": 0.1, "samples": 4}
    metrics.append({"kind": "validation", "step": 5, "epoch": 1, "loss": 1.9, **recalls})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    torch.manual_seed(seed)
    save_final(folder, build_objective(config), steps=5, samples_seen=40, loss=1.5, run_fingerprint="0" * 64)
    return folder


def write_config(out: Path, sets: Sequence[Path], **fields: object) -> Path:
    """OUT/config.json."""
    out.mkdir(parents=True, exist_ok=True)
    config = {
        "name": "colours",
        "run": "random",
        "evaluation_sets": [str(folder) for folder in sets],
        "batch": 4,
        **fields,
    }
    (out / "config.json").write_text(json.dumps(config))
    return out
