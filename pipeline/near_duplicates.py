"""Images whose perceptual hashes differ in few bits: all of them are found, without comparing each with each.

Two hashes that differ in at most d bits agree in at least n - d of n blocks of bits (Manku 2007, "Detecting Near-Duplicates for
Web Crawling", section 3). So for each choice of n - d blocks, hashes that agree in those are compared: nothing is missed. More
blocks make the keys longer and the candidates fewer, but more passes over the hashes; the number of images decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from upath import UPath

from pipeline.query import QueryConfig, query_to_parquet

HASH_BITS = 64
MOST_PASSES = 1_000
PASS_COST = 100_000  # candidates that are compared in the time that a statement takes to start
COMPONENTS_SCHEMA = pa.schema({"perceptual_hash": pa.int64(), "component": pa.int64()})
SQL = ("distinct_hashes", "near_hashes", "near_duplicates", "near_evaluation_images")


@dataclass(frozen=True)
class Bands:
    """Masks of 64 bits, as signed numbers: any two hashes within the distance are equal under at least one of them."""

    masks: tuple[int, ...]
    candidates: float
    """Pairs that agree under a mask, counted once per mask, of hashes whose bits are random. Real ones crowd, so expect more."""

    @property
    def key_bits(self) -> int:
        """Bits of the shortest key."""
        return min(map(_bits, self.masks))


def bands_for(images: int, distance: int, against: int | None = None) -> Bands:
    """The cheapest bands for pairs within `distance` bits of `images` different hashes, or of those and `against` others.

    The cost is one for each candidate, one for each hash in each pass, and PASS_COST for the pass. Few hashes are compared
    each with each, in one pass under the mask 0.
    """
    compared = images * against if against is not None else images * (images - 1) / 2
    plans = [
        Bands(masks, sum(compared / 2 ** _bits(mask) for mask in masks))
        for blocks in range(max(distance, 1), HASH_BITS + 1)
        if math.comb(blocks, distance) <= MOST_PASSES
        for masks in [_masks(blocks, distance)]
    ]
    hashes = images + (against or 0)
    return min(plans, key=lambda plan: len(plan.masks) * (PASS_COST + hashes) + plan.candidates)


def _masks(blocks: int, distance: int) -> tuple[int, ...]:
    edges = [HASH_BITS * number // blocks for number in range(blocks + 1)]
    parts = [(1 << end) - (1 << start) for start, end in itertools.pairwise(edges)]
    chosen = itertools.combinations(parts, blocks - distance)
    return tuple(_signed(sum(parts)) for parts in chosen)


def _signed(bits: int) -> int:
    return bits - (1 << HASH_BITS) if bits >> (HASH_BITS - 1) else bits


def _bits(mask: int) -> int:
    return (mask & ((1 << HASH_BITS) - 1)).bit_count()


def find_near_duplicates(images: Path, copies: Path, out: Path, distance: int | None, query: QueryConfig) -> None:
    """Write to `out` which image stands for each near duplicate: sha256, kept_pair_id (sql/near_duplicates.sql).

    `images` is a file of distinct_images.sql, `copies` of evaluation_copies.sql; the files beside `out` are left there.
    Without a distance there is no near duplicate.
    """
    hashes, components = out.with_name("distinct_hashes.parquet"), out.with_name("components.parquet")
    near: list[Path] = []
    if distance is not None:
        found = query_to_parquet("distinct_hashes", hashes, query, images=images, copies=copies)
        near = find_near_hashes(hashes, found, out, distance, query)
    write_components(near, components)
    query_to_parquet(
        "near_duplicates",
        out,
        query,
        images=images,
        copies=copies,
        components=components,
        is_wanted=distance is not None,
    )


def find_near_hashes(hashes: Path, count: int, out: Path, distance: int, query: QueryConfig) -> list[Path]:
    """Files beside `out`, one per band, with the pairs of `count` different hashes that differ in at most `distance` bits.

    A pair may be in several of them.
    """
    files = []
    # One statement per band: the memory that one needs does not grow with their number.
    for number, mask in enumerate(bands_for(count, distance).masks):
        files.append(out.with_name(f"near_hashes-{number:04}.parquet"))
        query_to_parquet("near_hashes", files[-1], query, hashes=hashes, mask=mask, distance=distance)
    return files


def write_components(near: Sequence[Path], out: Path) -> None:
    """Write the connected component of each hash in the pairs of `near_hashes`, called by its smallest hash, to `out`.

    Deciding pair by pair would drop B and C of A ~ B ~ C, or A and C, as the order has it. Memory grows with the pairs found.
    """
    tables = [pq.read_table(file, use_threads=False) for file in near]
    pairs_P2 = np.concatenate(
        [np.empty((0, 2), np.int64)]
        + [np.stack([table["one"].to_numpy(), table["other"].to_numpy()], axis=1) for table in tables]
    )
    hashes_H, places = np.unique(pairs_P2, return_inverse=True)
    ones_P, others_P = places.reshape(-1, 2).T
    graph_HH = csr_array((np.ones(len(ones_P), np.bool_), (ones_P, others_P)), shape=(len(hashes_H), len(hashes_H)))
    count, labels_H = connected_components(graph_HH, directed=False)
    smallest_C = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(smallest_C, labels_H, hashes_H)
    pq.write_table(pa.table([hashes_H, smallest_C[labels_H]], schema=COMPONENTS_SCHEMA), out)


def find_near_evaluation_images(
    images: Path,
    image_count: int,
    hashes: Sequence[UPath],
    hash_count: int,
    out: Path,
    distance: int,
    query: QueryConfig,
) -> list[Path]:
    """Files beside `out`, one per band, with the evaluation images that look like an image (sql/near_evaluation_images.sql)."""
    files = []
    for number, mask in enumerate(bands_for(image_count, distance, against=hash_count).masks):
        files.append(out.with_name(f"near_evaluation-{number:04}.parquet"))
        values = {"images": images, "evaluation_hashes": hashes, "mask": mask, "distance": distance}
        query_to_parquet("near_evaluation_images", files[-1], query, **values)
    return files
