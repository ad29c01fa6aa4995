"""`wit takedown` on a workspace in an object store: a real S3 server, and work that is broken off between two changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3fs
from built_shards import GONE, QUERY, Built, files_of, listed, opened
from moto.server import ThreadedMotoServer
from upath import UPath

from flows.takedown import takedown as run_takedown
from flows.workspace import Workspace
from pipeline import takedown
from pipeline.takedown import SCRATCH, finish, take_down
from pipeline.tombstones import add_tombstones, tombstone_files
from pipeline.verify import verify


class BrokenOffError(Exception):
    """What ends the program here: no other name is caught for it."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    Built(folder)
    return folder


@pytest.fixture(scope="module")
def expected(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a build that knew the tombstones from the start."""
    folder = tmp_path_factory.mktemp("expected")
    table = UPath(folder / "tombstones.parquet")
    add_tombstones(tombstone_files(listed(folder)), table, QUERY)
    shutil.copytree(root, folder / "space")
    return files_of(Path(opened(folder / "space").packed(UPath(folder / "shards"), table).out.path))


@pytest.fixture(scope="module")
def store() -> Iterator[s3fs.S3FileSystem]:
    """An S3 server with the bucket `wit`, which is found as a user's is: by the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patched.setenv(name, "any")
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem()
        files.mkdir("wit")
        yield files
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def upload(store: s3fs.S3FileSystem, root: Path, name: str) -> Workspace:
    """A copy of the workspace in the bucket."""
    for file in root.rglob("*"):
        if file.is_file():
            store.pipe_file(f"wit/{name}/{file.relative_to(root)}", file.read_bytes())
    store.invalidate_cache()
    return Workspace.at(f"s3://wit/{name}")


def shards_of(store: s3fs.S3FileSystem, shards: UPath, folder: Path) -> dict[str, bytes]:
    """What the bucket holds of the shards, as another program sees it."""
    store.invalidate_cache()
    for name in store.find(shards.path):
        target = folder / name.removeprefix(f"{shards.path}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.cat_file(name))
    return files_of(folder)


def problems(shards: UPath) -> list[str]:
    told: list[str] = []
    verify(shards, told.append)
    return told


def test_the_bytes_are_those_of_a_build_that_never_had_them(
    store: s3fs.S3FileSystem, root: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    space = upload(store, root, "whole")
    said = run_takedown(space, "small", listed(tmp_path), QUERY)
    assert f"{len(GONE)} samples taken down" in said and "tombstones new to the workspace: 7" in said
    shards = space.dataset("small").shards
    assert shards_of(store, shards, tmp_path / "copy") == expected
    assert problems(shards) == []
    again = run_takedown(space, "small", listed(tmp_path), QUERY)
    assert "0 samples taken down, 0 shards written anew; tombstones new to the workspace: 0" in again


class Breaking:
    """Runs work that ends with BrokenOffError when it would change the store once more than so many times."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self._patched = patched
        self._ask = s3fs.S3FileSystem._call_s3

    def after(self, changes: int, work: Callable[..., object], *arguments: object) -> bool:
        """Returns whether it was broken off."""
        breaking = self
        left = changes

        async def call(store: s3fs.S3FileSystem, method: str, *given: object, **named: object) -> object:
            nonlocal left
            if method in ("put_object", "copy_object", "delete_object", "delete_objects"):
                if not left:
                    raise BrokenOffError
                left -= 1
            return await breaking._ask(store, method, *given, **named)

        s3fs.S3FileSystem.clear_instance_cache()  # another process knows no listing of this one
        with self._patched.context() as patched:
            patched.setattr(s3fs.S3FileSystem, "_call_s3", call)
            try:
                work(*arguments)
            except BrokenOffError:
                return True
        return False


def test_broken_off_at_any_change_nobody_reads_a_mixture_and_it_goes_on(
    store: s3fs.S3FileSystem, root: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = upload(store, root, "broken").dataset("small").shards
    before = shards_of(store, shards, tmp_path / "before")
    shutil.copytree(root, tmp_path / "space")
    built = opened(tmp_path / "space")
    table = UPath(tmp_path / "tombstones.parquet")
    add_tombstones(tombstone_files(listed(tmp_path)), table, QUERY)
    work = (shards, built.verdicts, built.taken_down(table), QUERY)
    breaking = Breaking(monkeypatch)
    assert breaking.after(3, take_down, *work), "in the middle of what is made ready"
    early = shards_of(store, shards, tmp_path / "early")
    assert {name: data for name, data in early.items() if not name.startswith(SCRATCH)} == before != early
    with monkeypatch.context() as patched:
        patched.setattr(takedown, "finish", lambda _: None)
        take_down(*work)
    could_be_read = []
    # One change more each time, for the first of them does again what the last had not ended.
    while breaking.after(1 + len(could_be_read), finish, shards):
        could_be_read.append((shards / "manifest.json").exists())
        assert not could_be_read[-1] or problems(shards) == []
    assert len(could_be_read) > 4 and set(could_be_read[:4]) == {True, False}
    assert shards_of(store, shards, tmp_path / "after") == expected
