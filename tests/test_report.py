"""report.html: one file, all sections, nothing from elsewhere, hostile captions harmless, the same bytes twice."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluation_inputs import write_config, write_run, write_set, write_shards

from model.config import EvaluateConfig
from model.evaluation import story
from model.evaluation.__main__ import main
from model.evaluation.charts import Bar, Series, bars, class_bars, curve
from model.evaluation.intervals import share_of
from model.evaluation.prepare import prepare
from model.evaluation.report import render
from model.evaluation.results import ClassResult, LearnedResult, RetrievalResult, SetResult
from model.evaluation.summary import Inputs, Summary

HOSTILE = '<script>alert("a caption")</script><img src=x onerror=alert(1)> & "quotes" $x$ {{ 7*7 }}'
CLASS_NAMES = ("<b onclick=alert(1)>red</b>", "green $\\alpha$", "blue & co", "yellow \\1")
SECTIONS = ("walk", "samples", "curves", "zero-shot", "retrieval", "gallery", "provenance", "next")
VOID = {"meta", "img", "br", "path", "use", "rect"}


@dataclass
class Page(HTMLParser):
    """The elements of a page, as a browser would see them."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\u00a0", " "))


def parse(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole evaluation in which captions, class names and templates are hostile."""
    folder = tmp_path_factory.mktemp("report")
    captions = [[f"{HOSTILE} {number}", "a second caption"] for number in range(12)]
    write_shards(folder / "shards", captions, captions)
    write_run(folder / "run")
    sets = write_set(folder / "hostile", class_names=CLASS_NAMES, templates=["<i>{c}</i>", "a {c}"])
    write_config(folder / "out", [sets])
    assert main([str(folder / "out"), "--run", str(folder / "run"), "--shards", str(folder / "shards")]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def source(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return parse(source)


def test_all_sections_are_there_and_linked(page: Page) -> None:
    assert [attributes["id"] for attributes in page.all("section")] == list(SECTIONS)
    assert [attributes["href"] for attributes in page.all("a")] == [f"#{name}" for name in SECTIONS]


def test_nothing_comes_from_elsewhere(page: Page, source: str) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,")), (tag, attributes)
        assert not {"link", "script", "iframe", "object", "base"} & {tag}
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    assert "@import" not in source and "http://" not in source and "https://" not in source
    (policy,) = [attributes["content"] for attributes in page.all("meta") if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'")


def test_hostile_words_stay_words(page: Page, source: str) -> None:
    assert not page.all("script")
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    assert "<script" not in source and "<b onclick" not in source and "<i>&lt;" not in source
    words = page.text
    assert f"{HOSTILE} 3" in words
    assert "<b onclick=alert(1)>red</b>" in words and "blue & co" in words and "<i>{c}</i>" in words
    assert "49" not in [word for word in words.split() if word == "49"]


def test_chart_labels_are_taken_literally() -> None:
    drawn = parse(str(class_bars("a", r"said \1 $\alpha$ <b>", [Bar(r"$\frac{a}$ <b> & \1", 0.5, 0.4, 0.6, 0.1)])))
    assert r"$\frac{a}$ <b> & \1" in drawn.text
    assert drawn.all("svg")[0]["aria-label"] == r"said \1 $\alpha$ <b>"
    assert not drawn.all("b")


def test_it_can_be_read_aloud(page: Page) -> None:
    assert all(attributes["alt"].strip() for attributes in page.all("img"))
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in page.all("svg"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    assert [tag for tag, _ in page.elements if tag == "h1"] == ["h1"]
    names = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [name for name, times in names.items() if times > 1] == []
    assert ("html", {"lang": "en"}) in page.elements


def test_charts_follow_the_theme(source: str) -> None:
    charts = "".join(re.findall(r"<svg.*?</svg>", source, re.DOTALL))
    assert "var(--ink)" in charts and "var(--accent)" in charts
    assert not re.findall(r"(?:fill|stroke): ?#", charts)
    used = set(re.findall(r"var\(--([a-z-]+)\)", source))
    light, dark = re.findall(r"(?::root \{)(.*?)\}", source, re.DOTALL)[:2]
    for variable in used:
        assert f"--{variable}:" in light and f"--{variable}:" in dark


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize(
    ("text", "ground"),
    [(text, ground) for text in ("ink", "muted", "accent", "second", "good", "bad") for ground in ("page", "panel")]
    + [("ink", "heat"), ("ink", "heat-wrong"), ("panel", "good"), ("accent", "accent-soft")],
)
def test_contrast(source: str, theme: int, text: str, ground: str) -> None:
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", source, re.DOTALL)[theme]))
    light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_figures_are_those_of_the_results(out: Path, page: Page) -> None:
    summary = Summary.model_validate_json((out / "summary.json").read_text())
    (found,) = summary.sets
    assert f"{100 * found.top1.value:.1f} % right, where guessing gives 25.0 %" in page.text
    assert "pair verdicts" in page.text and "short caption" in page.text
    assert summary.inputs.weights_sha256 in page.text and summary.inputs.fingerprint in page.text
    assert len(page.all("figure")) >= 12


def test_same_bytes_twice(out: Path, source: str) -> None:
    folder = out.parent
    evaluation = prepare(out, folder / "run", str(folder / "shards"), EvaluateConfig.read(out / "config.json"))
    summary = Summary.model_validate_json((out / "summary.json").read_text())
    assert render(summary, folder / "run", evaluation.shards, evaluation.sets.labelled) == source


def test_report_without_sets_curves_and_validation(tmp_path: Path, out: Path) -> None:
    run = shutil.copytree(out.parent / "run", tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    shards = write_shards(tmp_path / "shards", [["one caption"]])
    assert main([str(write_config(tmp_path / "out", [])), "--run", str(run), "--shards", str(shards)]) == 0
    page = parse((tmp_path / "out" / "report.html").read_text())
    assert [attributes["id"] for attributes in page.all("section")] == list(SECTIONS)
    assert "No evaluation set was named" in page.text and "left no metrics.jsonl" in page.text
    assert "Skipped: the data set 'colours' has no validation split" in page.text


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    drawn = str(curve("c", "d", [Series("loss", list(range(300)), [1.0] * 300)], "loss"))
    assert drawn == str(curve("c", "d", [Series("loss", list(range(300)), [1.0] * 300)], "loss"))
    assert "loss" in parse(drawn).text
    assert str(bars("x", "d", [])).startswith("<svg")


def result(
    classes: list[tuple[str, int, int]], confusion: list[tuple[int, int, int]], mentions: int = 0, single: int = 0
) -> SetResult:
    """A set of (name, images, correct) classes."""
    images, correct = sum(entry[1] for entry in classes), sum(entry[2] for entry in classes)
    top1 = share_of(correct, images, 0.95)
    return SetResult(
        name="s",
        digest="",
        images=images,
        unreadable=[],
        templates=["{c}", "a {c}"],
        metric="accuracy",
        metric_share=top1,
        metric_chance=1 / len(classes),
        top1=top1,
        top5=top1,
        mean_per_class=top1,
        chance_top1=1 / len(classes),
        chance_top5=1,
        largest_class_share=1,
        first_template_top1=share_of(single, images, 0.95),
        mended_by_ensemble=0,
        broken_by_ensemble=0,
        captions_read=9,
        classes=[
            ClassResult(
                name=name,
                images=n,
                correct=k,
                share=share_of(k, n, 0.95),
                captions_naming_it=mentions,
                words_occur=True,
            )
            for name, n, k in classes
        ],
        confusion=confusion,
        successes=[],
        mistakes=[],
        learned=LearnedResult(status="skipped", reason="it has no training split"),
    )


@pytest.mark.parametrize(
    ("penalty", "told"), [(1e6, "1,000,000"), (133.35, "133"), (7.4989e-3, "0.0075"), (1e-6, "1e-06")]
)
def test_a_penalty_is_told_as_a_person_would(penalty: float, told: str) -> None:
    assert story.strength(penalty) == told


def test_sentences_say_only_what_the_figures_bear_out() -> None:
    unseen = result([("red cat", 50, 40), ("red dog", 50, 40), ("blue cat", 0, 0)], [])
    text = story.headline(unseen, 0.995).replace("\u00a0", " ")
    assert "100 images of 2 kinds, with 3 names to choose from," in text and "99.5 % interval" in text
    assert (
        "None of the 2 names stands in the 9 training captions that were searched, only their single words do" in text
    )
    assert "2.4 times chance, and the whole interval lies above it" in text
    strange = unseen.model_copy(update={"classes": [unseen.classes[0].model_copy(update={"words_occur": False})]})
    assert "captions that were searched. That is" in story.headline(strange, 0.95)
    assert "holds chance" in story.verdict(result([("a", 10, 5), ("b", 10, 6)], []))
    assert "below chance" in story.verdict(result([("a", 100, 5), ("b", 100, 6)], []))
    assert "All of the 1 names" in story.headline(result([("a", 10, 5)], [], mentions=2), 0.95)


def test_parts_of_two_word_names() -> None:
    classes = [("red cat", 10, 4), ("red dog", 10, 10), ("blue cat", 10, 10), ("blue dog", 10, 10)]
    split = story.parts(result(classes, [(0, 0, 4), (0, 1, 5), (0, 2, 1), (1, 1, 10), (2, 2, 10), (3, 3, 10)]))
    assert split is not None
    assert (split.firsts, split.seconds) == (["blue", "red"], ["cat", "dog"])
    assert (split.first_right, split.second_right) == (39 / 40, 35 / 40)
    assert story.parts(result([("red cat", 1, 1), ("blue dog", 1, 1)], [])) is None
    assert story.parts(result([("cat", 1, 1), ("blue dog", 1, 1)], [])) is None


def test_next_steps_come_from_the_figures() -> None:
    found = result([("a", 10, 2), ("b", 10, 8)], [(0, 0, 2), (0, 1, 8), (1, 1, 8), (1, 0, 2)], single=12)
    inputs = Inputs(version=1, config={}, weights_sha256="", metrics_sha256="", shards_sha256="", sets={})
    retrieval = RetrievalResult(status="skipped", reason="r")
    summary = Summary(
        name="n", run="r", confidence=0.95, inputs=inputs, temperature=0.1, rows=[], sets=[found], retrieval=retrieval
    )
    whats = [what for what, _ in story.next_steps(summary, {"short_caption": 5, "http_404": 9})]
    assert whats[0] == "Train longer, or on more pairs."
    assert "Look at “a” taken for “b” in s." in whats
    assert "Reword the prompts." in whats
    assert "Check the largest loss on the walk: http 404, 9 rows." in whats
