"""Near hashes: every pair is found, whatever the bands, against a comparison of each with each."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.near_duplicates import HASH_BITS, bands_for, find_near_hashes, write_components
from pipeline.query import QueryConfig

SIZES = (2, 300, 20_000, 1_000_000, 100_000_000, 400_000_000)


def differing_bits(one: int, other: int) -> int:
    return ((one ^ other) % 2**HASH_BITS).bit_count()


def planted(count: int, most_bits: int) -> list[int]:
    """Different hashes: half are drawn, the others differ from one of them in up to `most_bits` bits."""
    draw = np.random.default_rng(most_bits)
    hashes = draw.integers(-(2**63), 2**63, count // 2, np.int64).tolist()
    for original in list(hashes):
        bits = draw.choice(HASH_BITS, draw.integers(1, most_bits + 1), replace=False).tolist()
        other = original % 2**HASH_BITS ^ sum(1 << bit for bit in bits)
        hashes.append(other - 2**HASH_BITS if other >= 2**63 else other)
    return sorted(set(hashes))


@pytest.mark.parametrize(("images", "distance"), itertools.product(SIZES, (0, 1, 2, 3, 4, 8)))
def test_two_hashes_within_the_distance_agree_under_a_mask(images: int, distance: int) -> None:
    """Whichever bits differ, one of the masks holds none of them."""
    masks = [mask % 2**HASH_BITS for mask in bands_for(images, distance).masks]
    draw = np.random.default_rng(images)
    for _ in range(100):
        flipped = sum(1 << int(bit) for bit in draw.choice(HASH_BITS, distance, replace=False))
        assert any(mask & flipped == 0 for mask in masks)


def test_the_plan_is_that_of_the_literature() -> None:
    """Manku's blocks for 64 bits and distance 3: at 10^8 images 20 passes with keys of about 32 bits."""
    large = bands_for(100_000_000, 3)
    assert (len(large.masks), large.key_bits) == (math.comb(6, 3), 31)
    assert large.candidates == pytest.approx(20 * 1e16 / 2**33, rel=0.2)
    few = bands_for(100, 3)
    assert few.masks == (0,) and few.candidates == 100 * 99 / 2
    assert bands_for(1_000_000, 0).masks == (-1,)
    bits = [bands_for(images, 3).key_bits for images in SIZES]
    assert bits == sorted(bits)


@pytest.mark.parametrize("distance", [1, 3, 4])
@pytest.mark.parametrize("pretended", [10, 20_000, 1_000_000])
def test_every_near_pair_is_found_and_no_other(tmp_path: Path, distance: int, pretended: int) -> None:
    """With the bands of few images as with those of many."""
    hashes = planted(400, distance + 2)
    file = tmp_path / "hashes.parquet"
    pq.write_table(pa.table({"perceptual_hash": pa.array(hashes, pa.int64())}), file)
    files = find_near_hashes(file, pretended, tmp_path / "near.parquet", distance, QueryConfig(threads=1))
    assert (len(files) > 1) == (pretended > 10)
    found = {(row["one"], row["other"]) for near in files for row in pq.read_table(near).to_pylist()}
    expected = {
        (one, other) for one, other in itertools.combinations(hashes, 2) if differing_bits(one, other) <= distance
    }
    assert found == expected and len(expected) >= 50


def test_components_are_those_of_the_graph(tmp_path: Path) -> None:
    """Against merging sets until nothing meets; a pair may occur in several files."""
    draw = np.random.default_rng(5)
    edges = {tuple(sorted(pair)) for pair in draw.integers(-(2**63), 2**63, (40, 2), np.int64).tolist()}
    names = [name for edge in edges for name in edge]
    edges |= {(min(one, other), max(one, other)) for one, other in draw.choice(names, (25, 2)).tolist() if one != other}
    components = [set(edge) for edge in edges]
    while met := next(((a, b) for a, b in itertools.combinations(components, 2) if a & b), None):
        components = [each for each in components if each not in met] + [met[0] | met[1]]
    files = [tmp_path / "0", tmp_path / "1"]
    for file, part in zip(files, (sorted(edges)[:50], sorted(edges)[40:]), strict=True):
        pq.write_table(pa.table([[one for one, _ in part], [other for _, other in part]], ["one", "other"]), file)
    write_components(files, tmp_path / "components")
    rows = pq.read_table(tmp_path / "components").to_pylist()
    told = {row["perceptual_hash"]: row["component"] for row in rows}
    assert len(rows) == len(told)
    assert told == {name: min(component) for component in components for name in component}
    write_components([], tmp_path / "none")
    assert pq.read_table(tmp_path / "none").num_rows == 0
