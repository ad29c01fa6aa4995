"""The layouts of a set beside tars, the sets that are known by name, and where class names and prompts come from."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_inputs import COLOURS, picture, write_config, write_run, write_set, write_shards, write_split, write_tar
from PIL import Image
from torchvision.datasets import CIFAR10, FakeData, ImageFolder

from model.errors import InputError
from model.evaluation import names
from model.evaluation.__main__ import main
from model.evaluation.locate import read_sets
from model.evaluation.metrics import metric_chance
from model.evaluation.registry import domain_templates, find, known_sets, views
from model.evaluation.results import RetrievalResult
from model.evaluation.sets import read_set
from model.evaluation.summary import Summary

NAMES = ("a red thing", "a green thing", "a blue thing", "a yellow thing")


def write_folders(root: Path, per_class: int = 2, classes: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """CLASS/N.jpg below `root`, shown in the colours in turn."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            (root / name / f"{number}.jpg").write_bytes(picture(list(COLOURS)[label % 4], 10 * label + number))
    return root


def test_folders_of_images_are_a_set_as_torchvision_reads_them(tmp_path: Path) -> None:
    write_folders(tmp_path / "colours" / "test")
    write_folders(tmp_path / "colours" / "train", 3)
    found = read_set(tmp_path / "colours")
    theirs = ImageFolder(str(tmp_path / "colours" / "test"))
    assert [(sample.key, sample.label) for sample in found.samples] == [
        (str(Path(path).relative_to(tmp_path / "colours")), label) for path, label in theirs.samples
    ]
    assert found.class_names == tuple(theirs.classes) and found.names_source == "the folders' names"
    assert found.samples[3].image.read() == Path(theirs.samples[3][0]).read_bytes()
    assert found.train is not None and len(found.train.samples) == 12 and found.val is None
    assert (found.stored_as, found.metric) == ("folders", "accuracy")
    assert found.templates == domain_templates()["natural"] and "default" in found.templates_source


def test_folders_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"numbers/test/{number}").mkdir(parents=True)
        (tmp_path / f"numbers/test/{number}/a.jpg").write_bytes(b"\xff\xd8")
    names = [f"class {number}" for number in range(12)]
    (tmp_path / "numbers/classnames.txt").write_text("\n".join(names))
    found = read_set(tmp_path / "numbers")
    assert {sample.key: found.class_names[sample.label] for sample in found.samples} == {
        f"test/{number}/a.jpg": f"class {number}" for number in range(12)
    }


def test_folders_without_splits_and_with_imagenets_are_read_too(tmp_path: Path) -> None:
    assert len(read_set(write_folders(tmp_path / "all")).samples) == 8
    write_folders(tmp_path / "as_imagenet" / "val")
    write_folders(tmp_path / "as_imagenet" / "train", 1)
    found = read_set(tmp_path / "as_imagenet")
    assert len(found.samples) == 8 and found.train is not None and found.val is None
    shutil.rmtree(tmp_path / "as_imagenet" / "val")
    with pytest.raises(InputError, match="no set in it: neither test/nshards"):
        read_set(tmp_path / "as_imagenet")


def test_own_class_names_go_with_the_folders_in_order(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "colours")
    (folder / "classnames.txt").write_text("\n".join(sorted(NAMES)))
    assert read_set(folder).class_names == tuple(sorted(NAMES))
    (folder / "classnames.txt").write_text("red\ngreen\n")
    with pytest.raises(InputError, match=r"classnames\.txt: 2 names, but there are 4 folders of classes"):
        read_set(folder)


def test_imagenet_in_folders_has_the_names_that_open_clip_ships(tmp_path: Path) -> None:
    for number in range(1_000):
        (tmp_path / "imagenet" / "val" / f"n{number:08d}").mkdir(parents=True)
    (tmp_path / "imagenet" / "val" / "n00000007" / "a.jpg").write_bytes(picture("red", 1))
    for number in range(1_000):
        (tmp_path / "imagenet" / "val" / f"n{number:08d}" / "b.jpg").write_bytes(b"x")
    found = read_set(tmp_path / "imagenet")
    # In the order of the labels, as OpenAI wrote them.
    assert [found.class_names[label] for label in (0, 134, 517, 999)] == [
        "tench",
        "crane bird",
        "construction crane",
        "toilet paper",
    ]
    assert len(found.templates) == 80 and found.templates[0] == "a bad photo of a {c}."
    assert found.names_source.startswith("open_clip_torch") and found.templates_source.startswith("open_clip_torch")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_of_paths_and_labels_is_a_set(tmp_path: Path, ending: str) -> None:
    write_folders(tmp_path / "set" / "images")
    paths = [f"images/{name}/{number}.jpg" for name in COLOURS for number in range(2)]
    rows = {"path": paths, "label": [path.split("/")[1] for path in paths]}

    def write(split: str, columns: Mapping[str, Sequence[str | None]]) -> None:
        table = pa.table(columns)
        if ending == "parquet":
            pq.write_table(table, tmp_path / "set" / f"{split}.parquet")
        else:
            lines = [
                ",".join(columns),
                *(",".join(cell or "" for cell in row) for row in zip(*columns.values(), strict=True)),
            ]
            (tmp_path / "set" / f"{split}.csv").write_text("\n".join(lines) + "\n")

    write("test", rows)
    write("train", {name: column[:4] for name, column in rows.items()})
    found = read_set(tmp_path / "set")
    assert found.class_names == tuple(sorted(COLOURS)) and found.stored_as == "table"
    assert [found.class_names[sample.label] for sample in found.samples] == rows["label"]
    assert found.samples[2].image.read() == (tmp_path / "set" / paths[2]).read_bytes()
    assert found.train is not None and len(found.train.samples) == 4
    (tmp_path / "set" / f"train.{ending}").unlink()
    # A row without a label is no image of a class without a name.
    for labels, message in (
        ([*rows["label"][:7], None], "row 8: no label; write the name"),
        ([None] * 8, "row 1: no label"),
    ):
        write("test", {"path": paths, "label": labels})
        with pytest.raises(InputError, match=message):
            read_set(tmp_path / "set")
    write("test", {"path": paths, "label": [str(number // 2) for number in range(8)]})
    with pytest.raises(InputError, match="labels are numbers and there is no classnames"):
        read_set(tmp_path / "set")
    (tmp_path / "set" / "classnames.txt").write_text("\n".join(NAMES))
    assert [sample.label for sample in read_set(tmp_path / "set").samples] == [0, 0, 1, 1, 2, 2, 3, 3]
    for changed, message in (
        ({"path": [*paths[:7], "images/none.jpg"], "label": ["0"] * 8}, "row 8: no file .*none.jpg"),
        ({"path": paths, "label": ["0"] * 7 + ["4"]}, "row 8: the label '4' is neither one of the 4 names"),
        ({"path": [paths[0]] * 2, "label": ["0"] * 2}, "row 2: .* stands there twice"),
        ({"file": paths, "label": ["0"] * 8}, "no column path"),
        ({"path": [], "label": []}, "no rows"),
    ):
        write("test", changed)
        with pytest.raises(InputError, match=message):
            read_set(tmp_path / "set")


def test_a_data_set_of_torchvision_is_a_set(tmp_path: Path) -> None:
    folder = tmp_path / "noise"
    folder.mkdir()
    (folder / "classnames.txt").write_text("one\ntwo\nthree\n")
    (folder / "torchvision.toml").write_text(
        'class = "FakeData"\ntest = { size = 5, image_size = [3, 8, 9], num_classes = 3 }\n'
        "train = { size = 4, image_size = [3, 8, 9], num_classes = 3, random_offset = 9 }\n"
    )
    found = read_set(folder)
    theirs = FakeData(5, (3, 8, 9), 3)
    assert [sample.label for sample in found.samples] == [int(theirs[number][1]) for number in range(5)]
    with Image.open(io.BytesIO(found.samples[2].image.read())) as shown:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(theirs[2][0]))
    assert found.train is not None and len(found.train.samples) == 4 and found.stored_as == "torchvision FakeData"
    for text, message in (
        ('class = "NoSuchSet"', "has no data set 'NoSuchSet'"),
        ('class = "CIFAR10"\ntest = { train = false }', "torchvision cannot read CIFAR10 there"),
        ("class = ", "torchvision.toml: "),
    ):
        (folder / "torchvision.toml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_set(folder)


def test_a_known_set_is_read_through_torchvision_by_the_name_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cifar10" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    import pickle

    pixels = np.random.default_rng(0).integers(0, 256, (3, 3_072), np.uint8)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels, "labels": [3, 1, 9]}))
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps({"data": pixels[:1], "labels": [number]}))
    words = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": words}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    found = read_set(tmp_path / "cifar10")
    assert [sample.label for sample in found.samples] == [3, 1, 9] and found.class_names == tuple(words)
    assert found.train is not None and [sample.label for sample in found.train.samples] == [1, 2, 3, 4, 5]
    with Image.open(io.BytesIO(found.samples[1].image.read())) as shown:
        np.testing.assert_array_equal(np.asarray(shown), pixels[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert found.known is not None and found.known.paper_row == "CIFAR10"


def test_the_registry_says_what_the_paper_says() -> None:
    sets = known_sets()
    assert [len(views()[name].sets) for name in ("paper27", "kornblith12", "retrieval")] == [27, 12, 2]
    of_paper = [sets[name] for name in views()["paper27"].sets]
    # Table 9 as the paper sums it up: 306,625 images to test, 2,551,854 to train.
    assert sum(known.test_images for known in of_paper) == 306_625
    assert sum(known.train_images or 0 for known in of_paper) == 2_551_854
    assert [known.name for known in of_paper if known.metric == "mean_per_class"] == [
        "fgvc_aircraft",
        "pets",
        "caltech101",
        "flowers",
    ]
    for known in sets.values():
        assert known.domain in domain_templates()
        assert all("{c}" in template for template in known.templates)
        if known.metric != "recall":
            assert known.classes and known.chance == pytest.approx(metric_chance(known.metric, known.classes), abs=1e-6)
        assert known.variant_of is None or known.variant_of in sets
    assert {name for view in views().values() for name in view.sets} == set(sets)


def test_names_of_clip_benchmark_and_datacomp_are_known() -> None:
    # From CLIP_benchmark's webdatasets.txt and DataComp's tasklist.
    for name, expected in {
        "wds_vtab-cifar10_test": "cifar10",
        "wds_vtab-clevr_count_all": "clevr_count_all",
        "wds_imagenet-a_test": "imagenet-a",
        "wds_imagenet_sketch": "imagenet_sketch",
        "wds_fgvc_aircraft_test": "fgvc_aircraft",
        "wds_mscoco_captions_test": "mscoco_captions",
        "wds_vtab-kitti_closest_vehicle_distance": "kitti",
        "Food101": "food101",
    }.items():
        found = find(name)
        assert found is not None and found.name == expected
    assert find("tiny-web-unseen") is None
    assert len({key for known in known_sets().values() for key in (known.name, *known.aliases)}) == sum(
        1 + len(known.aliases) for known in known_sets().values()
    )


def test_a_known_set_has_its_metric_and_our_prompts(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "birdsnap" / "test").parent
    found = read_set(folder)
    assert (
        found.templates == ("a photo of a {c}, a type of bird.",) and "default for birdsnap" in found.templates_source
    )
    aircraft = write_set(tmp_path / "wds_fgvc_aircraft_test")
    assert read_set(aircraft).metric == "mean_per_class"
    (aircraft / "metric.txt").write_text("accuracy\n")
    assert read_set(aircraft).metric == "accuracy"


def test_prompts_and_names_of_an_installed_clip_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = tmp_path / "site" / "clip_benchmark" / "datasets"
    lists.mkdir(parents=True)
    (lists.parent / "__init__.py").write_text("raise ImportError('needs much else')")
    (lists / "en_classnames.json").write_text(json.dumps({"mnist": [str(number) for number in range(10)]}))
    (lists / "en_zeroshot_classification_templates.json").write_text(json.dumps({"mnist": ["the number {c}"]}))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    names._clip_benchmark_lists.cache_clear()
    try:
        folder = write_set(tmp_path / "mnist")
        (folder / "classnames.txt").unlink()
        (folder / "zeroshot_classification_templates.txt").unlink()
        found = read_set(folder)
    finally:
        names._clip_benchmark_lists.cache_clear()
    assert found.class_names == tuple("0123456789") and found.templates == ("the number {c}",)
    assert found.names_source.startswith("clip_benchmark") and "clip_benchmark" not in sys.modules


def test_absent_and_broken_sets_are_skipped_with_a_reason(tmp_path: Path) -> None:
    write_split(write_set(tmp_path / "wds_pets") / "train", 1, first=50)
    write_tar(write_set(tmp_path / "dtd") / "test" / "0.tar", [("a.jpg", b"x")])
    sets = read_sets([tmp_path / "kornblith12"])
    assert [found.name for found in sets.labelled] == ["wds_pets"]
    assert len(sets.skipped) == 11
    reasons = {each.name: each.reason for each in sets.skipped}
    assert "no such folder" in reasons["food101"] and "key 'a' has no label" in reasons["dtd"]
    # Two names of one folder are one set.
    assert len(read_sets([tmp_path / "pets", tmp_path / "wds_pets"]).labelled) == 1
    with pytest.raises(InputError, match=r"food101: no such folder.*and 1 more sets, none of which can be measured"):
        read_sets([tmp_path / "food101", tmp_path / "dtd"])


def test_images_with_captions_are_searched_as_the_paper_does(tmp_path: Path) -> None:
    members = []
    for number in range(4):
        members += [(f"{number}.jpg", picture(list(COLOURS)[number], number))]
        members += [(f"{number}.txt", f"{list(COLOURS)[number]} paper\n\nsheet {number}\n".encode())]
    folder = write_set(tmp_path / "wds_flickr30k", [members])
    (folder / "dataset_type.txt").write_text("retrieval\n")
    write_shards(tmp_path / "shards", train=[["a red thing"]] * 4)
    write_run(tmp_path / "run")
    out = write_config(tmp_path / "out", [tmp_path / "flickr30k"], retrieval_samples=0)
    assert main([str(out), "--run", str(tmp_path / "run"), "--shards", str(tmp_path / "shards")]) == 0
    summary = Summary.model_validate_json((out / "summary.json").read_text())
    (found,) = summary.retrieval_sets
    assert (found.name, found.images, found.texts, found.prompt) == ("wds_flickr30k", 4, 8, "a photo of {c}")
    assert {query.query for query in found.text_queries} == {
        f"a photo of {text}" for number, colour in enumerate(COLOURS) for text in (f"{colour} paper", f"sheet {number}")
    }
    assert found.reference is not None and found.reference.paper_percent["text_R@1"] == 88.0
    assert found.reference.model == "ViT-B/32" and found == RetrievalResult.model_validate_json(
        (out / "results" / "wds_flickr30k.json").read_text()
    )
    page = (out / "report.html").read_text()
    assert "On sets of their own" in page and "88.0" in page
    (dump,) = [json.loads(path.read_text()) for path in (out / "clip_benchmark").iterdir()]
    assert dump["dataset"] == "flickr30k" and "image_retrieval_recall@5" in dump["metrics"]
    write_tar(folder / "test" / "0.tar", [("a.jpg", b"x"), ("a.cls", b"0")])
    with pytest.raises(InputError, match=r"key 'a' has no captions \(.txt\)"):
        read_sets([folder])
