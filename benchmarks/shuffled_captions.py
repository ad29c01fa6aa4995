"""The control of `wit demo`: the same pictures, recipe and questions, but every picture with another one's caption.

    python -m benchmarks.shuffled_captions [--workspace FOLDER] [--epochs N]

FOLDER is the workspace of a demo that has run. Its pairs are listed with their captions shuffled, built, learned and judged like
those of the demo. Nothing can be learned of which word names what, so the accuracy has to be that of chance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.recipes import Recipe, tiny
from flows.tiny_web import serving
from pipeline.sources.config import SourceConfig, UrlListConfig
from pipeline.tiny_web.config import TinyWebConfig

NAME = "shuffled"


def recipe(pairs: Path, evaluation_sets: tuple[str, ...], epochs: int) -> Recipe:
    """The recipe `tiny`, with the shuffled list for a source."""
    plain = tiny()
    source = SourceConfig(url_list=UrlListConfig(paths=(str(pairs),)))
    images = plain.dataset.images.model_copy(update={"evaluation_sets": evaluation_sets})
    train = plain.pretrain.train.model_copy(update={"epochs": epochs})
    evaluate = {"name": NAME, "run": NAME, "evaluation_sets": evaluation_sets}
    return Recipe(
        name=NAME,
        dataset=plain.dataset.model_copy(update={"name": NAME, "source": source, "images": images}),
        pretrain=plain.pretrain.model_copy(update={"name": NAME, "dataset": NAME, "train": train}),
        evaluate=plain.evaluate.model_copy(update=evaluate),
    )


def shuffled(shards: Path) -> pa.Table:
    """URL and caption of every sample of the demo, the captions in an order of hashes."""
    samples = pa.concat_tables(
        pq.read_table(shards / split / "samples.parquet", columns=["url", "caption"]) for split in ("train", "val")
    )
    captions = sorted(samples["caption"].to_pylist(), key=lambda caption: hashlib.sha256(caption.encode()).digest())
    return pa.table({"url": samples["url"], "caption": captions})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--epochs", type=int, default=tiny().pretrain.train.epochs)
    options = parser.parse_args()
    workspace = options.workspace.absolute()
    shards = workspace / "datasets" / "tiny" / "shards"
    if not (shards / "manifest.json").is_file():
        parser.error(f"{shards} has no manifest.json; run `wit demo --workspace {options.workspace}` first")
    web = TinyWebConfig.model_validate(
        json.loads((shards / "manifest.json").read_text(encoding="utf-8"))["config"]["source"]["tiny_web"]
    )
    pairs = workspace / "shuffled.parquet"
    pq.write_table(shuffled(shards), pairs)
    sets = tuple(str(workspace / "evaluation_sets" / name) for name in tiny().evaluate.evaluation_sets)

    from flows.reproduce import reproduce

    with serving(web):
        folder = Path(reproduce(recipe(pairs, sets, options.epochs), str(workspace)))
    rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["rows"]
    for row in rows:
        print(
            f"{row['set']}: {row['accuracy_percent']:.1f} % right [{row['low_percent']:.1f}, {row['high_percent']:.1f}], "
            f"by chance {row['chance_percent']:.1f} %"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
