"""Real photographs through the whole walk: CIFAR-10 JPEGs served over HTTP, captioned from their labels, learned, told apart.

    python -m benchmarks.real_photos PHOTOS.parquet [--workspace FOLDER] [--epochs N]

PHOTOS.parquet has the columns split (train, test), label, file (a path) and jpeg (bytes). Training photos are served on
loopback under their `file` names and listed with captions in a TSV; the test split becomes an evaluation set with the labels as
classes. Prints the accuracy with its interval beside chance.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.recipes import Recipe
from model.config import ClipConfig, EvaluateConfig, PretrainConfig, ResNetConfig, TextConfig, TrainConfig
from pipeline.config import BuildDatasetConfig, CurateConfig, DownloadConfig, ImageConfig, ShardConfig
from pipeline.sources.config import SourceConfig, UrlListConfig

# A fixed port: addresses are part of a pair's identity.
PORT = 8790
CAPTIONS = (
    "a photo of a {label}",
    "a small picture of a {label}",
    "this is a photo of one {label}",
    "a blurry photo of a {label}, seen from near",
    "here you can see a {label}",
    "a {label} in a picture that I took",
    "my photo of the {label}",
    "a cropped photo of a {label}",
)
PROMPTS = ("a photo of a {c}", "a small picture of a {c}", "here you can see a {c}", "a blurry photo of a {c}")


def recipe(pairs: Path, evaluation_set: Path, epochs: int) -> Recipe:
    """The walk for 5,000 photographs of 32 pixels. Its captions are few and short, so no caption rule applies."""
    return Recipe(
        name="photos",
        dataset=BuildDatasetConfig(
            name="photos",
            source=SourceConfig(url_list=UrlListConfig(paths=(str(pairs),))),
            curate=CurateConfig(languages=(), max_images_per_caption=1_000_000),
            download=DownloadConfig(rows_per_part=2_500, short_side_px=32, allow_private_addresses=True),
            images=ImageConfig(min_side_px=32, evaluation_sets=(str(evaluation_set),)),
            shards=ShardConfig(samples_per_shard=1_000, val_share=0.02),
        ),
        pretrain=PretrainConfig(
            name="photos",
            dataset="photos",
            model=ClipConfig(
                embed_dim=128,
                vision=ResNetConfig(image_px=32, width=32, blocks=(1, 1, 1, 1), heads=16),
                text=TextConfig(context_length=32, vocab_size=512, width=128, layers=2, heads=4),
            ),
            train=TrainConfig(
                epochs=epochs, global_batch=128, learning_rate=3e-3, warmup_steps=300, weight_decay=0.3, processes=2
            ),
        ),
        evaluate=EvaluateConfig(name="photos", run="photos", evaluation_sets=(str(evaluation_set),)),
    )


def write_pairs(photos: list[dict[str, Any]], out: Path) -> None:
    """The training split as a list of URL-caption pairs; the caption of a photograph is chosen by a hash of its name."""
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("url", "caption"))
        for photo in photos:
            draw = hashlib.sha256(photo["file"].encode()).digest()[0] % len(CAPTIONS)
            caption = CAPTIONS[draw].format(label=photo["label"])
            writer.writerow((f"http://127.0.0.1:{PORT}/{photo['file']}", caption))


def write_evaluation_set(photos: list[dict[str, Any]], out: Path) -> None:
    """The test split in the wds layout."""
    labels = sorted({photo["label"] for photo in photos})
    (out / "test").mkdir(parents=True, exist_ok=True)
    (out / "classnames.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (out / "zeroshot_classification_templates.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    (out / "test" / "nshards.txt").write_text("1\n", encoding="utf-8")
    with tarfile.open(out / "test" / "0.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, photo in enumerate(photos):
            _add(tar, f"{number:06d}.jpg", photo["jpeg"])
            _add(tar, f"{number:06d}.cls", str(labels.index(photo["label"])).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@contextmanager
def served(photos: list[dict[str, Any]]) -> Iterator[None]:
    """Serve the photographs under their names for the length of the block."""
    files = {f"/{photo['file']}": photo["jpeg"] for photo in photos}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files.get(self.path)
            self.send_response(200 if data else 404)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    rows = pq.read_table(options.photos).to_pylist()
    train = [photo for photo in rows if photo["split"] == "train"]
    given = options.workspace.absolute() / "photos"
    given.mkdir(parents=True, exist_ok=True)
    write_pairs(train, given / "pairs.tsv")
    write_evaluation_set([photo for photo in rows if photo["split"] == "test"], given / "photos-test")

    from flows.reproduce import reproduce

    with served(train):
        print(reproduce(recipe(given / "pairs.tsv", given / "photos-test", options.epochs), str(options.workspace)))


if __name__ == "__main__":
    main()
