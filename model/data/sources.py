"""What a run learns from: one data set, or several that are mixed, read through a cache where they are far away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.config import PretrainConfig
from model.data.cache import SampleCache
from model.data.mixture import MixedOrder, MixedSplit, mixture_digest
from model.data.order import Order
from model.data.shards import Dataset, open_dataset
from model.errors import InputError


def open_data(shards: str, mixed: Sequence[str], config: PretrainConfig) -> Dataset:
    """The data set of a run. `shards` is the folder of `config.dataset`, which also gives the validation split; `mixed` are those
    of the others in `config.data.mix`, in its order.

    Raises InputError if a folder is not one of shards, or the folders are not those that the mix needs.
    """
    data = config.data
    cache = SampleCache(Path(data.cache_folder), round(data.cache_gb * 1e9)) if data.cache_folder else None
    others = [name for name in data.mix if name != config.dataset]
    if len(mixed) != len(others):
        raise InputError(
            f"--mixed has {len(mixed)} folders of shards, but data.mix has {len(others)} data sets beside {config.dataset!r}"
            f"{': ' if others else ''}{', '.join(others)}; give one folder for each, in that order"
        )
    main = open_dataset(shards, cache)
    if not data.mix:
        return main
    opened = {name: open_dataset(folder, cache) for name, folder in zip(others, mixed, strict=True)}
    opened[config.dataset] = main
    parts = {name: opened[name] for name in data.mix}
    digest = mixture_digest([part.digest for part in parts.values()], list(data.mix.values()))
    return Dataset(main.name, digest, MixedSplit({name: part.train for name, part in parts.items()}), main.val)


def order_of(dataset: Dataset, config: PretrainConfig) -> Order | MixedOrder:
    """The order in which a run sees the samples. Raises ValueError if they do not fill a batch."""
    train = config.train
    if not isinstance(dataset.train, MixedSplit):
        return Order(len(dataset.train), train.global_batch, train.seed)
    sizes = tuple(len(part) for part in dataset.train.parts.values())
    return MixedOrder(sizes, tuple(config.data.mix.values()), train.global_batch, train.seed)
