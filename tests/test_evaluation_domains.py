"""Scores by domain beside the paper's: what is measured has a spoke, what is not is named and never a zero."""

from __future__ import annotations

import pytest
from test_report import parse, result

from model.evaluation.domain_view import domain_view
from model.evaluation.domains import domains_of
from model.evaluation.exports import markdown
from model.evaluation.intervals import share_of
from model.evaluation.page import environment
from model.evaluation.paper_view import beside_the_paper
from model.evaluation.reference import paper, reference_of
from model.evaluation.registry import known_sets
from model.evaluation.results import Calibration, LearnedResult, ProbeResult, RetrievalResult, SetResult
from model.evaluation.summary import Inputs, Row, Summary

CORRECT = {"pets": 10, "food101": 30, "dtd": 20, "eurosat": 5, "imagenet-r": 0, "mine": 0}
"""Of 40 images in each set: two fine-grained sets of the paper, one of textures, one of satellite images, and two that the
paper's tables 10 and 11 do not have.
"""


def measured(name: str, correct: int) -> SetResult:
    """A set of two classes by a model whose nearest is ViT-B/32."""
    tower = next(tower for tower in paper().models if tower.name == "ViT-B/32")
    found = result([("a", 20, correct // 2), ("b", 20, correct - correct // 2)], [])
    known = known_sets().get(name)
    return found.model_copy(update={"name": name, "reference": reference_of(known, tower)})


@pytest.fixture(scope="module")
def summary() -> Summary:
    """A probe was fitted on one of the sets."""
    sets = {name: measured(name, correct) for name, correct in CORRECT.items()}
    share = share_of(36, 40, 0.95)
    probe = ProbeResult(
        train_images=8,
        val_images=4,
        dimensions=16,
        penalty=1.0,
        iterations=9,
        is_converged=True,
        sweep=[],
        metric=share,
        top1=share,
        mean_per_class=share,
        calibration=Calibration(temperature=1.0, val_images=4, error_before=0.1, error_after=0.1),
    )
    sets["pets"] = sets["pets"].model_copy(update={"learned": LearnedResult(status="measured", probe=probe)})
    return Summary(
        name="n",
        run="r",
        confidence=0.95,
        inputs=Inputs(version=1, config={}, weights_sha256="", metrics_sha256="", shards_sha256="", sets={}),
        temperature=0.1,
        rows=[Row.of(found) for found in sets.values()],
        sets=list(sets.values()),
        retrieval=RetrievalResult(status="skipped", reason="r"),
    )


def test_means_are_over_the_same_sets_as_the_papers(summary: Summary) -> None:
    domains = {domain.name: domain for domain in domains_of(summary)}
    fine = domains["fine-grained"]
    assert fine.measured == ("Food-101", "Oxford-IIIT Pets") and len(fine.absent) == 4
    # Table 11, ViT-B/32: 84.4 on Food-101, 87.0 on Pets; table 10: a probe has 90.0 on Pets.
    assert fine.zero_shot is not None and fine.zero_shot.paper == pytest.approx((0.844 + 0.870) / 2)
    assert (fine.zero_shot.ours, fine.zero_shot.chance, fine.zero_shot.sets) == (pytest.approx(0.5), 0.5, 2)
    assert fine.probe is not None and (fine.probe.ours, fine.probe.paper, fine.probe.sets) == (0.9, 0.9, 1)
    medical = domains["medical"]
    assert (medical.measured, medical.absent, medical.zero_shot, medical.probe) == ((), ("PatchCamelyon",), None, None)
    assert domains["natural"].zero_shot is None  # a variant of ImageNet is in a table of its own
    # The paper's 27 sets, each in one domain.
    assert sum(len(domain.measured) + len(domain.absent) for domain in domains.values()) == 27
    fewer = summary.model_copy(update={"sets": summary.sets[:3]})
    assert domains_of(fewer) == [] and domain_view(fewer) is None and "By domain" not in markdown([fewer])
    # A second folder of a set that was measured counts once.
    twice = summary.model_copy(update={"sets": [*summary.sets, measured("wds_pets", 40)]})
    assert domains_of(twice) == domains_of(summary)


def test_the_page_shows_spokes_of_what_was_measured_and_a_table_of_all(summary: Summary) -> None:
    beside = beside_the_paper(summary)
    view = beside.domains
    # One radar, for the probe has one domain alone.
    assert view is not None and view.model == "ViT-B/32" and [title for title, _ in view.radars] == ["Zero-shot"]
    drawn = parse(str(view.radars[0][1]))
    (label,) = [attributes["aria-label"].replace("\u00a0", " ") for attributes in drawn.all("svg")]
    assert label == (
        "Zero-shot by domain. fine-grained: 50.0 %, ViT-B/32 85.7 %; texture: 50.0 %, ViT-B/32 44.5 %; "
        "satellite: 12.5 %, ViT-B/32 49.4 %"
    )
    assert all(word in drawn.text for word in ("satellite", "12 %", "this run", "ViT-B/32", "chance"))
    assert "medical" not in drawn.text
    page = parse(environment().get_template("paper.html.j2").render(beside=beside, summary=summary))
    assert "medical 0 of 1 – – – – – PatchCamelyon" in page.text and "texture 1 of 1 50.0 % 44.5 % 50.0 %" in page.text
    text = markdown([summary])
    assert "## By domain" in text and "| medical | 0 of 1 | – | – | – | – | – | PatchCamelyon |" in text
