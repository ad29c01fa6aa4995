"""Temporary folders: gone with the block, with the process, and after a kill with the next process that wants one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT
from upath import UPath

from pipeline.query import QueryConfig
from pipeline.scratch import scratch_folder
from pipeline.stage import Counts, Stage

WRITER = """
import sys
from pathlib import Path
from pipeline.query import QueryConfig
from pipeline.scratch import scratch_folder

folder = scratch_folder("duckdb")
Path(folder.name, "spilled").write_bytes(bytes(1_000))
print(folder.name, flush=True)
sys.stdin.readline()
"""


class Process:
    """One that has a scratch folder, until it is told to end or is killed."""

    def __init__(self, temporary: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER],
            cwd=CHECKOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.folder = Path(self.process.stdout.readline().strip())
        assert (self.folder / "spilled").exists()


def test_what_a_killed_process_left_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    (other := tmp_path / "wit-tests").mkdir()
    killed, living = Process(tmp_path), Process(tmp_path)
    killed.process.kill()
    killed.process.wait()
    assert killed.folder.exists()
    last = Process(tmp_path)
    try:
        assert not killed.folder.exists()
        assert living.folder.exists()
        assert set(tmp_path.iterdir()) == {other, living.folder.parent, last.folder.parent}
    finally:
        for each in (living, last):
            each.process.communicate("end\n")
    assert list(tmp_path.iterdir()) == [other]


def test_a_stage_of_an_object_store_that_fails_leaves_nothing_here() -> None:
    found: list[Path] = []

    def work(sources: object, out: Path, config: QueryConfig) -> Counts:
        (out / "half").write_text("done")
        found.append(out)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        Stage("fails", work).run((), UPath("memory://test-scratch/out"), QueryConfig())
    with scratch_folder("other") as folder:
        assert found[0].parent == Path(folder).parent and not found[0].exists()
