"""Named, complete configurations. Every number has its source, or is this project's own measurement (docs/results.md)."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from model.config import (
    ClipConfig,
    EvaluateConfig,
    PretrainConfig,
    ResNetConfig,
    TextConfig,
    TorchvisionConfig,
    TrainConfig,
)
from model.paper import PAPER_MODELS
from pipeline.config import BuildDatasetConfig, CurateConfig, DownloadConfig, ImageConfig, ShardConfig
from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.sources.config import (
    CocoConfig,
    CommonCrawlConfig,
    CrawlConfig,
    SourceConfig,
    UrlListConfig,
    VisualGenomeConfig,
    Yfcc100mConfig,
)
from pipeline.sources.list_presets import list_preset


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
                retry_passes=0,  # what fails there fails for good
            ),
            # By their bytes alone: scenes as plain as these look alike to a perceptual hash without being the same picture.
            images=ImageConfig(evaluation_sets=("tiny-web-unseen", "tiny-web-seen"), evaluation_distance=None),
            shards=ShardConfig(samples_per_shard=1_000, val_share=0.05),
        ),
        pretrain=PretrainConfig(
            name="tiny",
            dataset="tiny",
            model=ClipConfig(
                embed_dim=64,
                vision=ResNetConfig(image_px=64, width=12, blocks=(1, 2, 2, 1), heads=8),
                text=TextConfig(context_length=32, vocab_size=1_000, width=64, layers=2, heads=4),
            ),
            # A ResNet wants a rate as high as this; the long warm-up is what lets the text transformer bear it.
            train=TrainConfig(
                epochs=20,
                global_batch=128,
                learning_rate=3e-3,
                warmup_steps=300,
                weight_decay=0.3,
                processes=2,
                checkpoint_every_steps=100,
            ),
        ),
        evaluate=EvaluateConfig(
            name="tiny",
            run="tiny",
            evaluation_sets=("tiny-web-unseen", "tiny-web-seen"),
            few_shot=(1, 4, 16),
            few_shot_seeds=1,  # each draw of 16 takes a laptop some seconds
        ),
    )


def url_list() -> Recipe:
    """Your own list of URL-caption pairs: --source.url-list.paths FILE, the paper's ViT-B/32."""
    walk = _paper_walk(
        "url-list", SourceConfig(url_list=UrlListConfig(paths=("pairs.parquet",))), "vit-b-32", CurateConfig()
    )
    train = TrainConfig(precision="bf16", loader_threads=16, global_batch=1_024)
    return walk.model_copy(update={"pretrain": walk.pretrain.model_copy(update={"train": train})})


def cc3m() -> Recipe:
    """Conceptual Captions from its TSV (Train_GCC-training.tsv), the paper's ResNet-50."""
    return _listed("cc3m", "cc3m", "Train_GCC-training.tsv", "rn50")


def cc12m() -> Recipe:
    """Conceptual 12M from its TSV (cc12m.tsv), the paper's ResNet-50."""
    return _listed("cc12m", "cc12m", "cc12m.tsv", "rn50")


def laion400m() -> Recipe:
    """LAION-400M from its Parquet files (laion400m/*.parquet), the paper's ViT-B/32."""
    return _listed("laion400m", "laion", "laion400m/*.parquet", "vit-b-32")


def datacomp() -> Recipe:
    """DataComp's pool from its Parquet files (datacomp/*.parquet), the paper's ViT-B/32."""
    return _listed("datacomp", "datacomp", "datacomp/*.parquet", "vit-b-32")


def coco() -> Recipe:
    """MS-COCO (section 2.2: one of the small, clean data sets before) from captions_train2017.json, the paper's ResNet-50."""
    source = SourceConfig(kind="coco", coco=CocoConfig(paths=("captions_train2017.json",)))
    return _paper_walk("coco", source, "rn50", CurateConfig(languages=()))


def visual_genome() -> Recipe:
    """Visual Genome (section 2.2) from image_data.json and region_descriptions.json, the paper's ResNet-50."""
    files = VisualGenomeConfig(image_data="image_data.json", region_descriptions="region_descriptions.json")
    # A person calls regions of many pictures "blue sky": not what a machine puts under each of them.
    curate = CurateConfig(languages=(), max_images_per_caption=1_000_000)
    return _paper_walk("visual-genome", SourceConfig(kind="visual_genome", visual_genome=files), "rn50", curate)


def yfcc15m() -> Recipe:
    """YFCC100M's English natural-language texts (section 2.2: 100M cut to 15M) from yfcc100m_dataset*, the paper's ResNet-50."""
    source = SourceConfig(kind="yfcc100m", yfcc100m=Yfcc100mConfig(paths=("yfcc100m_dataset*",)))
    return _paper_walk("yfcc15m", source, "rn50", CurateConfig())


def common_crawl() -> Recipe:
    """One file of a Common Crawl snapshot: --source.common-crawl.files N for more, 0 for all; the paper's ViT-B/32."""
    source = SourceConfig(kind="common_crawl", common_crawl=CommonCrawlConfig(snapshot="CC-MAIN-2024-10"))
    return _paper_walk("common-crawl", source, "vit-b-32", CurateConfig())


def wit400m() -> Recipe:
    """WebImageText's size (section 2.2: 400 million pairs) from a whole Common Crawl snapshot, the paper's ViT-B/32."""
    source = SourceConfig(kind="common_crawl", common_crawl=CommonCrawlConfig(snapshot="CC-MAIN-2024-10", files=0))
    return _paper_walk("wit400m", source, "vit-b-32", CurateConfig(max_pairs=400_000_000))


def paper_pretrain(model: str, name: str, dataset: str) -> PretrainConfig:
    """One of the paper's models, as its tables 18 to 20 say, on any data set; precision (fp16 there) and threads are ours."""
    chosen = PAPER_MODELS[model]
    train = chosen.train.model_copy(update={"precision": "bf16", "loader_threads": 16})
    return PretrainConfig(name=name, dataset=dataset, start_from=chosen.start_from, model=chosen.model, train=train)


def _paper_recipe(model: str) -> Callable[[], Recipe]:
    chosen = PAPER_MODELS[model]
    image_px = chosen.model.vision.image_px

    def make() -> Recipe:
        walk = wit400m()
        dataset = walk.dataset
        if image_px > dataset.download.short_side_px:  # images stored as large as the model's input
            download = dataset.download.model_copy(update={"short_side_px": image_px})
            dataset = dataset.model_copy(update={"name": f"{dataset.name}-{image_px}px", "download": download})
        return Recipe(
            name=model,
            dataset=dataset,
            pretrain=paper_pretrain(model, model, dataset.name),
            evaluate=EvaluateConfig(name=model, run=model),
        )

    make.__doc__ = (
        f"The paper's {chosen.title} on WebImageText, or on another data set: wit pretrain {model} --dataset NAME."
    )
    return make


def torchvision() -> Recipe:
    """A plain ResNet or EfficientNet of torchvision as image tower, on Conceptual 12M: --model.vision.name efficientnet_b0."""
    walk = cc12m()
    model = ClipConfig(embed_dim=1024, vision=TorchvisionConfig(name="resnet50"))  # all else as the paper's ResNet-50
    pretrain = walk.pretrain.model_copy(update={"name": "torchvision", "model": model})
    evaluate = EvaluateConfig(name="torchvision", run="torchvision")
    return walk.model_copy(update={"name": "torchvision", "pretrain": pretrain, "evaluate": evaluate})


def _listed(name: str, preset: str, path: str, model: str) -> Recipe:
    """A published list, which its makers have filtered for language already."""
    source = SourceConfig(url_list=list_preset(preset, (path,)))
    return _paper_walk(name, source, model, CurateConfig(languages=()))


def _paper_walk(
    name: str,
    source: SourceConfig,
    model: str,
    curate: CurateConfig,
) -> Recipe:
    """A walk at the paper's size of image, that ends in one of its models."""
    return Recipe(
        name=name,
        dataset=BuildDatasetConfig(
            name=name,
            source=source,
            curate=curate,
            download=DownloadConfig(processes=16, threads=64, short_side_px=224),
        ),
        pretrain=paper_pretrain(model, name, name),
        evaluate=EvaluateConfig(name=name, run=name),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": tiny,
    "url-list": url_list,
    "coco": coco,
    "visual-genome": visual_genome,
    "yfcc15m": yfcc15m,
    "cc3m": cc3m,
    "cc12m": cc12m,
    "laion400m": laion400m,
    "datacomp": datacomp,
    "common-crawl": common_crawl,
    "wit400m": wit400m,
    **{key: _paper_recipe(key) for key in PAPER_MODELS},
    "torchvision": torchvision,
}


def recipe(name: str) -> Recipe:
    """The recipe of that name; raises InputError that names those there are."""
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}; one of {', '.join(RECIPES)} (wit recipes tells what they are)")
    return RECIPES[name]()
