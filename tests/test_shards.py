"""The shards against their contract, docs/shards.md, and twice the same to the last byte."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
import webdataset
from downloaded_parts import Pair, finished, write_facts, write_part, write_taken_down
from kills import killed
from PIL import Image
from upath import UPath

from pipeline.config import BuildDatasetConfig, ImageConfig, ShardConfig
from pipeline.errors import InputError
from pipeline.evaluation_images import HASHES_SCHEMA
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.query import QueryConfig, query_to_parquet
from pipeline.shards import SHARDS, ShardsConfig, _whole, _without_folders
from pipeline.stage import FunnelStage, StageResult
from pipeline.tars import header

FUNNEL = (FunnelStage(stage="found", rows_in=60, rows_kept=52, dropped={"no_caption": 8}),)


def picture(number: int, colour: bool = True) -> bytes:
    width_px, height_px = 16 + number % 5, 16
    shape = (height_px, width_px, 3) if colour else (height_px, width_px, 1)
    pixels_HWC = np.random.default_rng(number).integers(0, 255, shape, np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels_HWC, colorspace="RGB" if colour else "GRAY"))


def pairs_of(count: int) -> list[Pair]:
    return [
        Pair(
            hashlib.md5(str(number).encode()).hexdigest(),
            f"caption {number} ünïcödé",
            picture(number),
            size_px=(16 + number % 5, 16),
        )
        for number in range(count)
    ]


PAIRS = [
    *pairs_of(50),
    Pair("0" * 32, "the first", picture(50), original="shared", size_px=(16, 16)),
    Pair("1" * 32, "another of it", picture(50), original="shared", size_px=(16, 16)),
]


def config_of(**shards: Any) -> ShardsConfig:
    settings = {"samples_per_shard": 8, "val_share": 0.2, "seed": 3, **shards}
    config = BuildDatasetConfig(
        name="tiny", images=ImageConfig(min_bytes=0, min_side_px=1), shards=ShardConfig(**settings)
    )
    return ShardsConfig(config=config, funnel=FUNNEL)


def judged(root: Path, pairs: Sequence[Pair], tar_order: int = 1) -> list[UPath]:
    """The sources of SHARDS for `pairs`, in three parts."""
    written = [write_part(root, number, pairs[number::3], tar_order) for number in range(3)]
    downloads = [download for _, download in written]
    facts = [write_facts(root, number, pairs[number::3]) for number in range(3)]
    verdicts = IMAGE_VERDICTS.run(
        image_sources([part for part, _ in written], downloads, facts, []),
        UPath(root / "image_verdicts"),
        ImageVerdictsConfig(images=config_of().config.images, query=QueryConfig()),
    )
    taken_down = write_taken_down(root, verdicts.out, [part for part, _ in written])
    return [verdicts.out, taken_down, *downloads]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[UPath]:
    return judged(tmp_path_factory.mktemp("parts"), PAIRS)


@pytest.fixture(scope="module")
def packed(sources: list[UPath], tmp_path_factory: pytest.TempPathFactory) -> StageResult:
    return SHARDS.run(sources, UPath(tmp_path_factory.mktemp("data") / "shards"), config_of())


def copied(source: UPath, target: UPath) -> UPath:
    target.mkdir(parents=True, exist_ok=True)
    for file in Path(source.path).iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def manifest_of(folder: UPath) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def files_of(folder: UPath) -> dict[str, bytes]:
    root = Path(folder.path)
    files = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    del files["stage.json"]  # holds the seconds it took
    return files


def fraction(seed: int, sha256: str) -> float:
    return int(hashlib.sha256(f"{seed}:split:{sha256}".encode()).hexdigest()[:13], 16) / 2**52


def test_every_kept_pair_is_packed_once_in_shuffled_order(packed: StageResult) -> None:
    kept = {pair.pair_id: pair for pair in PAIRS if pair.caption != "another of it"}
    assert (packed.counts.rows_in, packed.counts.rows_kept) == (len(kept), len(kept))
    found = []
    for split in ("train", "val"):
        rows = pq.read_table(packed.out / split / "samples.parquet").to_pylist()
        assert [row["key"] for row in rows] == [f"{number:09d}" for number in range(len(rows))]
        ids = [row["pair_id"] for row in rows]
        assert ids == sorted(ids, key=lambda pair_id: hashlib.sha256(f"3:order:{pair_id}".encode()).hexdigest())
        for row in rows:
            pair = kept[row["pair_id"]]
            assert (fraction(3, pair.sha256) < 0.2) == (split == "val")
            assert (row["caption"], row["sha256"]) == (pair.caption, pair.sha256)
            assert (row["width_px"], row["height_px"]) == pair.size_px
        found += ids
    assert sorted(found) == sorted(kept)


def test_samples_are_three_members_that_the_index_points_at(packed: StageResult) -> None:
    by_id = {pair.pair_id: pair for pair in PAIRS}
    for split, entry in manifest_of(packed.out)["splits"].items():
        samples = pq.read_table(packed.out / split / "samples.parquet").to_pylist()
        for shard in entry["shards"]:
            data = (packed.out / shard["file"]).read_bytes()
            for row in pq.read_table(packed.out / shard["index"]).to_pylist():
                image, text, extra = (
                    data[row[f"{kind}_offset"] : row[f"{kind}_offset"] + row[f"{kind}_size"]]
                    for kind in ("image", "text", "json")
                )
                sample = samples[int(row["key"])]
                pair = by_id[sample["pair_id"]]
                assert (sample["key"], sample["shard"]) == (row["key"], shard["file"])
                assert image == pair.image and text.decode() == pair.caption
                assert json.loads(extra) == {
                    "pair_id": pair.pair_id,
                    "url": sample["url"],
                    "page_url": "http://a.example/",
                    "text_key": "alt",
                    "sha256": pair.sha256,
                    "original_width_px": 200,
                    "original_height_px": 200,
                    "captions": [pair.caption] + (["another of it"] if pair.caption == "the first" else []),
                }


def test_tars_are_plain_ustar(packed: StageResult) -> None:
    for file in Path(packed.out.path).rglob("*.tar"):
        assert file.read_bytes()[257:265] == b"ustar\x0000"
        assert file.stat().st_size % tarfile.RECORDSIZE == 0
        with tarfile.open(file, "r:") as tar:
            members = tar.getmembers()
        keys = [member.name.split(".")[0] for member in members[::3]]
        assert [member.name for member in members] == [f"{key}.{end}" for key in keys for end in ("jpg", "txt", "json")]
        for member in members:
            assert (member.mode, member.uid, member.gid, member.uname, member.gname, member.mtime) == (
                0o644, 0, 0, "", "", 0,
            )  # fmt: skip


def test_webdataset_reads_them(packed: StageResult) -> None:
    shards = [packed.out.path + f"/{shard['file']}" for shard in manifest_of(packed.out)["splits"]["train"]["shards"]]
    dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("jpg", "txt", "json")
    samples = list(dataset)
    rows = pq.read_table(packed.out / "train" / "samples.parquet").to_pylist()
    assert [text for _, text, _ in samples] == [row["caption"] for row in rows]
    assert all(
        image.shape == (row["height_px"], row["width_px"], 3) for (image, _, _), row in zip(samples, rows, strict=True)
    )


def test_the_manifest_tells_the_truth(packed: StageResult, sources: list[UPath]) -> None:
    manifest = manifest_of(packed.out)
    assert (packed.out / "manifest.json").read_text() == json.dumps(
        manifest, sort_keys=True, indent=2, ensure_ascii=False
    ) + "\n"
    assert (manifest["format_version"], manifest["name"]) == (1, "tiny")
    assert "threads" not in manifest["config"]["download"]  # nor anything else that only changes the speed
    assert BuildDatasetConfig.model_validate(manifest["config"]) == config_of().config
    assert manifest["funnel"] == [{"stage": "found", "rows_in": 60, "rows_kept": 52, "dropped": {"no_caption": 8}}]
    assert list(manifest["parents"]) == ["image_verdicts"]
    digests = b""
    for split in ("train", "val"):
        entry = manifest["splits"][split]
        sizes = [shard["samples"] for shard in entry["shards"]]
        assert sum(sizes) == entry["samples"] and max(sizes) <= 8 and max(sizes) - min(sizes) <= 1
        for number, shard in enumerate(entry["shards"]):
            data = (packed.out / shard["file"]).read_bytes()
            assert shard["file"] == f"{split}/{number:06d}.tar"
            assert (shard["size_bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
            digests += shard["sha256"].encode()
    assert manifest["digest"] == hashlib.sha256(digests).hexdigest()
    listed = {
        shard[name] for entry in manifest["splits"].values() for shard in entry["shards"] for name in ("file", "index")
    }
    others = {"manifest.json", "croissant.json", "overlap.parquet", "train/samples.parquet", "val/samples.parquet"}
    assert set(files_of(packed.out)) == listed | others


def test_the_shards_tell_what_they_share_with_evaluation_sets(tmp_path: Path) -> None:
    """A pair two bits from an evaluation image is removed, one of four is packed and reported."""
    looks = {"a": 0b1111 << 20, "b": 0b11 << 20, "c": 0b1111111 << 20, "d": 1}
    pairs = [Pair(name * 32, image=picture(1), size_px=(17, 16), looks=bits) for name, bits in looks.items()]
    selected, download = write_part(tmp_path, 0, pairs)
    row = {"evaluation_set": "set", "evaluation_image": "0.tar/0.png", "sha256": "0", "perceptual_hash": 0}
    table = pa.Table.from_pylist([row, row | {"perceptual_hash": -1, "evaluation_image": "x"}], schema=HASHES_SCHEMA)
    hashes = finished(tmp_path / "hashes", {"evaluation_hashes.parquet": table})
    config = config_of(val_share=0.0)
    given = {"evaluation_sets": ("set",), "evaluation_distance": 2, "evaluation_report_distance": 4}
    images = config.config.images.model_copy(update=given)
    verdicts = IMAGE_VERDICTS.run(
        image_sources([selected], [download], [write_facts(tmp_path, 0, pairs)], [hashes]),
        UPath(tmp_path / "image_verdicts"),
        ImageVerdictsConfig(images=images, query=QueryConfig()),
    )
    taken_down = write_taken_down(tmp_path, verdicts.out, [selected])
    packed = SHARDS.run([verdicts.out, taken_down, download], UPath(tmp_path / "shards"), config)
    assert pq.read_table(tmp_path / "shards" / "overlap.parquet").to_pylist() == [
        {
            "evaluation_set": "set",
            "evaluation_image": "0.tar/0.png",
            "pair_id": "a" * 32,
            "distance": 4,
            "is_equal": False,
        }
    ]
    assert manifest_of(packed.out)["evaluation_overlap"] == {
        "removed_up_to_distance": 2,
        "reported_up_to_distance": 4,
        "sets": {
            "set": {"images": 2, "without_perceptual_hash": 0, "overlapping_images": 1, "removed_images": 2},
        },
    }
    assert packed.counts.rows_kept == 2


def test_where_a_person_keeps_his_files_does_not_show() -> None:
    settings = {"source": {"paths": ["/home/me/lists/*.tsv", "s3://bucket/a.parquet", "b.csv"]}, "sets": ["/x/cifar10"]}
    assert _without_folders(settings) == {
        "source": {"paths": ["*.tsv", "s3://bucket/a.parquet", "b.csv"]},
        "sets": ["cifar10"],
    }


def test_the_order_of_downloads_does_not_show(packed: StageResult, tmp_path: Path) -> None:
    """img2dataset writes images as they come: the tars differ from run to run, the shards do not."""
    others = judged(tmp_path, PAIRS, tar_order=-1)
    again = SHARDS.run(others, UPath(tmp_path / "shards"), config_of())
    assert (others[2] / "00000.tar").read_bytes() != b"" and not again.was_done
    assert files_of(again.out) == files_of(packed.out)


@pytest.mark.parametrize("step", [1, 4, 8, 13, 19])
def test_killed_while_packing_and_run_again_the_bytes_are_the_same(
    packed: StageResult, sources: list[UPath], tmp_path: Path, step: int
) -> None:
    """A step is a file that is opened for writing, removed or renamed."""
    out = UPath(tmp_path / "shards")
    assert killed(step, SHARDS.run, sources, out, config_of())
    assert not out.exists()
    again = SHARDS.run(sources, out, config_of())
    assert not again.was_done and files_of(out) == files_of(packed.out)


@pytest.mark.parametrize(("name", "size"), [("000000001.jpg", 12_345), ("x" * 100, 0), ("a.json", 8 * 1024**3 - 1)])
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    assert header(name, size) == member.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "size"), [("x" * 101, 0), ("a.json", 8 * 1024**3), ("ü.jpg", 1)])
def test_what_ustar_cannot_name_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError):
        header(name, size)


def test_another_seed_is_another_order(packed: StageResult, sources: list[UPath], tmp_path: Path) -> None:
    other = SHARDS.run(sources, UPath(tmp_path / "shards"), config_of(seed=4))
    assert manifest_of(other.out)["digest"] != manifest_of(packed.out)["digest"]


def test_grey_images_get_three_channels(tmp_path: Path) -> None:
    grey = Pair("a" * 32, image=picture(7, colour=False), size_px=(18, 16))
    result = SHARDS.run(judged(tmp_path, [grey]), UPath(tmp_path / "shards"), config_of(val_share=0.0))
    (row,) = pq.read_table(result.out / "train" / "000000.index.parquet").to_pylist()
    tar = (result.out / "train" / "000000.tar").read_bytes()
    stored = Image.open(io.BytesIO(tar[row["image_offset"] : row["image_offset"] + row["image_size"]]))
    assert (stored.mode, stored.size) == ("RGB", (18, 16))
    before = np.asarray(Image.open(io.BytesIO(grey.image)).convert("RGB")).astype(int)
    assert np.abs(np.asarray(stored).astype(int) - before).mean() <= 3
    assert list(manifest_of(result.out)["splits"]) == ["train"] and not (result.out / "val").exists()


@pytest.mark.parametrize(
    ("broken", "found"),
    [(Pair("a", image=b"x" * 900), "SOI|JPEG"), (Pair("a", image=picture(1), size_px=(9, 9)), "17x16")],
)
def test_an_image_that_is_not_what_was_listed_stops_the_packing(tmp_path: Path, broken: Pair, found: str) -> None:
    with pytest.raises(
        InputError, match=rf"part-00000/00000\.tar at byte 512: .*({found}).*; delete \S+/part-00000 and"
    ):
        SHARDS.run(judged(tmp_path, [broken]), UPath(tmp_path / "shards"), config_of(val_share=0.0))
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("store", ["", "memory://test-broken-shards"])
@pytest.mark.parametrize(
    ("left_bytes", "problem"), [(None, "is gone"), (0, "ends within the image at byte 512"), (700, "ends within")]
)
def test_a_tar_that_is_gone_or_cut_short_says_which_part_to_delete(
    tmp_path: Path, store: str, left_bytes: int | None, problem: str
) -> None:
    sources = judged(tmp_path, [Pair("a", image=picture(1), size_px=(17, 16))])
    if store:
        sources = [copied(source, UPath(store) / source.name) for source in sources]
    tar = sources[2] / "00000.tar"
    data = tar.read_bytes()
    tar.unlink()
    if left_bytes is not None:
        tar.write_bytes(data[:left_bytes])
    with pytest.raises(InputError, match=rf"part-00000/00000\.tar {problem}.*; delete \S+/part-00000 and run again"):
        SHARDS.run(sources, UPath(tmp_path / "shards"), config_of(val_share=0.0))


def test_an_object_store_that_has_no_such_range_is_a_tar_cut_short() -> None:
    row = {"folder": UPath("s3://b/part-00000"), "tar": "00000.tar", "image_offset": 512, "stored_bytes": 9}
    with pytest.raises(InputError, match=r"^s3://b/part-00000/00000\.tar ends within .*; delete s3://b/part-00000 and"):
        _whole(row, OSError(errno.EINVAL, "The requested range is not satisfiable"))
    with pytest.raises(PermissionError):
        _whole(row, PermissionError("no"))


def test_no_image_left_is_an_error_with_the_funnel(tmp_path: Path) -> None:
    gone = judged(tmp_path, [Pair("a", status="dns", error="dns: no")])
    with pytest.raises(InputError, match=r"no image is left.*found kept 52 of 60 \(dropped no_caption 8\)\. Loosen"):
        SHARDS.run(gone, UPath(tmp_path / "shards"), config_of())


@pytest.mark.parametrize(("samples", "most"), itertools.product([1, 2, 7, 8, 9, 16, 17, 50], [1, 3, 8]))
def test_shards_are_filled_evenly(tmp_path: Path, samples: int, most: int) -> None:
    ids = [f"{number:032x}" for number in range(samples)]
    verdicts = pa.table(
        {
            **{name: ids for name in ("pair_id", "url", "page_url", "caption", "text_key", "source", "sha256")},
            **{
                name: pa.array([1] * samples, pa.int32())
                for name in ("width_px", "height_px", "original_width_px", "original_height_px", "stored_bytes")
            },
            "captions": [[pair_id] for pair_id in ids],
            "drop_reason": pa.nulls(samples, pa.string()),
            "part": pa.array([0] * samples, pa.int32()),
        }
    )
    results = pa.table({"pair_id": ids, "status": ["ok"] * samples, "tar": ids, "image_offset": range(samples)})
    pq.write_table(verdicts, tmp_path / "verdicts")
    pq.write_table(results, tmp_path / "results")
    pq.write_table(pa.table({"pair_id": pa.array([], pa.string())}), tmp_path / "taken_down")
    query_to_parquet(
        "shard_order",
        tmp_path / "order",
        QueryConfig(threads=1),
        verdicts=tmp_path / "verdicts",
        results=[tmp_path / "results"],
        taken_down=tmp_path / "taken_down",
        seed=0,
        val_share=0.0,
        samples_per_shard=most,
    )
    shards = pq.read_table(tmp_path / "order")["shard"].to_pylist()
    sizes = [len(list(group)) for _, group in itertools.groupby(shards)]
    assert shards == sorted(shards) and set(shards) == set(range(-(-samples // most)))
    assert sum(sizes) == samples and max(sizes) <= most and sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


def test_downloads_in_an_object_store(packed: StageResult, sources: list[UPath]) -> None:
    store = UPath("memory://test-shards")
    remote = [copied(source, store / source.parent.name / source.name) for source in sources]
    out = store / "shards"
    SHARDS.run(remote, out, config_of())
    local = files_of(packed.out)
    assert {name: (out / name).read_bytes() for name in local} == local
