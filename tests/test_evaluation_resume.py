"""After an evaluation was stopped: the sets that were measured are kept, the others measured, and the figures are the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from evaluation_inputs import write_config, write_run, write_set, write_shards, write_split

from model.config import EvaluateConfig
from model.evaluation.embed_sets import ToEmbed, embed_sets
from model.evaluation.measure import measure, measure_name, missing, subject_of
from model.evaluation.prepare import Evaluation, prepare


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_shards(folder / "shards", [["a red thing"]] * 4, [["a red thing"], ["a blue thing"]])
    write_run(folder / "run")
    write_set(folder / "first")
    write_split(write_set(folder / "second") / "train", per_class=3, first=100)
    return folder


def prepared_in(out: Path, inputs: Path) -> Evaluation:
    write_config(out, [inputs / "first", inputs / "second"], few_shot=[])
    return prepare(out, inputs / "run", str(inputs / "shards"), EvaluateConfig.read(out / "config.json"))


def measure_missing(prepared: Evaluation) -> list[str]:
    """All but the report, which takes long; returns what was said."""
    lines: list[str] = []
    subject = subject_of(prepared)
    embed_sets([ToEmbed(prepared, subject, missing(prepared))], lines.append)
    for name in missing(prepared):
        measure_name(name, prepared, subject, lines.append)
    return lines


def all_bytes(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    measure_missing(prepared_in(out, inputs))
    return out


def test_what_was_measured_is_not_measured_again(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if line.startswith("fitting the linear probe of second"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(prepared_in(tmp_path, inputs), stop)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["first.json"]
    assert missing(prepared_in(tmp_path, inputs)) == ["second", "retrieval"]
    lines = measure_missing(prepared_in(tmp_path, inputs))
    assert lines[:3] == [f"features of {name} are in the cache" for name in ("second", "second/train", "retrieval")]
    assert lines[3].startswith("fitting the linear probe of second") and len(lines) == 4
    assert all_bytes(tmp_path) == all_bytes(undisturbed)


@pytest.mark.parametrize(
    ("file", "content"),
    [("results/second.json", b"{}"), ("measured/second.json", b"\xff"), ("results/second.json", None)],
)
def test_a_damaged_result_is_none(
    file: str, content: bytes | None, inputs: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (out / file).unlink()
    if content is not None:
        (out / file).write_bytes(content)
    prepared = prepared_in(out, inputs)
    assert missing(prepared) == ["second"]
    measure_missing(prepared)
    assert all_bytes(out) == all_bytes(undisturbed)


@pytest.mark.parametrize("damage", ["a feature", "the metadata", "cut off"])
def test_damaged_features_are_made_anew(inputs: Path, undisturbed: Path, tmp_path: Path, damage: str) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    for folder in ("results", "measured"):
        (out / folder / "second.json").unlink()
    cache = out / "features/second.safetensors"
    content = bytearray(cache.read_bytes())
    if damage == "cut off":
        content = content[:-40]
    else:
        place = content.index(b'"about"') + 12 if damage == "the metadata" else len(content) - 100
        content[place] ^= 0x41
    cache.write_bytes(content)
    lines = measure_missing(prepared_in(out, inputs))
    assert [line for line in lines if line.startswith("embedding second")]
    assert all_bytes(out) == all_bytes(undisturbed)


def test_other_inputs_are_measured_anew(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    assert missing(prepared_in(out, inputs)) == []
    words = shutil.copytree(inputs / "first", tmp_path / "first")
    (words / "classnames.txt").write_text("red\ngreen\nblue\nviolet\n")
    run, shards = inputs / "run", str(inputs / "shards")
    config = EvaluateConfig.read(write_config(out, [words, inputs / "second"], few_shot=[]) / "config.json")
    assert missing(prepare(out, run, shards, config)) == ["first"]
    assert missing(prepare(out, run, shards, config.model_copy(update={"processes": 2}))) == ["first"]
    every = ["first", "second", "retrieval"]
    assert missing(prepare(out, run, shards, config.model_copy(update={"confidence": 0.9}))) == every
    assert missing(prepare(out, write_run(tmp_path / "other", seed=1), shards, config)) == every
