"""`wit takedown`: what goes is gone from all files, what stays keeps its bytes, a kill at any step leaves nothing half done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from built_shards import BY_ID, GONE, NAMES, QUERY, Built, files_of, listed, opened
from kills import killed
from upath import UPath

from flows import cli
from model.data import open_dataset
from pipeline import takedown
from pipeline.errors import InputError
from pipeline.takedown import READY, SCRATCH, TakenDown, finish, take_down
from pipeline.tombstones import add_tombstones, tombstone_files
from pipeline.verify import verify


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original")
    Built(root)
    return root


@pytest.fixture(scope="module")
def tombstones(tmp_path_factory: pytest.TempPathFactory) -> UPath:
    """The table of LISTS."""
    folder = tmp_path_factory.mktemp("lists")
    table = UPath(folder / "tombstones.parquet")
    assert add_tombstones(tombstone_files(listed(folder)), table, QUERY) == 7
    assert add_tombstones(tombstone_files(listed(folder)), table, QUERY) == 0
    return table


@pytest.fixture(scope="module")
def expected(original: Path, tombstones: UPath, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a build that knew the tombstones from the start."""
    root = tmp_path_factory.mktemp("expected") / "space"
    shutil.copytree(original, root)
    built = opened(root)
    return files_of(Path(built.packed(UPath(root / "other"), tombstones).out.path))


@pytest.fixture
def built(original: Path, tmp_path: Path) -> Built:
    shutil.copytree(original, tmp_path / "space")
    return opened(tmp_path / "space")


def samples_of(shards: UPath) -> dict[str, dict[str, Any]]:
    files = [shards / split / "samples.parquet" for split in ("train", "val")]
    return {row["pair_id"]: row for file in files for row in pq.read_table(file).to_pylist()}


def problems(shards: UPath) -> list[str]:
    told: list[str] = []
    verify(shards, told.append)
    return told


def test_the_bytes_are_those_of_a_build_that_never_had_them(
    built: Built, tombstones: UPath, expected: dict[str, bytes]
) -> None:
    shards = built.data.shards
    before, samples = files_of(Path(shards.path)), samples_of(shards)
    concerned = {samples[pair_id]["shard"] for pair_id in GONE}
    done = take_down(shards, built.verdicts, built.taken_down(tombstones), QUERY)
    assert done == TakenDown(samples=len(GONE), shards=len(concerned))
    after = files_of(Path(shards.path))
    assert after == expected
    assert {name for name in after if name.endswith(".tar") and after[name] != before[name]} == concerned
    assert samples_of(shards) == {pair_id: row for pair_id, row in samples.items() if pair_id not in GONE}
    assert problems(shards) == []
    assert json.loads(after["manifest.json"])["taken_down"] == len(GONE)
    for name, data in after.items():
        assert not any(pair_id.encode() in data or BY_ID[pair_id].image in data for pair_id in GONE), name
    again = built.packed(shards, tombstones)
    assert again.was_done and again.counts.dropped == {"taken_down": len(GONE)}
    assert take_down(shards, built.verdicts, built.taken_down(tombstones), QUERY) == TakenDown(0, 0)


def test_training_reads_what_is_left_and_sees_another_data_set(built: Built, tombstones: UPath) -> None:
    shards = built.data.shards
    before = open_dataset(shards.path).digest
    take_down(shards, built.verdicts, built.taken_down(tombstones), QUERY)
    dataset = open_dataset(shards.path)
    assert dataset.digest != before
    rows = {row["key"]: row for row in pq.read_table(shards / "train" / "samples.parquet").to_pylist()}
    for number, key in enumerate(rows):
        sample = dataset.train.read(number)
        assert (sample.caption, sample.image) == (rows[key]["caption"], BY_ID[rows[key]["pair_id"]].image)
        assert dataset.train.where(number).endswith(f"{rows[key]['shard']}: sample {key}")
    assert len(dataset.train) == len(rows) and f"{len(rows) - 1:09d}" < max(rows)


def test_a_shard_that_loses_all_its_samples_stays_as_an_empty_tar(built: Built, tmp_path: Path) -> None:
    """So that the numbers of the files have no gap, which a pattern such as {000000..000005}.tar would trip over."""
    shards = built.data.shards
    rows = pq.read_table(shards / "train" / "samples.parquet").to_pylist()
    ids = [row["pair_id"] for row in rows if row["shard"] == "train/000001.tar"]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    table = UPath(tmp_path / "table.parquet")
    add_tombstones(tombstone_files({"tombstones": [str(tmp_path / "ids.txt")]}), table, QUERY)
    assert take_down(shards, built.verdicts, built.taken_down(table), QUERY) == TakenDown(len(ids), 1)
    assert problems(shards) == []
    other = built.packed(UPath(tmp_path / "other"), table)
    assert files_of(Path(shards.path)) == files_of(Path(other.out.path))
    assert len(open_dataset(shards.path).train) == len(rows) - len(ids)


def test_tombstones_that_hit_no_sample_change_no_byte_but_the_next_build_finds_all_done(
    built: Built, tmp_path: Path
) -> None:
    table = UPath(tmp_path / "table.parquet")
    (tmp_path / "urls.txt").write_text("http://nobody.example/a.jpg\n")
    add_tombstones(tombstone_files({"urls": [str(tmp_path / "urls.txt")]}), table, QUERY)
    before = files_of(Path(built.data.shards.path))
    assert take_down(built.data.shards, built.verdicts, built.taken_down(table), QUERY) == TakenDown(0, 0)
    assert files_of(Path(built.data.shards.path)) == before
    assert built.packed(built.data.shards, table).was_done


def test_shards_in_an_object_store(built: Built, tombstones: UPath, expected: dict[str, bytes], tmp_path: Path) -> None:
    remote = UPath("memory://test-takedown/shards")
    for file in Path(built.data.shards.path).rglob("*"):
        if file.is_file():
            remote.fs.put_file(str(file), (remote / str(file.relative_to(built.data.shards.path))).path)
    take_down(remote, built.verdicts, built.taken_down(tombstones), QUERY)
    remote.fs.get(remote.path, str(tmp_path / "copy"), recursive=True)
    assert files_of(tmp_path / "copy") == expected


def test_what_cannot_be_done_changes_nothing(built: Built, tombstones: UPath, tmp_path: Path) -> None:
    shards = built.data.shards
    row = samples_of(shards)[NAMES[5]]
    tar = Path(shards.path) / row["shard"]
    data = tar.read_bytes()
    tar.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    before = files_of(Path(shards.path))
    with pytest.raises(
        InputError, match=rf"{row['shard']}: its checksum is not that of the manifest; look with wit verify"
    ):
        take_down(shards, built.verdicts, built.taken_down(tombstones), QUERY)
    finish(shards)
    assert files_of(Path(shards.path)) == before
    tar.write_bytes(data)
    take_down(shards, built.verdicts, built.taken_down(tombstones), QUERY)
    with pytest.raises(InputError, match="lacks samples that no tombstone speaks of any more; run wit build-dataset"):
        take_down(shards, built.verdicts, built.taken_down(None), QUERY)
    everything = tmp_path / "hosts.txt"
    everything.write_text("a.example\nb.example\nc.example\n")
    add_tombstones(tombstone_files({"hosts": [str(everything)]}), UPath(tmp_path / "all.parquet"), QUERY)
    with pytest.raises(InputError, match="no sample would be left to train on; delete the folder instead"):
        take_down(shards, built.verdicts, built.taken_down(UPath(tmp_path / "all.parquet")), QUERY)


@pytest.fixture
def ready(built: Built, tombstones: UPath, monkeypatch: pytest.MonkeyPatch) -> UPath:
    """Shards beside which all new files lie, none of them moved."""
    with monkeypatch.context() as patched:
        patched.setattr(takedown, "finish", lambda shards: None)
        take_down(built.data.shards, built.verdicts, built.taken_down(tombstones), QUERY)
    assert (built.data.shards / SCRATCH / READY).exists()
    return built.data.shards


def states(ready: UPath, tmp_path: Path) -> Iterator[UPath]:
    """The shards after a kill at each step of the moves."""
    for step in range(1, 100):
        folder = UPath(tmp_path / f"step-{step}")
        shutil.copytree(ready.path, folder.path)
        if not killed(step, finish, folder):
            return
        yield folder


def test_killed_between_any_two_moves_nobody_reads_a_mixture_and_it_goes_on(
    ready: UPath, expected: dict[str, bytes], tmp_path: Path
) -> None:
    steps = 0
    for folder in states(ready, tmp_path):
        steps += 1
        if (folder / "manifest.json").exists():
            assert problems(folder) == []
        else:
            with pytest.raises(Exception, match=r"manifest\.json: no such file"):
                open_dataset(folder.path)
        finish(folder)
        assert files_of(Path(folder.path)) == expected
    assert steps > len(GONE)


@pytest.mark.parametrize("step", [1, 4, 9])
def test_killed_before_all_is_written_the_old_shards_are_whole(
    built: Built, tombstones: UPath, expected: dict[str, bytes], step: int
) -> None:
    shards, taken_down = built.data.shards, built.taken_down(tombstones)
    before = files_of(Path(shards.path))
    assert killed(step, take_down, shards, built.verdicts, taken_down, QUERY)
    left = files_of(Path(shards.path))
    assert {name: data for name, data in left.items() if not name.startswith(SCRATCH)} == before
    assert problems(shards) == []
    take_down(shards, built.verdicts, taken_down, QUERY)
    assert files_of(Path(shards.path)) == expected


def test_the_command(
    built: Built, expected: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--workspace", built.space.root.path]
    assert cli.run(["takedown", "small", *root]) == 2
    assert "give at least one list of what to take down" in capsys.readouterr().err
    (tmp_path / "bad.txt").write_text("not a checksum\n")
    assert cli.run(["takedown", "small", "--sha256", str(tmp_path / "bad.txt"), *root]) == 2
    assert "no line can be used as an entry of --sha256: 1 invalid" in capsys.readouterr().err
    options = [word for name, (file,) in listed(tmp_path).items() for word in (f"--{name}", file)]
    assert cli.run(["takedown", "other", *options, *root]) == 2
    assert "no finished data set of that name" in capsys.readouterr().err
    assert cli.run(["takedown", "small", *root]) == 0, "the workspace knows the lists by now"
    assert f"{len(GONE)} samples taken down" in capsys.readouterr().out
    assert files_of(Path(built.data.shards.path)) == expected
