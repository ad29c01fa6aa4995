"""Names become folders in one place, and one writer at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from upath import UPath

from flows.workspace import WORKSPACE_VARIABLE, Workspace, only_writer
from pipeline.errors import InputError


def test_where_a_workspace_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(WORKSPACE_VARIABLE, raising=False)
    assert str(Workspace.at("").root) == str(tmp_path / "workspace")
    monkeypatch.setenv(WORKSPACE_VARIABLE, "/elsewhere")
    assert str(Workspace.at("").root) == "/elsewhere"
    assert str(Workspace.at("given").root) == str(tmp_path / "given")


def test_names_lie_in_the_workspace_and_paths_where_they_say(tmp_path: Path) -> None:
    space = Workspace.at(str(tmp_path))
    assert str(space.shards("tiny")) == str(tmp_path / "datasets" / "tiny" / "shards")
    assert str(space.shards("/other/shards")) == "/other/shards"
    assert str(space.evaluation_set("cifar10")) == str(tmp_path / "evaluation_sets" / "cifar10")
    assert space.run("./here") == Path("./here")


def test_a_data_set_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    space = Workspace.at(str(tmp_path))
    with pytest.raises(InputError, match=r"has no data set 'tinny', it has none$"):
        space.existing_dataset("tinny")
    for name in ("tiny", "cc12m"):
        (tmp_path / "datasets" / name).mkdir(parents=True)
        (tmp_path / "datasets" / f".{name}.lock").touch()
    with pytest.raises(InputError, match=r"has no data set 'tinny', it has cc12m, tiny$"):
        space.existing_shards("tinny")
    assert space.existing_shards("tiny") == space.shards("tiny")
    assert space.existing_shards("./anywhere/shards") == space.shards("./anywhere/shards")


def test_an_object_store_holds_data_but_no_runs() -> None:
    space = Workspace.at("s3://bucket/prefix")
    assert str(space.shards("tiny")) == "s3://bucket/prefix/datasets/tiny/shards"
    with pytest.raises(InputError, match="local"):
        space.run("tiny")


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    folder = UPath(tmp_path / "data")
    with only_writer(folder), pytest.raises(InputError, match="another run is writing"), only_writer(folder):
        pass
    with only_writer(folder):
        pass
