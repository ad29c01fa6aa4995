"""The zero-shot classifier of 1,000 classes x 80 prompts against open_clip's build_zero_shot_classifier, on the same tower.

    python -m benchmarks.bench_zero_shot --width 64 --layers 2 --classes 1000

Class names and templates are OpenAI's for ImageNet, from the installed open_clip_torch. The tower is small and random, its
weights carried over by model/weights. Tokens are CLIP's own on both sides, and making them is part of the time. In each round
we build the vectors of a part of the classes, then open_clip those of every tenth of them (`--every`): it builds ten classes at a
time, all texts as long as the context, so that its time is proportional to the classes. One thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

from model.checkpoint import TOKENIZER, save_final
from model.clip import CLIP
from model.config import ClipConfig, PretrainConfig, TextConfig, VitConfig
from model.evaluation.classifier_file import build_classifier
from model.tokenizer import Tokenizer
from model.use.loading import load_model
from model.weights.folders import export_weights

AIM, TOLERANCE = 4.0, 1e-5


class Clock:
    """Seconds of the processor and of the wall, added up."""

    def __init__(self) -> None:
        self.processor_s = self.wall_s = 0.0

    def time(self, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        processor, wall = time.process_time(), time.perf_counter()
        found = work()
        self.processor_s += time.process_time() - processor
        self.wall_s += time.perf_counter() - wall
        return found


def write_model(folder: Path, width: int, layers: int) -> None:
    """A run of random weights with CLIP's own vocabulary, and the same in open_clip's format."""
    config = ClipConfig(
        embed_dim=width,
        vision=VitConfig(image_px=32, patch_px=16, width=64, layers=1, heads=1),
        text=TextConfig(width=width, layers=layers, heads=max(1, width // 64)),
    )
    run = folder / "run"
    run.mkdir()
    torch.manual_seed(0)
    described = PretrainConfig(name="bench", dataset="none", tokenizer="clip", model=config)
    (run / "config.json").write_text(described.model_dump_json())
    (run / TOKENIZER).write_text(Tokenizer.ready_made("clip", 77).to_json(), encoding="utf-8")
    save_final(run, CLIP(config), steps=0, samples_seen=0, loss=None, run_fingerprint="bench")
    export_weights(run, folder / "open_clip", "open_clip", "fp32")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=4, help="into how many the classes are cut")
    parser.add_argument("--every", type=int, default=10, help="which of the classes the peer builds; 1 = all")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    names = list(IMAGENET_CLASSNAMES[: chosen.classes])
    templates = [template("{c}") for template in OPENAI_IMAGENET_TEMPLATES]
    with tempfile.TemporaryDirectory() as scratch:
        write_model(Path(scratch), chosen.width, chosen.layers)
        loaded = load_model(Path(scratch) / "run")
        peer = open_clip.create_model(f"local-dir:{scratch}/open_clip").eval()
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    ours, theirs, differences, peer_classes = Clock(), Clock(), [], 0
    step = -(-len(names) // chosen.rounds)
    for start in range(0, len(names), step):
        part = names[start : start + step]
        some = part[:: chosen.every]
        ours_DC = ours.time(
            lambda part=part: build_classifier(loaded.embedder, part, templates, loaded.scale).weights_DC
        )
        theirs_DC = theirs.time(
            lambda some=some: open_clip.build_zero_shot_classifier(peer, tokenize, some, OPENAI_IMAGENET_TEMPLATES)
        )
        differences.append(float((ours_DC[:, :: chosen.every] - theirs_DC).abs().max()))
        peer_classes += len(some)
    prompts = len(templates)
    ratio, wall_ratio = (
        (other / peer_classes) / (own / len(names))
        for other, own in ((theirs.processor_s, ours.processor_s), (theirs.wall_s, ours.wall_s))
    )
    print(f"{len(names):,} classes x {prompts} prompts, text tower of width {chosen.width}, {chosen.layers} layers\n")
    print("| | classes built | processor, s | wall, s | prompts per processor second |\n|---|---|---|---|---|")
    for name, clock, classes in (
        (f"open_clip {open_clip.__version__}", theirs, peer_classes),
        ("ours", ours, len(names)),
    ):
        rate = classes * prompts / clock.processor_s
        print(f"| {name} | {classes:,} | {clock.processor_s:.1f} | {clock.wall_s:.1f} | {rate:,.0f} |")
    print(f"\n{ratio:.1f} times faster by the processor, {wall_ratio:.1f} by the clock (aim {AIM:g}).")
    print(f"Largest difference of a number: {max(differences):.1e} (aim {TOLERANCE:g}).")
    return int(ratio < AIM or max(differences) > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
