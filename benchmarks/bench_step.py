"""A step of training: samples per second, ours against open_clip 3.3.0's, with the same weights, batch and precision.

    python -m benchmarks.bench_step                                  (a small model, one process)
    python -m benchmarks.bench_step --ranks 2                        (two processes over gloo)
    python -m benchmarks.bench_step --model vit-b-32 --batch 8 --rounds 2
    python -m benchmarks.bench_step --model vit-b-32 --batch 512 --precision bf16 --device cuda
    python -m benchmarks.bench_step --model vit-b-32 --batch 512 --precision bf16 --device cuda --compile

The peer's step is that of open_clip_train.train.train_one_epoch without its logging: its CLIP, ClipLoss (with several processes
local_loss and gather_with_grad under DDP, the setting whose gradients are right at scale), AdamW as its main.py builds it, the
clamp of the scale. Ours is model.step.train_step, with all that it guards. Both take tensors that are at hand: ours uint8
images, which it normalises, and captions as long as the batch's longest, as our loader hands them over; the peer
normalised float32 images and captions of 77, as its loader does. One step of each in turn, so that what else runs
disturbs both alike. With --compile both are compiled: ours by train.compile, the peer's whole model, as its --torchcompile
does, but that DDP's buckets do not cut it. What counts on a CPU is the time of the processor, the least of the rounds; on a
GPU the clock.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.made_shards import write_shards
from model import distributed
from model.config import ClipConfig, PretrainConfig, TextConfig, TrainConfig, VitConfig
from model.data import Batch, normalise
from model.distributed import Processes
from model.precision import autocast
from model.step import train_step
from model.training import Training, prepare

MODELS = {
    "small": ClipConfig(
        embed_dim=256,
        vision=VitConfig(width=256, layers=4, heads=4),
        text=TextConfig(width=256, layers=4, heads=4),
    ),
    "vit-b-32": ClipConfig(),
}
CAPTIONS = {"web": (12, 20), "full": (77, 77)}  # tokens, start and end included
AIMS = {"web": 1.25, "full": 1.0}
START, END = 49_406, 49_407
SAME_LOSS = 1e-3


def tokens_of(draw: np.random.Generator, batch: int, lengths: tuple[int, int]) -> Tensor:
    """Ids (batch, 77), padded with zeros."""
    tokens_BL = np.zeros((batch, 77), np.int64)
    for row, length in enumerate(draw.integers(lengths[0], lengths[1] + 1, batch)):
        tokens_BL[row, :length] = [START, *draw.integers(0, START, length - 2), END]
    return torch.from_numpy(tokens_BL)


class Peer:
    """open_clip's model, loss, optimiser and step."""

    def __init__(self, config: PretrainConfig, processes: Processes, weights: dict[str, Tensor]) -> None:
        from open_clip.loss import ClipLoss
        from open_clip.model import CLIP

        model, train = config.model, config.train
        assert isinstance(model.vision, VitConfig)
        vision = {
            "image_size": model.vision.image_px,
            "layers": model.vision.layers,
            "width": model.vision.width,
            "head_width": model.vision.width // model.vision.heads,
            "patch_size": model.vision.patch_px,
        }
        text = {
            "context_length": model.text.context_length,
            "vocab_size": model.text.vocab_size,
            "width": model.text.width,
            "heads": model.text.heads,
            "layers": model.text.layers,
        }
        self.model = CLIP(model.embed_dim, vision, text, quick_gelu=True, output_dict=True).to(processes.device)
        self.model.load_state_dict(weights)
        several = processes.world_size > 1
        self.loss = ClipLoss(
            local_loss=several,
            gather_with_grad=several,
            cache_labels=True,
            rank=processes.rank,
            world_size=processes.world_size,
        )
        self.wrapped: nn.Module = self.model
        if several:
            device_ids = [processes.device] if processes.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(self.model, device_ids=device_ids)
        if train.compile:
            self.wrapped.compile()
        named = list(self.model.named_parameters())
        kept = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
        are_kept = {id(p) for p in kept}
        groups = [
            {"params": kept, "weight_decay": 0.0},
            {"params": [p for _, p in named if id(p) not in are_kept], "weight_decay": train.weight_decay},
        ]
        betas = (train.adam_beta1, train.adam_beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, betas=betas, eps=train.adam_eps)
        self.autocast = partial(autocast, train.precision, processes.device)

    def step(self, image_BCHW: Tensor, tokens_BL: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        with self.autocast():
            losses = self.loss(**self.wrapped(image_BCHW, tokens_BL), output_dict=True)
            total: Tensor = sum(losses.values())
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, np.log(100))
        return total


def measured(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the processor, all threads of this process; on a GPU seconds of the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - began
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(training: Training, peer: Peer, captions: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step of ours and of the peer's. The first of each is not counted: memory is laid out in it."""
    processes = training.processes
    batch = training.order.global_batch // processes.world_size
    draw = np.random.default_rng(processes.rank)
    image_BHWC = torch.from_numpy(draw.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)).to(processes.device)
    tokens_BL = tokens_of(draw, batch, CAPTIONS[captions])
    trimmed_BL = tokens_BL[:, : int(tokens_BL.argmax(dim=1).max()) + 1].contiguous().to(processes.device)
    tokens_BL, image_BCHW = tokens_BL.to(processes.device), normalise(image_BHWC).contiguous()
    taken: dict[str, list[float]] = {"ours": [], "open_clip": []}
    for _ in range(rounds + 1):
        given = Batch(training.step, np.arange(batch), image_BHWC, trimmed_BL, 0, 0.0)
        taken["ours"].append(measured(partial(train_step, training, given), processes.device))
        training.step += 1
        taken["open_clip"].append(measured(partial(peer.step, image_BCHW, tokens_BL), processes.device))
    return {way: seconds[1:] for way, seconds in taken.items()}


def require_same_loss(training: Training, peer: Peer) -> None:
    """The peer holds our weights: one batch must have one loss, or the two do not compute the same thing."""
    draw = np.random.default_rng(0)
    image_BHWC = torch.from_numpy(draw.integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)).to(training.processes.device)
    tokens_BL = tokens_of(draw, 4, CAPTIONS["web"]).to(training.processes.device)
    with torch.no_grad():
        image_BD, text_BD, scale = training.objective.towers(normalise(image_BHWC), tokens_BL)
        theirs = peer.model(normalise(image_BHWC), tokens_BL)
        ours = scale * image_BD @ text_BD.T
        off = (ours - theirs["logit_scale"] * theirs["image_features"] @ theirs["text_features"].T).abs().max()
    if off > SAME_LOSS:
        raise SystemExit(f"the two models differ: logits by {off:.1e}")


def in_process(rank: int, port: int, options: argparse.Namespace, shards: Path, report: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(options.ranks), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    processes = distributed.start()
    steps = 2 * (options.rounds + 1)
    train = TrainConfig(
        epochs=steps,
        global_batch=options.batch * options.ranks,
        warmup_steps=1,
        precision=options.precision,
        compile=options.compile,
    )
    config = PretrainConfig(name="bench", dataset="made", tokenizer="clip", model=MODELS[options.model], train=train)
    training = prepare(report.parent / "run", config, str(shards), processes)
    assert training is not None
    peer = Peer(config, processes, training.objective.towers.state_dict())
    require_same_loss(training, peer)
    found = {captions: compare(training, peer, captions, options.rounds) for captions in options.captions}
    report.with_suffix(f".{rank}.json").write_text(json.dumps(found))
    distributed.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--batch", type=int, default=16, help="pairs of one process")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--captions", nargs="+", choices=CAPTIONS, default=list(CAPTIONS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and torch.cuda.device_count() < options.ranks:
        raise SystemExit(
            f"--device cuda: {torch.cuda.device_count()} GPUs for {options.ranks} processes; lower --ranks"
        )
    compiled = ", compiled" if options.compile else ""
    print(
        f"torch {torch.__version__}, {options.model}, {options.precision}, {options.ranks} x {options.batch} pairs{compiled}"
    )
    context = multiprocessing.get_context("forkserver" if options.device == "cpu" else "spawn")
    if options.device == "cpu":
        context.set_forkserver_preload(["model.training", "open_clip.model", "torch._dynamo"])
    with tempfile.TemporaryDirectory(prefix="wit-bench-step-") as name:
        folder = Path(name)
        write_shards(folder / "shards", options.batch * options.ranks, 32, 95, (5, 14))  # steps get their own
        (folder / "run").mkdir()
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        report = folder / "report"
        running = [
            context.Process(target=in_process, args=(rank, store.port, options, folder / "shards", report))
            for rank in range(options.ranks)
        ]
        for process in running:
            process.start()
        for process in running:
            process.join()
            if process.exitcode != 0:
                raise SystemExit(f"a process ended with exit code {process.exitcode}")
        found = [json.loads(report.with_suffix(f".{rank}.json").read_text()) for rank in range(options.ranks)]
    unit = "s" if options.device == "cuda" else "processor s"
    print(f"{'captions':9} {'ours, pairs / ' + unit:>26} {'open_clip':>10} {'ratio':>6} {'aim':>5}")
    reached = True
    for captions in options.captions:
        # Of a GPU's processes the slowest counts, of a CPU's all together.
        merge = max if options.device == "cuda" else sum
        rate = {
            way: options.batch
            * options.ranks
            / min(merge(step) for step in zip(*(of[captions][way] for of in found), strict=True))
            for way in ("ours", "open_clip")
        }
        ratio = rate["ours"] / rate["open_clip"]
        reached &= ratio >= AIMS[captions]
        print(f"{captions:9} {rate['ours']:26.1f} {rate['open_clip']:10.1f} {ratio:6.2f} {AIMS[captions]:5.2f}")
    print(f"aims: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
