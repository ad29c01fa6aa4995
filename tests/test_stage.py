"""Stages: done once, done anew when anything that decides them changes, never half done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from pipeline.errors import InputError
from pipeline.query import SPEED_ONLY
from pipeline.stage import MARKER, Counts, Stage, prune_parts, read_record, total


class Numbers(BaseModel):
    model_config = ConfigDict(frozen=True)

    times: int = 1
    threads: int = Field(1, json_schema_extra=SPEED_ONLY)


class Nested(BaseModel):
    model_config = ConfigDict(frozen=True)

    numbers: Numbers = Numbers()


def _repeat(sources: Sequence[UPath], out: Path, config: Numbers) -> Counts:
    text = "".join(source.read_text() for source in sources) * config.times
    (out / "text.txt").write_text(text)
    return Counts(rows_in=len(text), rows_kept=len(text))


REPEAT = Stage("repeat", _repeat)


@pytest.fixture
def source(tmp_path: Path) -> UPath:
    path = UPath(tmp_path / "source.txt")
    path.write_text("abc")
    return path


def test_a_finished_stage_is_not_done_again(tmp_path: Path, source: UPath) -> None:
    out = UPath(tmp_path / "out")
    assert not REPEAT.run([source], out, Numbers()).was_done
    (out / "text.txt").write_text("xyz")
    assert REPEAT.run([source], out, Numbers()).was_done
    assert (out / "text.txt").read_text() == "xyz"


def test_speed_does_not_count_as_a_change_but_answers_do(tmp_path: Path, source: UPath) -> None:
    out = UPath(tmp_path / "out")
    REPEAT.run([source], out, Numbers())
    assert REPEAT.run([source], out, Numbers(threads=8)).was_done
    assert not REPEAT.run([source], out, Numbers(times=2)).was_done
    source.write_text("abcd")
    assert not REPEAT.run([source], out, Numbers(times=2)).was_done
    assert (out / "text.txt").read_text() == "abcdabcd"


def test_speed_settings_are_left_out_at_any_depth(tmp_path: Path) -> None:
    stage = Stage("nested", lambda _sources, _out, _config: Counts(rows_in=0, rows_kept=0))
    out = UPath(tmp_path / "out")
    assert stage.run((), out, Nested()).record.config == {"numbers": {"times": 1}}
    assert stage.run((), out, Nested(numbers=Numbers(threads=3))).was_done


def test_a_new_version_or_another_sql_text_is_a_change(tmp_path: Path, source: UPath) -> None:
    out = UPath(tmp_path / "out")
    REPEAT.run([source], out, Numbers())
    assert not Stage("repeat", _repeat, version=2).run([source], out, Numbers()).was_done
    assert not Stage("repeat", _repeat, version=2, sql=("drop_counts",)).run([source], out, Numbers()).was_done


def test_what_fails_leaves_the_old_output_and_no_marker_of_the_new(tmp_path: Path, source: UPath) -> None:
    def fail(_sources: Sequence[UPath], out: Path, _config: Numbers) -> Counts:
        (out / "half.txt").write_text("half")
        raise RuntimeError("killed")

    out = UPath(tmp_path / "out")
    REPEAT.run([source], out, Numbers())
    with pytest.raises(RuntimeError, match="killed"):
        Stage("repeat", fail).run([source], out, Numbers(times=3))
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "text.txt"]
    assert not REPEAT.run([source], out, Numbers(times=3)).was_done
    assert not (out / "half.txt").exists()


def test_a_stage_reads_a_stage_by_content(tmp_path: Path, source: UPath) -> None:
    first, second = UPath(tmp_path / "first"), UPath(tmp_path / "second")
    folder_stage = Stage("copy", lambda sources, out, _config: _repeat([sources[0] / "text.txt"], out, Numbers()))
    REPEAT.run([source], first, Numbers())
    folder_stage.run([first], second, Numbers())
    # Done anew with the same content: what reads it has nothing to do.
    Stage("repeat", _repeat, version=2).run([source], first, Numbers())
    assert folder_stage.run([first], second, Numbers()).was_done


def test_counts_must_add_up() -> None:
    with pytest.raises(ValidationError, match="5 rows in"):
        Counts(rows_in=5, rows_kept=3, dropped={"short": 1})
    parts = [Counts(rows_in=3, rows_kept=1, dropped={"b": 2}), Counts(rows_in=4, rows_kept=2, dropped={"b": 1, "a": 1})]
    assert total(parts) == Counts(rows_in=7, rows_kept=3, dropped={"a": 1, "b": 3})


def test_a_source_that_is_nothing_is_the_persons_to_mend(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        REPEAT.run([UPath(tmp_path / "missing")], UPath(tmp_path / "out"), Numbers())


def test_parts_of_an_earlier_configuration_are_removed(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"part-0000{number}").mkdir()
    (tmp_path / "other").mkdir()
    prune_parts(UPath(tmp_path), [UPath(tmp_path / "part-00001")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "part-00001"]


def test_killed_while_the_old_output_goes_no_marker_vouches_for_the_rest(
    tmp_path: Path, source: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = UPath(tmp_path / "out")
    REPEAT.run([source], out, Numbers())

    def killed(path: str, recursive: bool) -> None:
        (out / "text.txt").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(out.fs, "rm", killed)
        with pytest.raises(KeyboardInterrupt):
            REPEAT.run([source], out, Numbers(times=2))
    assert read_record(out) is None
    assert not REPEAT.run([source], out, Numbers()).was_done
    assert (out / "text.txt").exists()


def test_an_object_store_gets_the_marker_too(source: UPath) -> None:
    out = UPath("memory://bucket/out")
    assert not REPEAT.run([source], out, Numbers()).was_done
    assert REPEAT.run([source], out, Numbers()).was_done
    assert not REPEAT.run([source], out, Numbers(times=2)).was_done
    assert (out / "text.txt").read_text() == "abcabc"
    record = read_record(out)
    assert record is not None and set(record.outputs) == {"text.txt"}


def test_what_was_deleted_or_cut_is_made_anew(tmp_path: Path, source: UPath) -> None:
    out = UPath(tmp_path / "out")
    REPEAT.run([source], out, Numbers())
    whole = (out / "text.txt").read_text()
    for damage in (lambda: (out / "text.txt").unlink(), lambda: (out / "text.txt").write_text(whole[:-1])):
        damage()
        assert not REPEAT.run([source], out, Numbers()).was_done
        assert (out / "text.txt").read_text() == whole


@pytest.mark.parametrize("marker", ["{", "", "[]", '{"stage": "repeat"}'])
def test_a_marker_that_cannot_be_read_vouches_for_nothing(tmp_path: Path, source: UPath, marker: str) -> None:
    out = UPath(tmp_path / "out")
    REPEAT.run([source], out, Numbers())
    (out / MARKER).write_text(marker)
    assert read_record(out) is None
    assert not REPEAT.run([source], out, Numbers()).was_done
