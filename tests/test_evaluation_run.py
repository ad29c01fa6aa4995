"""A whole evaluation of a small random model: results, cache, marker, and what a person is told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from evaluation_inputs import COLOURS, TEMPLATES, picture, write_config, write_run, write_set, write_shards
from safetensors.torch import load_file

from model.checkpoint import load_run
from model.config import EvaluateConfig
from model.data import normalise
from model.errors import InputError
from model.evaluation.__main__ import main
from model.evaluation.embed import Embedder, check_finite
from model.evaluation.embed_sets import ToEmbed, embed_sets
from model.evaluation.images import pixels
from model.evaluation.measure import measure_name, missing, report, subject_of
from model.evaluation.prepare import Evaluation, finished, prepare
from model.evaluation.prompts import prompt_features
from model.evaluation.sets import read_set
from model.evaluation.summary import Summary

CAPTIONS = [
    ["a red thing"],
    ["a green thing", "something green"],
    ["a blue thing"],
    ["a yellow thing"],
    ["A red  thing"],
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """set/colours, shards, run: never written to by a test."""
    folder = tmp_path_factory.mktemp("inputs")
    write_set(folder / "set" / "colours")
    write_shards(folder / "shards", train=CAPTIONS * 2, val=CAPTIONS)
    write_run(folder / "run")
    return folder


@pytest.fixture
def out(tmp_path: Path, inputs: Path) -> Path:
    return write_config(tmp_path / "out", [inputs / "set" / "colours"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Path:
    """The evaluation of these inputs, once for all tests, for its report takes long: never written to by a test."""
    out = write_config(tmp_path_factory.mktemp("undisturbed") / "out", [inputs / "set" / "colours"])
    assert main([str(out), "--run", str(inputs / "run"), "--shards", str(inputs / "shards")]) == 0
    return out


@pytest.fixture
def done(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(undisturbed, tmp_path / "out")


def prepared_in(out: Path, run: Path, inputs: Path) -> Evaluation:
    return prepare(out, run, str(inputs / "shards"), EvaluateConfig.read(out / "config.json"))


def measure_missing(prepared: Evaluation) -> list[str]:
    """All but the report; returns what was missing, then what was said."""
    subject, todo = subject_of(prepared), missing(prepared)
    lines = list(todo)
    embed_sets([ToEmbed(prepared, subject, todo)], lines.append)
    for name in todo:
        measure_name(name, prepared, subject, lines.append)
    return lines


Evaluate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evaluate(inputs: Path, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Run the command; returns its status, what it printed, and what it complained of."""

    def run(out: Path, run: Path | None = None, shards: Path | None = None, *more: str) -> tuple[int, str, str]:
        arguments = [str(out), "--run", str(run or inputs / "run"), "--shards", str(shards or inputs / "shards"), *more]
        status = main(arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_everything_is_written(out: Path, evaluate: Evaluate) -> None:
    status, printed, complained = evaluate(out)
    assert (status, complained) == (0, "")
    weights = json.loads((out / "summary.json").read_text())["inputs"]["weights_sha256"][:12]
    written = {str(path.relative_to(out)).replace(weights, "SHA") for path in out.rglob("*") if path.is_file()}
    assert written == {
        "config.json",
        "done.json",
        "features/colours.safetensors",
        "features/retrieval.safetensors",
        "clip_benchmark/colours_SHA_random_en_zeroshot_classification.json",
        "clip_benchmark/colours_val_SHA_random_en_zeroshot_retrieval.json",
        "report.html",
        "measured/colours.json",
        "measured/retrieval.json",
        "report.md",
        "results.csv",
        "results/colours.json",
        "results/retrieval.json",
        "summary.json",
    }
    assert "embedding colours 4/12\nembedding colours 8/12\nembedding colours 12/12\n" in printed
    summary = Summary.model_validate_json((out / "summary.json").read_text())
    (found,) = summary.sets
    assert found == type(found).model_validate_json((out / "results" / "colours.json").read_text())
    line = next(line for line in printed.splitlines() if line.startswith("colours "))
    assert f"{100 * found.top1.value:.1f}" in line and line.endswith("25.0")
    assert json.loads((out / "summary.json").read_text())["rows"][0]["set"] == "colours"
    # Two of five captions are one to the model: lower-cased, one space for two.
    assert (summary.retrieval.images, summary.retrieval.texts) == (5, 5)


def test_accuracy_is_that_of_the_model_image_by_image(undisturbed: Path, inputs: Path) -> None:
    summary = Summary.model_validate_json((undisturbed / "summary.json").read_text())
    run = load_run(inputs / "run")
    right = 0
    with torch.inference_mode():
        classes = []
        for name in COLOURS:
            units = []
            for template in TEMPLATES:
                (feature_D,) = run.model.encode_text(run.tokenizer.encode([template.replace("{c}", name)]))
                units.append(feature_D / feature_D.norm())
            mean_D = torch.stack(units).mean(dim=0)
            classes.append(mean_D / mean_D.norm())
        for sample in read_set(inputs / "set" / "colours").samples:
            image = torch.from_numpy(pixels(sample.image.read(), 32).copy())[None]
            (feature_D,) = run.model.encode_image(normalise(image))
            similarities = [float(feature_D @ class_D) for class_D in classes]
            right += similarities.index(max(similarities)) == sample.label
    assert summary.sets[0].top1.value == pytest.approx(right / 12)


@pytest.mark.parametrize("kind", ["bag_of_words", "captioning"])
def test_classes_are_chosen_by_the_words_that_are_likeliest(
    kind: str, out: Path, evaluate: Evaluate, inputs: Path, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run", objective={"kind": kind})
    assert evaluate(out, folder)[0] == 0
    summary = Summary.model_validate_json((out / "summary.json").read_text())
    run = load_run(folder)
    right = 0
    with torch.inference_mode():
        for sample in read_set(inputs / "set" / "colours").samples:
            image = normalise(torch.from_numpy(pixels(sample.image.read(), 32).copy())[None])
            scores = []
            for name in COLOURS:
                prompts = [run.tokenizer.encode([template.replace("{c}", name)]) for template in TEMPLATES]
                scores.append(sum(float(run.objective.score_texts(image, prompt)) for prompt in prompts))
            right += scores.index(max(scores)) == sample.label
    assert summary.sets[0].top1.value == pytest.approx(right / 12)
    assert summary.retrieval.reason == f"{kind} has no features of texts to search with"
    assert "likeliest" in (out / "report.html").read_text()


@pytest.mark.parametrize("kind", ["masked_lm", "simclr", "moco"])
def test_a_model_that_judges_no_texts_is_told_so_and_its_features_kept(
    kind: str, out: Path, evaluate: Evaluate, inputs: Path, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run", objective={"kind": kind})
    status, printed, _ = evaluate(out, folder)
    assert status == 0
    reason = f"{kind} learns no match of an image and a text"
    assert f"zero-shot skipped: {reason}" in printed and reason in (out / "report.html").read_text()
    image = read_set(inputs / "set" / "colours").samples[3].image
    with torch.inference_mode():
        expected_BD = load_run(folder).objective.encode_image(
            normalise(torch.from_numpy(pixels(image.read(), 32).copy())[None])
        )
    found = load_file(out / "features" / "colours.safetensors")["features"]
    assert len(found) == 12
    torch.testing.assert_close(found[3:4], expected_BD, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match=f"learned {kind}: it has no two towers"):
        _ = load_run(folder).model


def test_done_is_done(done: Path, evaluate: Evaluate) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    status, printed, _ = evaluate(done)
    assert status == 0
    assert printed.startswith("this very evaluation is done already")
    assert "colours" in printed
    assert before == {path: path.stat().st_mtime_ns for path in done.rglob("*")}


def test_features_are_reused_for_the_same_pixels_and_weights_only(done: Path, inputs: Path, tmp_path: Path) -> None:
    cache = done / "features" / "colours.safetensors"
    first = load_file(cache)["features"]
    # Other prompts: measured anew, but no image is looked at again.
    words = tmp_path / "words" / "colours"
    shutil.copytree(inputs / "set" / "colours", words)
    (words / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    write_config(done, [words])
    assert measure_missing(prepared_in(done, inputs / "run", inputs)) == [
        "colours",
        "features of colours are in the cache",
    ]
    assert json.loads((done / "results" / "colours.json").read_text())["templates"] == ["a {c}"]
    # Other weights: every image again.
    run = write_run(tmp_path / "run", seed=1)
    lines = measure_missing(prepared_in(done, run, inputs))
    assert lines[:2] == ["colours", "retrieval"] and "embedding colours 12/12" in lines
    assert not any("in the cache" in line for line in lines)
    assert not torch.equal(first, load_file(cache)["features"])
    # Other images under the same names.
    write_set(words, [[("0000.jpg", picture("blue", 99)), ("0000.cls", b"0")]])
    lines = measure_missing(prepared_in(done, run, inputs))
    assert lines == ["colours", "embedding colours 1/1"]


def test_damaged_cache_is_made_anew(done: Path, inputs: Path) -> None:
    cache = done / "features" / "colours.safetensors"
    whole = cache.read_bytes()
    cache.write_bytes(whole[:60])
    (done / "measured" / "colours.json").unlink()
    lines = measure_missing(prepared_in(done, inputs / "run", inputs))
    assert lines[0] == "colours" and lines[-1] == "embedding colours 12/12"
    assert cache.read_bytes() == whole


def test_same_inputs_same_bytes_in_another_folder(
    undisturbed: Path, evaluate: Evaluate, tmp_path: Path, inputs: Path
) -> None:
    shutil.copytree(inputs / "set", tmp_path / "moved")
    other = write_config(tmp_path / "other", [tmp_path / "moved" / "colours"])
    evaluate(other)
    for path in sorted(undisturbed.rglob("*")):
        if path.is_file() and path.name != "config.json":
            assert path.read_bytes() == (other / path.relative_to(undisturbed)).read_bytes(), path.name


def test_few_unreadable_images_are_counted_and_shown(evaluate: Evaluate, tmp_path: Path) -> None:
    members = [
        member
        for number in range(100)
        for member in ((f"{number:03d}.jpg", picture("red", number)), (f"{number:03d}.cls", b"0"))
    ]
    members[84] = ("042.jpg", b"this was an image once")
    out = write_config(tmp_path / "out", [write_set(tmp_path / "colours", [members])], batch=64)
    assert evaluate(out)[0] == 0
    result = json.loads((out / "results" / "colours.json").read_text())
    assert result["images"] == 99
    assert result["unreadable"] == [{"key": "0.tar/042", "reason": "not an image that can be decoded"}]
    assert "0.tar/042" in (out / "report.html").read_text()


def test_many_unreadable_images_are_an_error(evaluate: Evaluate, tmp_path: Path) -> None:
    members = [("a.jpg", b"no"), ("a.cls", b"0"), ("b.jpg", picture("red", 1)), ("b.cls", b"0")]
    out = write_config(tmp_path / "out", [write_set(tmp_path / "colours", [members])])
    status, _, complained = evaluate(out)
    assert status == 2
    assert "colours: 1 of 2 images cannot be read, more than 1%" in complained and "0.tar/a" in complained
    assert not (out / "done.json").exists()


def test_no_validation_split_is_skipped_with_a_reason(evaluate: Evaluate, tmp_path: Path, inputs: Path) -> None:
    shards = write_shards(tmp_path / "shards", train=CAPTIONS)
    out = write_config(tmp_path / "out", [inputs / "set" / "colours"])
    status, printed, _ = evaluate(out, None, shards)
    assert status == 0
    assert "retrieval skipped: the data set 'colours' has no validation split" in printed
    result = json.loads((out / "results" / "retrieval.json").read_text())
    assert result["status"] == "skipped" and "val_share" in result["reason"]


def test_result_of_a_set_that_is_no_longer_named_is_removed(done: Path, evaluate: Evaluate) -> None:
    write_config(done, [], retrieval_samples=2)
    assert evaluate(done)[0] == 0
    assert [path.name for path in (done / "results").iterdir()] == ["retrieval.json"]
    assert json.loads((done / "results" / "retrieval.json").read_text())["images"] == 2


def test_configuration_can_be_given(evaluate: Evaluate, tmp_path: Path, inputs: Path) -> None:
    given = write_config(tmp_path / "given", [inputs / "set" / "colours"]) / "config.json"
    assert evaluate(tmp_path / "out", None, None, "--config", str(given))[0] == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["batch"] == 4


def test_what_a_person_is_told(evaluate: Evaluate, tmp_path: Path, inputs: Path) -> None:
    out = tmp_path / "out"
    assert evaluate(out)[::2] == (
        2,
        f"error: {out}/config.json: no such file; write the EvaluateConfig there as JSON\n",
    )
    write_config(out, [], batch=0)
    assert "config.json: batch: Input should be greater than or equal to 1" in evaluate(out)[2]
    write_config(out, [inputs / "nowhere"])
    assert f"{inputs}/nowhere: no such folder" in evaluate(out)[2]
    write_config(out, [])
    assert "not a finished run" in evaluate(out, tmp_path)[2]
    assert "manifest.json: no such file" in evaluate(out, None, tmp_path)[2]
    damaged = shutil.copytree(inputs / "run", tmp_path / "damaged")
    with (damaged / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert "model.safetensors is damaged: its sha256" in evaluate(out, damaged)[2]


@pytest.mark.parametrize("file", ["done.json", "summary.json"])
def test_a_damaged_marker_is_no_evaluation(done: Path, evaluate: Evaluate, inputs: Path, file: str) -> None:
    whole = (done / file).read_bytes()
    assert finished(prepared_in(done, inputs / "run", inputs)) is not None
    for content in (b"{", b"[]", b"\xff", b""):
        (done / file).write_bytes(content)
        assert finished(prepared_in(done, inputs / "run", inputs)) is None
    status, printed, complained = evaluate(done)
    assert (status, complained) == (0, "") and "nothing to do" not in printed
    assert (done / file).read_bytes() == whole


def test_weights_of_another_architecture_are_told_in_one_line(evaluate: Evaluate, tmp_path: Path, inputs: Path) -> None:
    run = shutil.copytree(inputs / "run", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["model"]["embed_dim"] *= 2
    (run / "config.json").write_text(json.dumps(config))
    status, _, complained = evaluate(write_config(tmp_path / "out", []), run)
    assert status == 2 and len(complained.splitlines()) == 1
    assert "model.safetensors is not of the model that" in complained and "size mismatch for" in complained


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", b"{", "config.json: file: Invalid JSON"),
        ("tokenizer.json", b"{", "tokenizer.json is damaged"),
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("done.json", b"{", "done.json is damaged, or of another version; delete it and train"),
        ("metrics.jsonl", b"{\n", "metrics.jsonl line 1: not a line of metrics"),
        ("model.safetensors", b"", "is not the one that was recorded; train"),
        ("model.safetensors", None, "model.safetensors is missing"),
    ],
)
def test_a_damaged_run_is_told_in_one_line(
    evaluate: Evaluate, tmp_path: Path, inputs: Path, file: str, content: bytes | None, says: str
) -> None:
    run = shutil.copytree(inputs / "run", tmp_path / "run")
    (run / file).unlink()
    if content is not None:
        (run / file).write_bytes(content)
    status, _, complained = evaluate(write_config(tmp_path / "out", [inputs / "set" / "colours"]), run)
    assert (
        status == 2 and complained.startswith(f"error: {run}/") and says in complained and complained.count("\n") == 1
    )


def test_classes_that_the_model_cannot_tell_apart_are_told(evaluate: Evaluate, tmp_path: Path) -> None:
    long = "a very long name that is cut before it ends " * 5
    for number, (names, told) in enumerate(
        [
            (("red", "green", "blue", "yellow"), ""),
            (("red", "green", "red", "yellow"), "2 of 4 classes .*: 'red' (lines 1, 3)"),
            (("Red", "green", "red ", "yellow"), "2 of 4 classes .*: 'Red' (lines 1, 3)"),
            (tuple(long + colour for colour in COLOURS), "4 of 4 classes .*: 'a very long .*' (lines 1, 2, 3, 4)"),
        ]
    ):
        found = write_set(tmp_path / str(number) / "colours", class_names=names)
        status, printed, _ = evaluate(write_config(tmp_path / str(number) / "out", [found]))
        warnings = [line for line in printed.splitlines() if line.startswith("warning: colours: ")]
        assert status == 0 and len(warnings) == bool(told)
        assert all(re.search(re.escape(told).replace(r"\.\*", ".*"), line) for line in warnings), warnings


def test_a_diverged_model_is_not_measured() -> None:
    with pytest.raises(InputError, match="colours: the model gives 1 features that are not finite"):
        check_finite("colours", torch.tensor([[1.0, 2.0], [float("nan"), 0.0]]))


def test_prompts_together_are_prompts_one_by_one(inputs: Path) -> None:
    run = load_run(inputs / "run")
    embedder = Embedder(run.model, run.tokenizer, "", 32, torch.device("cpu"), 4)
    found = read_set(inputs / "set" / "colours")
    together_CTD = prompt_features(embedder, found)
    with torch.inference_mode():
        for label in range(4):
            for place, prompt in enumerate(found.prompts(label)):
                alone_D = run.model.encode_text(run.tokenizer.encode([prompt]))[0]
                assert torch.allclose(together_CTD[label, place], alone_D, atol=1e-5)


def test_nothing_measured_is_an_error_and_anything_is_none(out: Path, inputs: Path, tmp_path: Path) -> None:
    """Of the sets that were named, with captions too; of the validation split only where none was."""
    members = [
        ("a.jpg", picture("red", 1)),
        ("a.txt", b"something red"),
        ("b.jpg", picture("blue", 2)),
        ("b.txt", b"it"),
    ]
    captions = write_set(tmp_path / "captions", [members])
    (captions / "dataset_type.txt").write_text("retrieval\n")
    write_config(out, [captions])
    prepared = prepared_in(out, inputs / "run", inputs)
    assert measure_missing(prepared)[:2] == ["captions", "retrieval"]
    subject = subject_of(prepared)
    told = report(prepared, subject, {"retrieval": "of no use"})
    assert (told.retrieval.reason, told.retrieval_sets[0].images) == ("of no use", 2)
    assert json.loads((out / "results" / "retrieval.json").read_text())["status"] == "skipped"
    assert missing(prepared) == ["retrieval"] and not (out / "done.json").exists()
    with pytest.raises(InputError, match="captions broke"):
        report(prepared, subject, {"captions": "captions broke"})
    write_config(out, [])
    alone = prepared_in(out, inputs / "run", inputs)
    with pytest.raises(InputError, match="split broke"):
        report(alone, subject, {"retrieval": "split broke"})
