"""croissant.json as its own library sees it: valid, and the records that it reads are the samples."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_shards import config_of, judged, pairs_of
from upath import UPath

from pipeline.shards import SHARDS

# The library keeps what it extracts in a folder that it names at import; here each run has its own.
READER = """
import json, sys
import mlcroissant
def as_text(value):
    return value.decode() if type(value) is bytes else value
dataset = mlcroissant.Dataset(sys.argv[1])
issues = dataset.metadata.ctx.issues
told = {"errors": sorted(issues.errors), "warnings": sorted(issues.warnings), "conforms_to": dataset.metadata.conforms_to}
told["sha256"] = {file.id: file.sha256 for file in dataset.metadata.distribution if hasattr(file, "sha256")}
told["preprocessing"] = dataset.metadata.data_preprocessing_protocol
told["records"] = {}
for split in ("train", "val"):
    told["records"][split] = [
        {
            name.removeprefix(split + "/"): value.size if name.endswith("/image") else as_text(value)
            for name, value in record.items()
        }
        for record in dataset.records(split)
    ]
print(json.dumps(told))
"""


def read(shards: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READER, str(shards / "croissant.json")],
        env={"CROISSANT_CACHE": str(cache), "HOME": str(cache), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("croissant")
    out = SHARDS.run(judged(root, pairs_of(30)), UPath(root / "shards"), config_of())
    return Path(out.out.path)


def test_its_own_library_reads_every_sample_once(shards: Path, tmp_path: Path) -> None:
    done = read(shards, tmp_path)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["errors"] == []
    assert len(told["warnings"]) == 1 and "datePublished" in told["warnings"][0], "only the publisher knows that"
    assert "http://mlcommons.org/croissant/1.1" in told["conforms_to"]
    files = [path for path in shards.rglob("*") if path.suffix == ".tar" or path.name == "samples.parquet"]
    assert told["sha256"] == {
        str(path.relative_to(shards)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    assert "found: 52 of 60 rows kept; 8 dropped as no_caption" in told["preprocessing"]
    for split in ("train", "val"):
        columns = ["key", "caption", "url", "page_url", "text_key", "pair_id", "sha256", "width_px", "height_px"]
        rows = pq.read_table(shards / split / "samples.parquet", columns=columns).to_pylist()
        expected = [row | {"image": [row["width_px"], row["height_px"]]} for row in rows]
        assert sorted(told["records"][split], key=lambda record: record["key"]) == expected


def test_a_changed_tar_is_refused(shards: Path, tmp_path: Path) -> None:
    tar = shards / "train" / "000000.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[:-1] + b"x")
    done = read(shards, tmp_path)
    tar.write_bytes(data)
    assert done.returncode != 0 and "Hash of downloaded file" in done.stderr
