"""A model at work: classifier files, classify, search and the page, against the slow obvious way and against open_clip."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from evaluation_inputs import COLOURS, TEMPLATES, picture, write_run, write_shards, write_tar
from fastapi.testclient import TestClient
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from model.checkpoint import Position, Run, load_run
from model.data import normalise
from model.errors import InputError
from model.evaluation.classifier_file import Classifier, build_classifier, load_classifier
from model.evaluation.images import pixels
from model.files import sha256_file
from model.saving import save_checkpoint, take_snapshot
from model.use import search
from model.use import serve as page
from model.use.__main__ import main
from model.use.loading import Loaded, load_model
from model.use.upright import upright_pixels
from model.weights.folders import export_weights

CAPTIONS = [["a red thing"], ["a green thing"], ["a blue thing"], ["a yellow thing"], ["another red thing"]]
LABELS = ["red", "green", "blue, or so"]

Use = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run, other (a run), shards, images/: never written to by a test."""
    folder = tmp_path_factory.mktemp("use")
    write_run(folder / "run")
    write_run(folder / "other", seed=1)
    write_shards(folder / "shards", train=CAPTIONS * 2, val=CAPTIONS[1:])
    (folder / "images" / "below").mkdir(parents=True)
    for number, colour in enumerate(COLOURS):
        place = folder / "images" / ("below" if number == 3 else "")
        (place / f"{colour}.png").write_bytes(picture(colour, number, "png"))
    (folder / "images" / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def loaded(inputs: Path) -> Loaded:
    return load_model(inputs / "run")


@pytest.fixture
def use(capsys: pytest.CaptureFixture[str]) -> Use:
    """Run the command; returns its status, its lines, and what it told besides."""

    def run(*arguments: object) -> tuple[int, list[str], str]:
        status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return run


@cache
def loaded_run(inputs: Path) -> Run:
    return load_run(inputs / "run")


def slow_text(inputs: Path, text: str) -> torch.Tensor:
    run = loaded_run(inputs)
    with torch.inference_mode():
        (feature_D,) = run.model.encode_text(run.tokenizer.encode([text]))
    return feature_D / feature_D.norm()


def slow_image(inputs: Path, image: bytes) -> torch.Tensor:
    run = loaded_run(inputs)
    with torch.inference_mode():
        (feature_D,) = run.model.encode_image(normalise(torch.from_numpy(pixels(image, 32).copy())[None]))
    return feature_D / feature_D.norm()


def slow_probabilities(inputs: Path, image: bytes, labels: Sequence[str], templates: Sequence[str]) -> list[float]:
    image_D = slow_image(inputs, image)
    scale = loaded_run(inputs).objective.scale
    logits = []
    for label in labels:
        mean_D = sum(slow_text(inputs, template.replace("{c}", label)) for template in templates)
        assert isinstance(mean_D, torch.Tensor)
        logits.append(scale * float(image_D @ mean_D / mean_D.norm()))
    return torch.tensor(logits).softmax(dim=0).tolist()


def test_a_classifier_comes_back_from_its_file(loaded: Loaded, tmp_path: Path) -> None:
    built = build_classifier(loaded.embedder, LABELS, TEMPLATES, loaded.scale)
    built.save(tmp_path / "deep" / "classifier.npz")
    back = load_classifier(tmp_path / "deep" / "classifier.npz", loaded.embedder.weights_sha256)
    assert torch.equal(back.weights_DC, built.weights_DC) and back.weights_DC.shape == (8, 3)
    assert (back.class_names, back.templates, back.logit_scale) == (tuple(LABELS), TEMPLATES, loaded.scale)
    torch.testing.assert_close(back.weights_DC.norm(dim=0), torch.ones(3))
    # Anyone's numpy reads it, without pickle.
    with np.load(tmp_path / "deep" / "classifier.npz", allow_pickle=False) as file:
        assert file["weights"].dtype == np.float32 and file["class_names"].tolist() == LABELS
        assert str(file["weights_sha256"]) == loaded.embedder.weights_sha256


def test_what_is_no_classifier_is_told(loaded: Loaded, tmp_path: Path) -> None:
    path, sha256 = tmp_path / "classifier.npz", loaded.embedder.weights_sha256
    with pytest.raises(InputError, match="no such file"):
        load_classifier(path, sha256)
    build_classifier(loaded.embedder, LABELS, TEMPLATES, loaded.scale).save(path)
    with pytest.raises(InputError, match=r"made with a model of sha256 .*, not with this one, 0000"):
        load_classifier(path, "0" * 64)
    for wrong in (path.read_bytes()[:-40], b"a cat\na dog\n"):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"not a classifier \(no \.npz file\); write it again"):
            load_classifier(path, sha256)
    Classifier(("a", "b"), torch.zeros(8, 3), ("{c}",), 1.0, sha256).save(path)
    with pytest.raises(InputError, match="2 class names and weights"):
        load_classifier(path, sha256)
    for labels, templates, says in (
        (["one"], ["{c}"], "name two or more"),
        (["a", ""], ["{c}"], "class 2 of 2 has no name"),
        (["a", "b"], ["{c}", "a photo"], "'a photo' has no place"),
    ):
        with pytest.raises(InputError, match=says):
            build_classifier(loaded.embedder, labels, templates, 1.0)


def test_classify_is_the_model_image_by_image(inputs: Path, use: Use, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS) + "\n\n")
    about = ["--model", inputs / "run", "--labels-file", tmp_path / "labels.txt", "--json", "--top", "3"]
    templates = ["--template", TEMPLATES[0], "--template", "{}"]
    status, lines, told = use("classify", inputs / "images", *about, *templates)
    assert (status, told) == (0, "")
    answers = [json.loads(line) for line in lines]
    names = ["below/yellow.png", "blue.png", "green.png", "red.png"]
    assert [answer["image"] for answer in answers] == [str(inputs / "images" / name) for name in names]
    for answer in answers:
        expected = slow_probabilities(inputs, Path(answer["image"]).read_bytes(), LABELS, [TEMPLATES[0], "{c}"])
        found = {entry["name"]: entry["probability"] for entry in answer["classes"]}
        assert [found[label] for label in LABELS] == pytest.approx(expected, abs=1e-5)
        told_in_order = [entry["probability"] for entry in answer["classes"]]
        assert told_in_order == sorted(told_in_order, reverse=True)


@pytest.mark.parametrize("ending", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_is_seen_upright(ending: str) -> None:
    rows, columns = np.mgrid[0:48, 0:64]
    taken = Image.fromarray(np.stack([rows * 5, columns * 3, rows + columns], axis=-1).astype(np.uint8))
    for orientation in range(1, 9):
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        taken.save(buffer, ending, exif=exif, quality=100, lossless=True)
        turned = io.BytesIO()
        ImageOps.exif_transpose(Image.open(buffer)).save(turned, "PNG")
        expected = pixels(turned.getvalue(), 32).astype(int)
        assert abs(upright_pixels(buffer.getvalue(), 32).astype(int) - expected).max() <= 3
        assert orientation == 1 or abs(pixels(buffer.getvalue(), 32).astype(int) - expected).max() > 50


def test_a_saved_classifier_answers_the_same(inputs: Path, use: Use, tmp_path: Path) -> None:
    saved = tmp_path / "classifier.npz"
    image, model = inputs / "images" / "red.png", ["--model", inputs / "run"]
    first = use("classify", image, *model, "--labels", "red, green,blue", "--save-classifier", saved)
    assert first == use("classify", image, *model, "--classifier", saved)
    assert first[1][0] == str(image) and first[1][1].split()[1:] in (["%", "red"], ["%", "green"], ["%", "blue"])
    assert load_classifier(saved, load_model(inputs / "run").embedder.weights_sha256).templates == (
        "a photo of a {c}.",
    )
    status, _, told = use("classify", image, "--model", inputs / "other", "--classifier", saved)
    assert status == 2 and "made with a model of sha256" in told


def test_an_image_that_does_not_decode_is_named_and_the_rest_goes_on(inputs: Path, use: Use, tmp_path: Path) -> None:
    for number in range(70):  # more than one batch
        (tmp_path / f"{number:02d}.png").write_bytes(b"no" if number in (0, 65) else picture("red", number % 3, "png"))
    about = ["--model", inputs / "run", "--labels", "red,green", "--json"]
    status, lines, told = use("classify", tmp_path / "*.png", *about)
    assert status == 1 and len(lines) == 70
    answers = [json.loads(line) for line in lines]
    assert [number for number, answer in enumerate(answers) if "error" in answer] == [0, 65]
    assert answers[65] == {"image": str(tmp_path / "65.png"), "error": "not an image that can be decoded"}
    assert told.splitlines()[-1] == "2 of 70 images could not be looked at"


def test_features_that_are_no_numbers_are_told(inputs: Path, use: Use, tmp_path: Path) -> None:
    run = shutil.copytree(inputs / "run", tmp_path / "run")
    weights = load_file(run / "model.safetensors")
    weights["visual.proj"][:] = torch.nan
    save_file(weights, run / "model.safetensors")
    done = json.loads((run / "done.json").read_text())
    done["model_sha256"] = sha256_file(run / "model.safetensors")
    (run / "done.json").write_text(json.dumps(done))
    (tmp_path / "red.png").write_bytes(picture("red", 1, "png"))
    about = ["--model", run, "--shards", inputs / "shards", "--cache", tmp_path / "cache"]
    for arguments in (
        ["classify", tmp_path / "red.png", "--model", run, "--labels", "red,green"],
        ["search", "--image", tmp_path / "red.png", *about],
        ["search", "red", *about],
    ):
        status, lines, told = use(*arguments)
        assert (status, lines) == (2, []) and "features that are not finite; the run diverged" in told


@pytest.mark.parametrize("to", ["open_clip", "hugging_face"])
def test_folders_of_other_programs_answer_as_the_run(inputs: Path, use: Use, tmp_path: Path, to: Any) -> None:
    export_weights(inputs / "run", tmp_path / "there", to, "fp32")
    about = [inputs / "images", "--labels", "red,green,blue", "--json", "--model"]
    _, ours, _ = use("classify", *about, inputs / "run")
    status, theirs, told = use("classify", *about, tmp_path / "there")
    assert (status, told) == (0, "")
    for one, other in zip(map(json.loads, ours), map(json.loads, theirs), strict=True):
        expected = {entry["name"]: entry["probability"] for entry in one["classes"]}
        assert {entry["name"]: entry["probability"] for entry in other["classes"]} == pytest.approx(expected, abs=1e-5)


def test_a_run_that_is_still_learning_answers_by_its_newest_checkpoint(inputs: Path, use: Use, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "done.json").unlink()
    snapshot = take_snapshot(Position(3, 24, 1.0, 1.0, 0, 0), load_run(inputs / "other").objective, {})
    saved = save_checkpoint(run, snapshot, "0" * 64, keep=1)
    assert load_model(run).embedder.weights_sha256 == sha256_file(saved / "model.safetensors")
    about = ["classify", inputs / "images" / "red.png", "--labels", "red,green,blue", "--model"]
    assert use(*about, run) == use(*about, inputs / "other") != use(*about, inputs / "run")


def test_what_classify_is_told_to_mend(inputs: Path, use: Use, tmp_path: Path) -> None:
    run, image = ["--model", inputs / "run"], inputs / "images" / "red.png"
    (tmp_path / "empty").mkdir()
    bag = write_run(tmp_path / "bag", objective={"kind": "simclr"})
    for arguments, says in (
        ([image, *run], "give the classes in one way"),
        ([image, *run, "--labels", "a,b", "--labels-file", "x"], "give the classes in one way"),
        ([image, *run, "--labels", "a"], "name two or more"),
        ([image, *run, "--labels-file", tmp_path / "x"], "x: cannot be read"),
        ([tmp_path / "x.png", *run, "--labels", "a,b"], "x.png: no such file"),
        ([tmp_path / "*.png", *run, "--labels", "a,b"], "no file of that pattern"),
        ([tmp_path / "empty", *run, "--labels", "a,b"], "no images in this folder"),
        ([image, "--model", tmp_path / "x", "--labels", "a,b"], "x: no such run or folder"),
        ([image, "--model", tmp_path / "empty", "--labels", "a,b"], "name a model in the format of open_clip"),
        ([image, "--model", bag, "--labels", "a,b"], "simclr, which has no features of texts"),
    ):
        status, lines, told = use("classify", *arguments)
        assert (status, lines) == (2, []) and told.startswith("error: ") and says in told


def slow_search(inputs: Path, query_D: torch.Tensor) -> list[tuple[float, str, str]]:
    """Cosine, shard and key of every image, one by one, the best first."""
    found = []
    for split, count in (("train", 10), ("val", 4)):
        for number in range(count):
            image = picture(list(COLOURS)[number % 4], 1_000 * len(split) + number)
            found.append((float(slow_image(inputs, image) @ query_D), f"{split}/000000.tar", f"{number:09d}"))
    return sorted(found, key=lambda hit: -hit[0])


def test_search_is_every_image_one_by_one(inputs: Path, use: Use, tmp_path: Path) -> None:
    about = ["--model", inputs / "run", "--shards", inputs / "shards", "--cache", tmp_path / "cache", "--json"]
    status, lines, told = use("search", "a green thing", *about, "--top", "5", "--save-images", tmp_path / "saved")
    assert status == 0 and "embedding colours 14/14" in told
    expected = slow_search(inputs, slow_text(inputs, "a green thing"))
    hits = [json.loads(line) for line in lines]
    assert [hit["score"] for hit in hits] == pytest.approx([score for score, *_ in expected[:5]], abs=1e-3)
    of_place = {(shard, key): score for score, shard, key in expected}
    for hit in hits:
        assert hit["score"] == pytest.approx(of_place[hit["shard"], hit["key"]], abs=1e-3)
        split, number = hit["shard"].split("/")[0], int(hit["key"])
        own = (CAPTIONS * 2)[number] if split == "train" else CAPTIONS[1:][number]
        assert (hit["caption"], hit["url"]) == (own[0], f"http://site.test/{split}/{hit['key']}.jpg")
        saved = (tmp_path / "saved" / f"{hit['rank']:04d}-{hit['key']}.jpg").read_bytes()
        assert saved == picture(list(COLOURS)[number % 4], 1_000 * len(split) + number)
    # The vectors are there: nothing is embedded again, whatever is asked.
    threshold = expected[3][0] - 1e-4
    status, lines, told = use("search", "a green thing", *about, "--threshold", threshold, "--split", "train")
    assert status == 0 and told == ""
    of_train = [hit for hit in expected if hit[0] >= threshold and hit[1].startswith("train")]
    assert abs(len(lines) - len(of_train)) <= 1 and all(json.loads(line)["shard"].startswith("train") for line in lines)
    # An image finds itself first.
    (tmp_path / "query.jpg").write_bytes(picture("blue", 5_006))
    _, lines, _ = use("search", *about, "--image", tmp_path / "query.jpg", "--top", "1")
    assert json.loads(lines[0])["key"] == "000000006" and json.loads(lines[0])["score"] > 0.999
    status, lines, told = use("search", "red", *about, "--threshold", "0.9999")
    assert (status, lines) == (0, []) and "no image has a cosine of 0.9999 or more" in told


def test_several_models_embed_in_one_pass_and_a_changed_tar_is_embedded_anew(
    inputs: Path, use: Use, tmp_path: Path
) -> None:
    cache, models = tmp_path / "cache", ["--model", inputs / "run", "--model", inputs / "other"]
    shards = write_shards(tmp_path / "shards", train=CAPTIONS, val=CAPTIONS)
    status, folders, told = use("embed", "--shards", shards, "--cache", cache, *models)
    assert status == 0 and told.splitlines() == ["embedding colours 5/10", "embedding colours 10/10"]
    assert len(set(folders)) == 2 and all(Path(folder).is_relative_to(cache) for folder in folders)
    (Path(folders[1]) / "val" / "000000.safetensors").unlink()
    write_shards(shards, train=CAPTIONS[:3], val=CAPTIONS)
    _, _, told = use("embed", "--shards", shards, "--cache", cache, *models)
    assert told.splitlines() == ["embedding colours 3/8", "embedding colours 8/8"]


def test_embeddings_in_the_layout_of_clip_retrieval(inputs: Path, use: Use, tmp_path: Path) -> None:
    about = ["--model", inputs / "run", "--shards", inputs / "shards", "--cache", tmp_path / "cache"]
    status, lines, _ = use("search", *about, "--export-embeddings", tmp_path / "out")
    assert (status, lines) == (0, [])
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {
        name
        for part in "01"
        for name in (
            f"img_emb/img_emb_{part}.npy",
            f"text_emb/text_emb_{part}.npy",
            f"metadata/metadata_{part}.parquet",
        )
    }
    image_ND, text_ND = (np.load(tmp_path / "out" / f"{name}_emb" / f"{name}_emb_0.npy") for name in ("img", "text"))
    rows = pq.read_table(tmp_path / "out" / "metadata" / "metadata_0.parquet").to_pylist()
    assert image_ND.dtype == text_ND.dtype == np.float16 and len(image_ND) == len(text_ND) == len(rows) == 10
    assert rows[6] == {
        "image_path": "000000006",
        "caption": "a green thing",
        "key": "000000006",
        "url": "http://site.test/train/000000006.jpg",
        "shard": "train/000000.tar",
    }
    assert image_ND[6] == pytest.approx(slow_image(inputs, picture("blue", 5_006)).numpy(), abs=1e-3)
    assert text_ND[6] == pytest.approx(slow_text(inputs, "a green thing").numpy(), abs=1e-3)
    assert "is there already" in use("search", *about, "--export-embeddings", tmp_path / "out")[2]


def test_an_export_that_breaks_off_is_no_folder(
    inputs: Path, use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = ["--model", inputs / "run", "--shards", inputs / "shards", "--cache", tmp_path / "cache"]
    written = []

    def breaks(columns: dict[str, list[str]]) -> bytes:
        written.append(columns)
        if len(written) == 2:
            raise OSError("the disk is gone")
        return whole(columns)

    whole = search._parquet
    monkeypatch.setattr(search, "_parquet", breaks)
    assert "the disk is gone" in use("search", *about, "--export-embeddings", tmp_path / "out")[2]
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(search, "_parquet", whole)
    assert use("search", *about, "--export-embeddings", tmp_path / "out")[0] == 0
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["out"]


def test_a_tar_whose_samples_were_all_taken_down(inputs: Path, use: Use, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", train=CAPTIONS)
    write_tar(shards / "train" / "000001.tar", [])
    index = pq.read_table(shards / "train" / "000000.index.parquet")
    pq.write_table(index.slice(0, 0), shards / "train" / "000001.index.parquet")
    manifest = json.loads((shards / "manifest.json").read_text())
    empty = {"file": "train/000001.tar", "index": "train/000001.index.parquet", "samples": 0, "sha256": "0" * 64}
    manifest["splits"]["train"]["shards"].append(empty)
    (shards / "manifest.json").write_text(json.dumps(manifest))
    about = ["--model", inputs / "run", "--shards", shards, "--cache", tmp_path / "cache"]
    first = use("search", "a red thing", *about, "--json", "--export-embeddings", tmp_path / "out")
    assert first[0] == 0 and len(first[1]) == 5
    assert [path.name for path in (tmp_path / "out" / "img_emb").iterdir()] == ["img_emb_0.npy"]
    # Its vectors alone are missing: there is nothing to be done, and nothing to divide by.
    (made,) = (tmp_path / "cache").rglob("000001.safetensors")
    made.unlink()
    assert use("search", "a red thing", *about, "--json") == (0, first[1], "")


def test_what_search_is_told_to_mend(inputs: Path, use: Use, tmp_path: Path) -> None:
    about = ["--model", inputs / "run", "--shards", inputs / "shards", "--cache", tmp_path / "cache"]
    for arguments, says in (
        (about, "give a text to search for, or an image"),
        (["red", "--image", "x.jpg", *about], "one of both"),
        (["--image", tmp_path / "x.jpg", *about], "x.jpg: cannot be read"),
        ([" ", *about], "an empty text"),
        (["red", "--threshold", "nan", *about], "--threshold nan: give a cosine"),
        (["red", *about[:2], "--shards", tmp_path, *about[4:]], "manifest.json: no such file"),
    ):
        status, _, told = use("search", *arguments)
        assert status == 2 and says in told.splitlines()[-1]
    evil = write_shards(tmp_path / "evil", train=CAPTIONS)
    (evil / "manifest.json").write_text((evil / "manifest.json").read_text().replace('"colours"', '"../../colours"'))
    status, _, told = use("search", "red", *about[:2], "--shards", evil, *about[4:])
    assert status == 2 and "leads out of" in told


@pytest.fixture(scope="module")
def browser(loaded: Loaded) -> TestClient:
    return TestClient(page.make_app(loaded, ["red", "green"]), base_url="http://127.0.0.1:8765")


def test_the_page_asks_and_is_answered(browser: TestClient, inputs: Path) -> None:
    shown = browser.get("/")
    assert "http" not in shown.text and "default-src 'none'" in shown.headers["content-security-policy"]
    assert browser.get("/about").json() == {
        "model": "random", "image_px": 32, "labels": ["red", "green"], "template": "a photo of a {c}."
    }  # fmt: skip
    sent = picture("blue", 3)
    name = browser.post("/images", content=sent).json()["image"]
    for template in ("a photo of a {c}.", "{c}"):
        answer = browser.post("/classes", json={"image": name, "classes": LABELS, "template": template})
        expected = slow_probabilities(inputs, sent, LABELS, [template])
        assert answer.json()["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_the_page_refuses_what_is_too_large_or_no_image(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_BYTES", 2**20)
    large = io.BytesIO()
    Image.new("1", (10_000, 6_000)).save(large, "PNG")
    for content, status, says in (
        (b"x" * (page.MOST_BYTES + 1), 413, "larger than 1 MB"),
        (large.getvalue(), 400, "10000 x 6000 pixels, at most 50,000,000"),
        (b"text", 400, "not an image"),
        (b"", 400, "not an image"),
        (picture("red", 1)[:300], 400, "this file"),
    ):
        answer = browser.post("/images", content=content)
        assert answer.status_code == status and says in answer.json()["error"], answer.text
    name = browser.post("/images", content=picture("red", 1)).json()["image"]
    question = {"image": name, "classes": ["a", "b"], "template": "{c}"}
    for changes, status, says in (
        ({"image": "0" * 64}, 404, "not remembered"),
        ({"template": "a photo"}, 400, "no place for the class name"),
        ({"classes": ["a", ""]}, 422, ""),
        ({"classes": ["a"]}, 422, ""),
    ):
        answer = browser.post("/classes", json=question | changes)
        assert answer.status_code == status and says in answer.text
    # Only the last images are kept.
    monkeypatch.setattr(page, "IMAGES_KEPT", 1)
    browser.post("/images", content=picture("red", 2))
    browser.post("/images", content=picture("red", 3))
    assert browser.post("/classes", json=question).status_code == 404


def test_the_page_answers_to_this_machines_name_alone(browser: TestClient) -> None:
    assert browser.get("/", headers={"Host": "evil.test"}).status_code == 400
    assert browser.get("/", headers={"Host": "localhost:8765"}).status_code == 200


def test_pages_of_other_sites_may_not_ask(browser: TestClient) -> None:
    own, other = {"Origin": "http://127.0.0.1:8765"}, {"Origin": "http://evil.test"}
    assert browser.post("/images", content=picture("red", 1), headers=own).status_code == 200
    for origin in (other, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"}):
        assert browser.post("/images", content=picture("red", 1), headers=origin).status_code == 403
    question = {"image": "0" * 64, "classes": ["a", "b" * page.MOST_QUESTION_BYTES]}
    assert browser.post("/classes", json=question).status_code == 413


def test_no_other_program_is_started_for_an_image(browser: TestClient) -> None:
    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, "EPS")  # which Pillow decodes with Ghostscript
    answer = browser.post("/images", content=written.getvalue())
    assert answer.status_code == 400 and "not an image" in answer.json()["error"]
