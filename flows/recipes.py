"""Named, complete configurations. Every number has its source, or is this project's own measurement (docs/results.md)."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from model.config import ClipConfig, EvaluateConfig, PretrainConfig, ResNetConfig, TextConfig, TrainConfig, VitConfig
from pipeline.config import BuildDatasetConfig, CurateConfig, DownloadConfig, ImageConfig, ShardConfig
from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.sources.config import CrawlConfig, SourceConfig, UrlListConfig


class Recipe(Settings):
    """The three configurations of one walk from the web to the report."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the walk")
    dataset: BuildDatasetConfig
    pretrain: PretrainConfig
    evaluate: EvaluateConfig


def tiny() -> Recipe:
    """The embedded tiny web on a laptop's CPU, in minutes."""
    return Recipe(
        name="tiny",
        dataset=BuildDatasetConfig(
            name="tiny",
            source=SourceConfig(
                kind="tiny_web",
                site_crawl=CrawlConfig(delay_s=0.0, concurrent_requests_per_site=8, allow_private_addresses=True),
            ),
            download=DownloadConfig(
                rows_per_part=2_000,
                timeout_s=3.0,
                image_deadline_s=5.0,
                part_deadline_s=120.0,
                max_image_bytes=2_000_000,
                short_side_px=64,
                jpeg_quality=90,
                allow_private_addresses=True,
            ),
            images=ImageConfig(evaluation_sets=("tiny-web-unseen", "tiny-web-seen")),
            shards=ShardConfig(samples_per_shard=1_000, val_share=0.05),
        ),
        pretrain=PretrainConfig(
            name="tiny",
            dataset="tiny",
            model=ClipConfig(
                embed_dim=64,
                vision=ResNetConfig(image_px=64, width=16, blocks=(1, 2, 2, 1), heads=8),
                text=TextConfig(context_length=32, vocab_size=1_000, width=64, layers=2, heads=4),
            ),
            # A ResNet wants a rate as high as this; the long warm-up is what lets the text transformer bear it.
            train=TrainConfig(
                epochs=24,
                global_batch=128,
                learning_rate=3e-3,
                warmup_steps=300,
                weight_decay=0.3,
                processes=2,
                checkpoint_every_steps=100,
            ),
        ),
        evaluate=EvaluateConfig(name="tiny", run="tiny", evaluation_sets=("tiny-web-unseen", "tiny-web-seen")),
    )


def cc12m() -> Recipe:
    """Conceptual 12M from its TSV (cc12m.tsv), the paper's ResNet-50."""
    return Recipe(
        name="cc12m",
        dataset=BuildDatasetConfig(
            name="cc12m",
            # The published file has no line of column names.
            source=SourceConfig(url_list=UrlListConfig(paths=("cc12m.tsv",), column_names=("url", "caption"))),
            curate=CurateConfig(languages=()),
            download=DownloadConfig(processes=16, threads=64, short_side_px=224),
        ),
        pretrain=paper_rn50("cc12m-rn50", "cc12m"),
        evaluate=EvaluateConfig(name="cc12m-rn50", run="cc12m-rn50"),
    )


def url_list() -> Recipe:
    """Your own list of URL-caption pairs: --source.url-list.paths FILE, the paper's ViT-B/32."""
    return Recipe(
        name="url-list",
        dataset=BuildDatasetConfig(
            name="url-list",
            source=SourceConfig(url_list=UrlListConfig(paths=("pairs.parquet",))),
            download=DownloadConfig(processes=2, threads=64, short_side_px=224),
        ),
        pretrain=PretrainConfig(
            name="url-list",
            dataset="url-list",
            model=ClipConfig(embed_dim=512, vision=VitConfig(), text=TextConfig()),
            train=TrainConfig(precision="bf16", loader_threads=16, global_batch=1_024, epochs=32),
        ),
        evaluate=EvaluateConfig(name="url-list", run="url-list"),
    )


def yfcc15m() -> Recipe:
    """YFCC100M's English natural-language titles (section 2.2: 100M cut to 15M) from yfcc15m.parquet, the paper's ResNet-50."""
    return Recipe(
        name="yfcc15m",
        dataset=BuildDatasetConfig(
            name="yfcc15m",
            source=SourceConfig(url_list=UrlListConfig(paths=("yfcc15m.parquet",))),
            download=DownloadConfig(processes=16, threads=64, short_side_px=224),
        ),
        pretrain=paper_rn50("yfcc15m-rn50", "yfcc15m"),
        evaluate=EvaluateConfig(name="yfcc15m-rn50", run="yfcc15m-rn50"),
    )


def wit400m() -> Recipe:
    """WebImageText's size (section 2.2: 400 million pairs) from pairs/*.parquet, the paper's ViT-B/32."""
    return Recipe(
        name="wit400m",
        dataset=BuildDatasetConfig(
            name="wit400m",
            source=SourceConfig(url_list=UrlListConfig(paths=("pairs.parquet",))),
            curate=CurateConfig(max_pairs=400_000_000),
            download=DownloadConfig(processes=16, threads=64, short_side_px=224),
        ),
        # Section 2.5, tables 18 and 20.
        pretrain=PretrainConfig(
            name="wit400m-vit-b-32",
            dataset="wit400m",
            model=ClipConfig(embed_dim=512, vision=VitConfig(), text=TextConfig()),
            train=TrainConfig(precision="bf16", loader_threads=16),
        ),
        evaluate=EvaluateConfig(name="wit400m-vit-b-32", run="wit400m-vit-b-32"),
    )


def paper_rn50(name: str, dataset: str) -> PretrainConfig:
    """The paper's ResNet-50 (tables 18 and 19) on another data set."""
    return PretrainConfig(
        name=name,
        dataset=dataset,
        model=ClipConfig(embed_dim=1024, vision=ResNetConfig(), text=TextConfig()),
        train=TrainConfig(adam_beta2=0.999, adam_eps=1e-8, precision="bf16", loader_threads=16),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": tiny,
    "url-list": url_list,
    "cc12m": cc12m,
    "yfcc15m": yfcc15m,
    "wit400m": wit400m,
}


def recipe(name: str) -> Recipe:
    """The recipe of that name; raises InputError that names those there are."""
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}; one of {', '.join(RECIPES)} (wit recipes tells what they are)")
    return RECIPES[name]()
