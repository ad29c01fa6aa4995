"""`wit verify`: whole shards are called whole, and each kind of damage is told with its file and sample."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from downloaded_parts import Pair, write_facts, write_part, write_taken_down
from upath import UPath

from flows import cli
from pipeline.config import BuildDatasetConfig, ImageConfig, ShardConfig
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.query import QueryConfig
from pipeline.shards import SHARDS, ShardsConfig
from pipeline.verify import Verified, verify

TAR, INDEX = "train/000001.tar", "train/000001.index.parquet"
Damage = Callable[[Path], None]


def picture(number: int) -> bytes:
    pixels_HWC = np.random.default_rng(number).integers(0, 255, (24, 32, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels_HWC))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a folder of 17 samples: train in three tars, val in one."""
    root = tmp_path_factory.mktemp("packed")
    names = [hashlib.md5(str(number).encode()).hexdigest() for number in range(17)]
    pairs = [Pair(name, f"ünïcödé {name}", picture(place), size_px=(32, 24)) for place, name in enumerate(names)]
    images = ImageConfig(min_bytes=0, min_side_px=1)
    config = BuildDatasetConfig(name="small", images=images, shards=ShardConfig(samples_per_shard=7, val_share=0.2))
    selected, download = write_part(root, 0, pairs)
    verdicts = IMAGE_VERDICTS.run(
        image_sources([selected], [download], [write_facts(root, 0, pairs)], []),
        UPath(root / "image_verdicts"),
        ImageVerdictsConfig(images=images, query=QueryConfig()),
    )
    taken_down = write_taken_down(root, verdicts.out, [selected])
    shards = SHARDS.run([verdicts.out, taken_down, download], UPath(root / "shards"), ShardsConfig(config=config)).out
    folder = Path(shards.path)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def shards(packed: dict[str, bytes], tmp_path: Path) -> Path:
    for name, data in packed.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def told(folder: Path) -> list[str]:
    lines: list[str] = []
    assert verify(UPath(folder), lines.append).problems == len(lines)
    return lines


def index_of(folder: Path) -> list[dict[str, Any]]:
    return [dict(row) for row in pq.read_table(folder / INDEX).to_pylist()]


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(bytes(data))


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_whole_shards_are_whole(shards: Path) -> None:
    lines: list[str] = []
    found = verify(UPath(shards), lines.append)
    tars = list(shards.rglob("*.tar"))
    assert (found, lines) == (Verified(shards=len(tars), samples=17, problems=0), [])
    assert len(tars) == 4


def test_a_flipped_byte_in_each_image_names_its_sample(shards: Path) -> None:
    """In the compressed data, where most flips still decode to some picture."""
    for row in index_of(shards)[1:4]:
        flip(shards / TAR, row["image_offset"] + row["image_size"] // 2)
    checksum, *samples = told(shards)
    assert checksum == f"{TAR}: its checksum is not that of the manifest"
    assert [line.split(": ")[0] for line in samples] == [f"{TAR} sample {row['key']}" for row in index_of(shards)[1:4]]
    assert all("its bytes are not those that were packed" in line for line in samples)


def test_an_image_that_lost_its_start_cannot_be_decoded(shards: Path) -> None:
    row = index_of(shards)[2]
    flip(shards / TAR, row["image_offset"])
    _, line = told(shards)
    assert f"sample {row['key']}: its bytes are not" in line and "and its image cannot be decoded" in line


def test_a_truncated_tar_names_the_samples_that_it_lost(shards: Path) -> None:
    rows = index_of(shards)
    data = (shards / TAR).read_bytes()
    (shards / TAR).write_bytes(data[: rows[2]["text_offset"] + 3])
    assert told(shards) == [
        f"{TAR}: {rows[2]['text_offset'] + 3} bytes, but the manifest says {len(data)}",
        f"{TAR} sample {rows[2]['key']}: the tar ends before its .txt does",
        *[f"{TAR} sample {row['key']}: the tar ends before its .jpg does" for row in rows[3:]],
    ]


def test_a_damaged_header_is_told(shards: Path) -> None:
    row = index_of(shards)[0]
    flip(shards / TAR, row["json_offset"] - 512)
    _, line = told(shards)
    assert line == (
        f"{TAR} sample {row['key']}: no member of the tar before byte {row['json_offset']}, where the index has its .json"
    )


def swap_rows(folder: Path) -> None:
    rows = index_of(folder)
    first, second = rows[0].pop("key"), rows[1].pop("key")
    rows[0]["key"], rows[1]["key"] = second, first
    pq.write_table(pa.Table.from_pylist(rows), folder / INDEX)


def cut_index(folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist(index_of(folder)[1:]), folder / INDEX)


def other_caption(folder: Path) -> None:
    rows = pq.read_table(folder / "val" / "samples.parquet").to_pylist()
    rows[0]["caption"] = "another"
    rows[0]["width_px"] += 1
    pq.write_table(pa.Table.from_pylist(rows), folder / "val" / "samples.parquet")


@pytest.mark.parametrize(
    ("damage", "problems"),
    [
        (lambda folder: (folder / TAR).unlink(), [f"{TAR}: is gone"]),
        (lambda folder: (folder / INDEX).unlink(), [f"{INDEX}: is gone"]),
        (lambda folder: (folder / INDEX).write_bytes(b"PAR1"), [f"{INDEX}: cannot be read"]),
        (lambda folder: (folder / "val" / "samples.parquet").unlink(), ["val/samples.parquet: is gone"]),
        (swap_rows, [f"{TAR} sample", f"{TAR} sample"]),
        (cut_index, [f"{INDEX}: 4 rows, but the manifest says 5 samples"]),
        (other_caption, ["val/000000.tar sample 000000000: its image has 32x24 pixels, samples.parquet says 33x24"]),
        (lambda folder: (folder / "manifest.json").write_text("{"), ["manifest.json: not as docs/shards.md says"]),
        (
            lambda folder: rewrite_manifest(folder, lambda manifest: manifest.update(digest="0")),
            ["manifest.json: its digest is not that of the checksums in it"],
        ),
        (
            lambda folder: rewrite_manifest(folder, lambda manifest: manifest["splits"]["val"].update(samples=99)),
            ["manifest.json: 99 samples in val, but", "val/samples.parquet: "],
        ),
    ],
)
def test_damage_is_told_and_nothing_else(shards: Path, damage: Damage, problems: list[str]) -> None:
    damage(shards)
    lines = told(shards)
    assert len(lines) == len(problems), lines
    assert all(line.startswith(problem) for line, problem in zip(lines, problems, strict=True)), lines


def test_text_json_and_samples_must_agree(shards: Path) -> None:
    """Whatever the checksums say: here they are those of the changed tar."""
    row = index_of(shards)[3]
    data = bytearray((shards / TAR).read_bytes())
    data[row["text_offset"] + row["text_size"] - 1] ^= 1
    (shards / TAR).write_bytes(bytes(data))
    rows = index_of(shards)
    parts = (bytes(data[row[f"{name}_offset"] :][: row[f"{name}_size"]]) for name in ("image", "text", "json"))
    rows[3]["crc32"] = zlib.crc32(b"".join(parts))
    pq.write_table(pa.Table.from_pylist(rows), shards / INDEX)
    _, line = told(shards)
    assert line == f"{TAR} sample {row['key']}: its .txt is not the first caption in its .json"


def test_the_command_ends_with_status_one(
    shards: Path, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert cli.run(["verify", str(shards)]) == 0
    assert "17 samples in" in capsys.readouterr().out
    (shards / TAR).unlink()
    assert cli.run(["verify", str(shards)]) == 1
    said = capsys.readouterr()
    assert f"{TAR}: is gone" in said.out and "1 problems; delete the folder" in said.err
    nothing = tmp_path_factory.mktemp("nothing")
    (nothing / "datasets" / "tiny").mkdir(parents=True)
    assert cli.run(["verify", "tiny", "--workspace", str(nothing)]) == 2
    assert "no manifest.json, so no shards; build the data set first" in capsys.readouterr().err
