"""Rates by group against recounts, their intervals against scipy and a published example, an evaluation of a set with groups."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_inputs import COLOURS, picture, write_config, write_run, write_shards
from safetensors.torch import load_file
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from test_report import parse

from model.checkpoint import load_run
from model.config import EvaluateConfig
from model.data import normalise
from model.errors import InputError
from model.evaluation.__main__ import main
from model.evaluation.exports import write_exports
from model.evaluation.fairness import LEAST_IMAGES, fairness_of, rates_of
from model.evaluation.groups import Groups
from model.evaluation.images import pixels
from model.evaluation.intervals import difference_of_shares, wilson
from model.evaluation.locate import read_sets
from model.evaluation.measure import measure_name, subject_of
from model.evaluation.prepare import prepare
from model.evaluation.records import read_record
from model.evaluation.sets import read_set
from model.evaluation.summary import Summary
from model.evaluation.worker import Worker

IMAGES = 72
CATEGORIES = {"not a colour": ("noise", "a thing"), "another colour": ("purple",)}


def test_intervals_are_those_of_scipy_and_newcombe() -> None:
    for hits, trials in ((0, 5), (7, 9), (41, 300), (12, 12)):
        peer = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
        assert wilson(hits, trials, 0.95) == pytest.approx((peer.low, peer.high), abs=1e-12)
    # Newcombe 1998, table II, 56/70 - 48/80 by method 10.
    found = difference_of_shares(56, 70, 48, 80, 0.95)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def made(seed: int, images: int) -> tuple[list[bool], dict[str, list[str]]]:
    """Hits that do not depend on the group, two columns of groups; of some images one is not told."""
    draw = np.random.default_rng(seed)
    values = {
        "first": draw.choice(["a", "b", "c", ""], images).tolist(),
        "second": draw.choice(["x", "y"], images).tolist(),
    }
    return (draw.random(images) < 0.8).tolist(), values


def test_rates_are_counted_group_by_group() -> None:
    hits, values = made(0, 400)
    found = rates_of("zero-shot", "", hits, values, 0.9)
    assert found.overall.value == pytest.approx(np.mean(hits))
    for rate in found.groups:
        own = [
            hit
            for number, hit in enumerate(hits)
            if all(values[column][number] == value for column, value in rate.group.items())
        ]
        peer = binomtest(sum(own), len(own)).proportion_ci(0.9, method="exact")
        assert (rate.images, rate.share.value) == (len(own), pytest.approx(np.mean(own)))
        assert (rate.share.low, rate.share.high) == pytest.approx((peer.low, peer.high))
    assert Counter(tuple(rate.group) for rate in found.groups) == {
        ("first",): 3,
        ("second",): 2,
        ("first", "second"): 6,
    }
    assert all("" not in rate.group.values() for rate in found.groups)
    for gap in found.gaps:
        rates = found.of(gap.columns)
        assert gap.gap is not None and gap.highest is not None and gap.lowest is not None
        assert gap.gap.value == pytest.approx(
            max(abs(one.share.value - other.share.value) for one, other in combinations(rates, 2))
        )
        assert gap.groups_compared == len(rates) and gap.highest in rates and gap.lowest in rates


def test_the_largest_gap_of_groups_that_are_alike_seldom_looks_like_one() -> None:
    told = [gap for seed in range(60) for gap in rates_of("zero-shot", "", *made(seed, 600), 0.9).gaps]
    clear = sum(gap.gap is not None and gap.gap.low > 0 for gap in told)
    assert clear <= 0.1 * len(told) + 6 and all(gap.gap is not None and gap.gap.high > gap.gap.value for gap in told)
    # Groups that are far apart are told apart.
    hits, values = [number % 2 == 0 for number in range(200)], {"half": ["even", "odd"] * 100}
    (gap,) = rates_of("zero-shot", "", hits, values, 0.95).gaps
    assert gap.gap is not None and gap.gap.value == 1 and gap.gap.low > 0.9
    few = rates_of(
        "zero-shot", "", hits[: 2 * LEAST_IMAGES - 1], {"half": values["half"][: 2 * LEAST_IMAGES - 1]}, 0.95
    )
    assert few.gaps[0].gap is None and few.gaps[0].groups_compared == 1


def test_an_image_falls_into_the_category_of_the_class_it_takes_among_all() -> None:
    groups = Groups({"side": ("left", "left", "right", "right")}, {"first": ("p", "q"), "second": ("r",)})
    labels_N = torch.tensor([0, 1, 0])
    whole_NC = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0]])
    extra_NE = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 9.0]])
    # The third image (row 1 of the samples) cannot be read.
    found = fairness_of("s", groups, [0, 2, 3], labels_N, whole_NC, extra_NE, None, 0.95)
    accuracy, first, second = found.rates
    assert [rate.share.value for rate in accuracy.groups] == [1, 1]  # among the set's own classes
    assert {rate.group["side"]: (rate.images, rate.share.value) for rate in first.groups} == {
        "left": (1, 1),
        "right": (2, 0),
    }
    assert {rate.group["side"]: rate.share.value for rate in second.groups} == {"left": 0, "right": 0.5}
    assert [rates.category for rates in found.rates] == ["", "first", "second"] and found.untold == {}


def write_grouped(folder: Path) -> Path:
    """Pictures of four colours; `hand` alternates in fours and is told of all but two, `place` in eights."""
    for split, numbers in (("test", range(IMAGES)), ("train", range(1_000, 1_024))):
        lines = ["path,label,hand,place,width"]
        for number in numbers:
            colour = list(COLOURS)[number % 4]
            path = folder / split / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(colour, number))
            hand = "" if number < 2 else ("left", "right")[number // 4 % 2]
            lines.append(f"{split}/{number}.jpg,{colour},{hand},{('in', 'out')[number // 8 % 2]},40")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    told = "\n".join(f"{json.dumps(name)} = {json.dumps(list(words))}" for name, words in CATEGORIES.items())
    (folder / "fairness.toml").write_text(f'groups = ["hand", "place"]\n[categories]\n{told}\n')
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fairness")
    write_shards(folder / "shards", train=[["a red thing"]] * 4)
    write_run(folder / "run")
    write_grouped(folder / "grouped")
    write_config(folder / "out", [folder / "grouped"], retrieval_samples=0, few_shot=[])
    assert main([str(folder / "out"), "--run", str(folder / "run"), "--shards", str(folder / "shards")]) == 0
    return folder


def test_every_rate_is_the_models_image_by_image(done: Path) -> None:
    summary = Summary.model_validate_json((done / "out" / "summary.json").read_text())
    (found,) = summary.fairness
    assert found.images == IMAGES and found.untold == {"hand": 2} and found.categories == CATEGORIES
    run, samples = load_run(done / "run"), read_set(done / "grouped").samples
    own = sorted(COLOURS)
    names = [*own, *(name for words in CATEGORIES.values() for name in words)]
    chosen, among_all = [], []
    with torch.inference_mode():
        texts = [run.model.encode_text(run.tokenizer.encode([f"a photo of a {name}."]))[0] for name in names]
        for sample in samples:
            image = normalise(torch.from_numpy(pixels(sample.image.read(), 32).copy())[None])
            (feature_D,) = run.model.encode_image(image)
            cosines = [float(feature_D @ text_D / text_D.norm()) for text_D in texts]
            chosen.append(own[int(np.argmax(cosines[:4]))])
            among_all.append(names[int(np.argmax(cosines))])
    features, train = (
        load_file(done / "out" / "features" / place / "grouped.safetensors")["before"].double().numpy()
        for place in ("", "train")
    )
    probe = summary.sets[0].learned.probe
    assert probe is not None
    labels = [own[sample.label] for sample in samples]
    peer = LogisticRegression(C=1 / probe.penalty, solver="newton-cholesky", tol=1e-6)
    learned = peer.fit(train, [list(COLOURS)[number % 4] for number in range(24)]).predict(features)
    expected = {
        ("zero-shot", ""): [name == label for name, label in zip(chosen, labels, strict=True)],
        ("linear probe", ""): [name == label for name, label in zip(learned, labels, strict=True)],
        **{("zero-shot", category): [name in words for name in among_all] for category, words in CATEGORIES.items()},
    }
    assert {(rates.judged_by, rates.category) for rates in found.rates} == set(expected)
    for rates in found.rates:
        hits = expected[rates.judged_by, rates.category]
        assert rates.overall.value == pytest.approx(np.mean(hits))
        for rate in rates.groups:
            rows = [number for number in range(IMAGES) if group_of(number, rate.group) == rate.group]
            assert (rate.images, rate.share.value) == (len(rows), pytest.approx(np.mean([hits[row] for row in rows])))
    assert any(0 < rates.overall.value < 1 for rates in found.rates)


def test_a_model_that_scores_texts_scores_the_further_classes_too(done: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", objective={"kind": "bag_of_words"})
    run, grouped = load_run(folder), read_set(done / "grouped")
    config = EvaluateConfig(name="grouped", run="run", evaluation_sets=(str(done / "grouped"),), probe=False)
    prepared = prepare(tmp_path, folder, str(done / "shards"), config)
    measured = measure_name("grouped", prepared, subject_of(prepared), lambda _: None)
    assert measured.fairness is not None and read_record(prepared, "grouped") == measured
    names = [*grouped.class_names, *(name for words in CATEGORIES.values() for name in words)]
    tokens_TL = run.tokenizer.encode([f"a photo of a {name}." for name in names])
    with torch.inference_mode():
        images = [torch.from_numpy(pixels(sample.image.read(), 32).copy())[None] for sample in grouped.samples]
        scores_NT = torch.cat([run.objective.score_texts(normalise(image), tokens_TL) for image in images])
    chosen = [names[number] for number in scores_NT.argmax(dim=1).tolist()]
    rates = {found.category: found.overall.value for found in measured.fairness.rates if found.category}
    assert rates == {
        category: pytest.approx(np.mean([name in words for name in chosen])) for category, words in CATEGORIES.items()
    }


def group_of(number: int, columns: dict[str, str]) -> dict[str, str]:
    told = {"hand": "" if number < 2 else ("left", "right")[number // 4 % 2], "place": ("in", "out")[number // 8 % 2]}
    return {column: told[column] for column in columns}


def test_it_is_told_on_the_page_in_tables_and_in_files(done: Path) -> None:
    out = done / "out"
    summary = Summary.model_validate_json((out / "summary.json").read_text())
    assert json.loads((out / "results" / "fairness.json").read_text()) == [
        json.loads(found.model_dump_json()) for found in summary.fairness
    ]
    page = parse((out / "report.html").read_text())
    assert "fairness" in [attributes["id"] for attributes in page.all("section")]
    assert (
        "2 of 72 images have no hand told" in page.text
        and "not a colour: noise, a thing; these were among" in page.text
    )
    assert "no gap does not show that they are treated alike" in page.text
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    rows = list(csv.DictReader(io.StringIO((out / "fairness.csv").read_text())))
    first = summary.fairness[0].rates[0].groups[0]
    assert (rows[0]["columns"], rows[0]["group"], int(rows[0]["images"])) == ("hand", "left", first.images)
    assert float(rows[0]["percent"]) == pytest.approx(100 * first.share.value, abs=0.006)
    assert len(rows) == 4 * (2 + 2 + 4) and {row["judged_by"] for row in rows} == {"zero-shot", "linear probe"}
    text = (out / "report.md").read_text()
    assert "## Fairness probes" in text and "- grouped, zero-shot: accuracy; hand: from " in text
    assert "hand and place: fewer than two groups have 30 images" in text


def test_a_gap_is_a_figure_of_the_set(done: Path) -> None:
    told = Worker([(str(done / "out"), str(done / "run"), str(done / "shards"))]).answer(
        {"do": "measure", "evaluation": 0, "name": "grouped"}
    )
    assert told["was_measured"]
    (found,) = Summary.model_validate_json((done / "out" / "summary.json").read_text()).fairness
    figures = {figure["figure"]: figure for figure in told["figures"]}
    rates = found.rates[0]
    ordered = sorted((rate for rate in rates.groups if list(rate.group) == ["hand"]), key=lambda rate: rate.share.value)
    name = f"grouped, zero-shot: accuracy, hand: {ordered[1].group['hand']} less {ordered[0].group['hand']}"
    gap = figures[name]
    assert gap["value"] == pytest.approx(ordered[1].share.value - ordered[0].share.value) and gap["value"] > 0
    assert gap["low"] < gap["value"] < gap["high"] and gap["chance"] is None
    # Groups of two columns have too few images: of four rates, a gap by hand and one by place.
    assert sum(" less " in name for name in figures) == 4 * 2
    assert figures["grouped"]["chance"] == 0.25


def test_without_groups_nothing_is_told_and_what_was_goes(done: Path, tmp_path: Path) -> None:
    grouped = write_grouped(tmp_path / "grouped")
    before = read_set(grouped)
    (grouped / "fairness.toml").unlink()
    assert read_set(grouped).groups is None and read_set(grouped).digest != before.digest
    summary = Summary.model_validate_json((done / "out" / "summary.json").read_text())
    write_exports(tmp_path / "out", summary)
    assert (tmp_path / "out" / "fairness.csv").is_file()
    write_exports(tmp_path / "out", summary.model_copy(update={"fairness": ()}))
    assert not (tmp_path / "out" / "fairness.csv").exists()
    assert "Fairness" not in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('groups = ["race"]', "test.csv: no column race"),
        ("groups = []", r"fairness.toml: groups: .*at least 1 item.*; write groups = "),
        ("groups = ", r"fairness.toml: no TOML in UTF-8 .*; write groups = "),
        ('groups = ["hand"]\n[categories]\nx = ["red"]', "'red' is a class twice"),
        ('groups = ["hand"]\n[categories]\nx = []', "the category 'x' has no class"),
    ],
)
def test_what_cannot_be_asked_is_told(tmp_path: Path, text: str, message: str) -> None:
    folder = write_grouped(tmp_path / "grouped")
    (folder / "fairness.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_sets([folder])


def test_groups_need_a_table(tmp_path: Path) -> None:
    for name in COLOURS:
        (tmp_path / "s" / "test" / name).mkdir(parents=True)
        (tmp_path / "s" / "test" / name / "a.jpg").write_bytes(picture(name, 1))
    (tmp_path / "s" / "fairness.toml").write_text('groups = ["hand"]')
    with pytest.raises(InputError, match="but the set is stored as folders; store it as a table"):
        read_sets([tmp_path / "s"])
