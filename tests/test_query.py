"""The door to DuckDB: databases rest between statements, and nobody notices."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.query import QueryConfig, query_rows, query_to_parquet

ROWS, TEXT_BYTES = 400_000, 256


def write(file: Path, reasons: Sequence[str | None]) -> Path:
    pq.write_table(pa.table({"drop_reason": pa.array(reasons, pa.string())}), file)
    return file


def counts(file: Path) -> dict[str, int]:
    return {row["drop_reason"]: row["rows"] for row in query_rows("drop_counts", QueryConfig(), verdicts=file)}


def test_statements_of_many_threads_answer_what_they_were_asked(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}.parquet", ["dns"] * (1 + number)) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(counts, files * 10))
    assert answers == [{"dns": 1 + number} for number in range(8)] * 10


def test_a_file_under_the_same_name_is_read_anew(tmp_path: Path) -> None:
    assert counts(write(tmp_path / "it.parquet", ["dns", "timeout"])) == {"dns": 1, "timeout": 1}
    assert counts(write(tmp_path / "it.parquet", ["html", "timeout"])) == {"html": 1, "timeout": 1}


def test_one_that_fails_spoils_none_that_follows(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.parquet", ["dns"]), tmp_path / "bad.parquet"
    bad.write_bytes(good.read_bytes()[:-8])
    for _ in range(3):
        with pytest.raises(InputError, match=r"bad\.parquet.*check that the file is readable Parquet"):
            counts(bad)
        assert counts(good) == {"dns": 1}


def test_what_rests_keeps_neither_threads_nor_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = rng.integers(97, 123, (ROWS, TEXT_BYTES), np.uint8).view(f"S{TEXT_BYTES}")[:, 0].astype(str).tolist()
    file, small = write(tmp_path / "large.parquet", texts), write(tmp_path / "small.parquet", ["dns"])
    del texts
    counts(small)
    process = psutil.Process()
    threads, before = process.num_threads(), process.memory_info().rss
    assert query_to_parquet("drop_counts", tmp_path / "out.parquet", QueryConfig(threads=4), verdicts=file) == ROWS
    assert process.num_threads() == threads
    assert process.memory_info().rss - before < ROWS * TEXT_BYTES / 4


def test_too_little_memory_is_told_in_one_line(tmp_path: Path) -> None:
    texts = [f"{number:0{TEXT_BYTES}}" for number in range(ROWS)]
    file = write(tmp_path / "large.parquet", texts)
    with pytest.raises(InputError, match=r"^Out of Memory Error: [^\n]*; raise query\.memory_limit_mb \(now 100\)$"):
        query_to_parquet("drop_counts", tmp_path / "out.parquet", QueryConfig(memory_limit_mb=100), verdicts=file)
