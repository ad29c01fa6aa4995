"""What is told of a run beside the paper, in other formats, and beside other runs."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from evaluation_inputs import COLOURS, write_config, write_run, write_set, write_shards, write_split
from test_report import parse

from model.evaluation import story
from model.evaluation.__main__ import main
from model.evaluation.compare import main as compare
from model.evaluation.compare import render
from model.evaluation.exports import as_csv, markdown
from model.evaluation.intervals import Share, share_of
from model.evaluation.multilabel_results import MultilabelLearned, MultilabelResult
from model.evaluation.paper_charts import Difference, differences
from model.evaluation.paper_view import beside_the_paper
from model.evaluation.reference import paper, reference_of
from model.evaluation.registry import known_sets
from model.evaluation.results import Origin
from model.evaluation.summary import Summary


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pets with a training split, ImageNet, a variant, a set of one's own with a hostile class; dtd is absent."""
    folder = tmp_path_factory.mktemp("beside")
    write_shards(folder / "shards", [["a red thing"]] * 4)
    write_run(folder / "run")
    sets = [write_set(folder / name, class_names=list(COLOURS)) for name in ("pets", "imagenet1k", "imagenet-r")]
    sets.append(write_set(folder / "mine", class_names=["<b>red</b>", "|x|", "blue", "yellow"]))
    write_split(folder / "pets" / "train", 3, first=100)
    write_config(folder / "out", [*sets, folder / "dtd"], few_shot=[1, 2], few_shot_seeds=1, retrieval_samples=0)
    assert main([str(folder / "out"), "--run", str(folder / "run"), "--shards", str(folder / "shards")]) == 0
    return folder


def read(done: Path) -> Summary:
    return Summary.model_validate_json((done / "out" / "summary.json").read_text())


def test_the_page_has_the_papers_figures(done: Path) -> None:
    page = parse((done / "out" / "report.html").read_text())
    assert "paper" in [attributes["id"] for attributes in page.all("section")]
    assert "87.0 %" in page.text and "90.0 %" in page.text and "ViT-B/32" in page.text and "firm" in page.text
    for figure in (4, 5, 6, 8, 13):
        assert f"(figure {figure})" in page.text or f"(figures {figure} " in page.text
    assert "ImageNet under other conditions" in page.text and "How sure, how often right" in page.text
    assert "Not measured" in page.text and "dtd: no such folder" in page.text
    assert "It has 12 test images here, 3,669 in the paper: not the same split." in page.text
    assert "prompts from zeroshot_classification_templates.txt" in page.text
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_differences_to_the_paper_are_those_of_the_tables(done: Path) -> None:
    summary = read(done)
    beside = beside_the_paper(summary)
    assert [row.name for row in beside.rows] == ["pets", "imagenet1k", "imagenet-r"]
    pets = summary.sets[0]
    # Table 10: a probe on ResNet-50 has 92.4 on Pets, and 74.3 on ImageNet; the variant has none.
    panel = next(panel for panel in beside.panels if "ResNet-50" in panel.title)
    for share, base in ((pets.metric_share.value, 92.4), (summary.sets[1].top1.value, 74.3)):
        assert f"{100 * share - base:+.1f}".replace("-", "−") + "\u00a0points" in panel.chart
    assert "on 0 of 2 sets" in panel.note


def test_tables_for_people_and_spreadsheets(done: Path) -> None:
    summary = read(done)
    rows = list(csv.DictReader(io.StringIO((done / "out" / "results.csv").read_text())))
    assert [row["set"] for row in rows] == [found.name for found in summary.sets]
    assert float(rows[0]["probe_percent"]) == summary.rows[0].probe_percent and rows[0]["paper_percent"] == "87.0"
    assert rows[3]["probe_percent"] == "" and rows[3]["paper_model"] == ""
    text = (done / "out" / "report.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert any(line.startswith("| pets |") and "| 87.0 |" in line for line in table)
    assert "- dtd: " in text and "imagenet-r" in text
    hostile = summary.model_copy(update={"name": "a|b <i>[x](y)"})
    assert r"\<i\>" in markdown([hostile]) and "<i>" not in markdown([hostile])
    assert len(as_csv([summary, hostile]).splitlines()) == 9


def test_clip_benchmarks_json(done: Path) -> None:
    summary = read(done)
    dumps = [json.loads(path.read_text()) for path in sorted((done / "out" / "clip_benchmark").iterdir())]
    # The fields that CLIP_benchmark's cli.py writes and its `build` flattens.
    for dump in dumps:
        assert (
            set(dump) == {"dataset", "model", "pretrained", "task", "metrics", "language"} and dump["language"] == "en"
        )
    tasks = sorted((dump["dataset"], dump["task"]) for dump in dumps)
    zero_shot = [(found.name, "zeroshot_classification") for found in summary.sets]
    assert tasks == sorted([*zero_shot, ("pets", "linear_probe")])
    by_task = {(dump["dataset"], dump["task"]): dump["metrics"] for dump in dumps}
    assert by_task["pets", "zeroshot_classification"]["acc1"] == summary.sets[0].top1.value
    assert by_task["pets", "zeroshot_classification"]["mean_per_class_recall"] == summary.sets[0].mean_per_class.value
    learned = summary.sets[0].learned.probe
    assert learned is not None and by_task["pets", "linear_probe"]["lp_acc1"] == learned.top1.value


def several_labels(share: Share) -> MultilabelResult:
    """A result of VOC2007 by a model whose nearest is ViT-B/32."""
    tower = next(tower for tower in paper().models if tower.name == "ViT-B/32")
    return MultilabelResult(
        name="voc2007",
        digest="",
        images=4,
        unreadable=[],
        templates=["{c}"],
        metric_share=share,
        metric_chance=0.5,
        classes=[],
        origin=Origin(),
        reference=reference_of(known_sets()["voc2007"], tower),
        learned=MultilabelLearned(status="skipped", reason="r"),
    )


def test_runs_side_by_side(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = read(done)
    better = [found.model_copy(update={"metric_share": share_of(11, 12, 0.95)}) for found in summary.sets]
    rows = [row.model_copy(update={"metric_percent": 91.7}) for row in summary.rows]
    other = summary.model_copy(update={"name": "better", "sets": better, "rows": rows[:-1], "image_gflop": 100.0})
    (tmp_path / "better").mkdir()
    (tmp_path / "better" / "summary.json").write_text(other.model_dump_json())
    arguments = [str(tmp_path / "both"), str(done / "out"), str(tmp_path / "better")]
    assert compare(arguments) == 0
    # It was written here and has no done.json, as an evaluation of which a set failed.
    told = capsys.readouterr().out
    assert f"warning: {tmp_path / 'better'} is not finished" in told and str(done) not in told
    page = parse((tmp_path / "both" / "compare.html").read_text())
    assert page.text.count("91.7") >= 3 and "pets" in page.text and "mine" in page.text
    charts = [attributes["aria-label"] for attributes in page.all("svg")]
    # Figure 9 by hand: the mean error of the paper's RN50 on Pets and ImageNet is that of 85.4 and 59.6.
    assert any(
        "mean zero-shot error over 2 sets" in chart and "RN50: 27.5 %" in chart.replace("\u00a0", " ")
        for chart in charts
    )
    assert any("better: 8.3 %" in chart.replace("\u00a0", " ") for chart in charts)
    # With VOC2007, whose images show several classes: its error of 17.9 % is the third of RN50's.
    of_several = several_labels(share_of(3, 4, 0.95))
    text = render([found.model_copy(update={"multilabel": (of_several,)}) for found in (summary, other)])
    charts = [attributes["aria-label"].replace("\u00a0", " ") for attributes in parse(text).all("svg")]
    assert any("zero-shot error over 3 sets" in chart and "RN50: 24.3 %" in chart for chart in charts)
    assert any(f"better: {story.percent((1 / 12 * 2 + 1 / 4) / 3)}".replace("\u00a0", " ") in chart for chart in charts)
    text = (tmp_path / "both" / "compare.md").read_text()
    assert "better: zero-shot" in text and len((tmp_path / "both" / "compare.csv").read_text().splitlines()) == 8
    assert compare([str(tmp_path / "x"), str(done / "out"), str(done / "out")]) == 2
    assert compare([str(tmp_path / "x"), str(tmp_path / "nowhere")]) == 2
    (tmp_path / "better" / "summary.json").write_text("{}")
    assert compare([str(tmp_path / "x"), str(tmp_path / "better")]) == 2
    complained = capsys.readouterr().err
    for told in ("two evaluations are called colours", "summary.json: no such file", "damaged, or of another version"):
        assert told in complained


def test_the_largest_difference_stands_first() -> None:
    drawn = parse(str(differences("d", "said", [Difference("low", -0.1), Difference("high", 0.2, mark=0.1)])))
    assert drawn.text.index("high") < drawn.text.index("low")
