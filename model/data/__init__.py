"""Shards in, batches out: see docs/shards.md for what a shard is."""

from model.data.images import normalise, preprocess
from model.data.loader import Batch, Loader
from model.data.order import InSequence, Order
from model.data.shards import Dataset, Sample, SampleError, Samples, Split, open_dataset

__all__ = [
    "Batch",
    "Dataset",
    "InSequence",
    "Loader",
    "Order",
    "Sample",
    "SampleError",
    "Samples",
    "Split",
    "normalise",
    "open_dataset",
    "preprocess",
]
