"""The zero-shot classifier against the slow obvious loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation_inputs import write_set

from model.evaluation.mentions import Mentions, count_mentions
from model.evaluation.results import LearnedResult, SetResult
from model.evaluation.sets import EvaluationSet, read_set
from model.evaluation.zero_shot import choose, class_vectors, confusion, ensemble_logits, logits, result_of

SCALE = 20.0
SKIPPED = LearnedResult(status="skipped", reason="the set has no training split")
MENTIONS = Mentions(100, captions_naming=[3, 0, 0, 1], words_occur=[True, False, True, True])


def slow_prediction(image: list[float], prompts: list[list[list[float]]]) -> int:
    """Class by class, template by template, number by number."""

    def unit(vector: list[float]) -> list[float]:
        length = sum(x * x for x in vector) ** 0.5
        return [x / length for x in vector]

    best, best_similarity = -1, -2.0
    for label, templates in enumerate(prompts):
        units = [unit(vector) for vector in templates]
        mean = unit([sum(column) / len(units) for column in zip(*units, strict=True)])
        similarity = sum(a * b for a, b in zip(unit(image), mean, strict=True))
        if similarity > best_similarity:
            best, best_similarity = label, similarity
    return best


def test_same_as_the_slow_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    images_ND = torch.randn(200, 6, generator=generator, dtype=torch.float64) * 9
    # Templates of very different lengths: without the first normalisation the longest would decide.
    prompts_CTD = torch.randn(7, 4, 6, generator=generator, dtype=torch.float64)
    prompts_CTD = prompts_CTD * torch.tensor([1.0, 50.0, 0.1, 3.0], dtype=torch.float64)[:, None]
    labels_N = torch.randint(7, (200,), generator=generator)
    found = choose(logits(images_ND, class_vectors(prompts_CTD), SCALE), labels_N)
    expected = [slow_prediction(image, prompts_CTD.tolist()) for image in images_ND.tolist()]
    assert found.label.tolist() == expected
    assert ((found.rank == 0) == (found.label == labels_N)).all()
    unnormalised = (images_ND @ prompts_CTD.mean(dim=1).T).argmax(dim=1).tolist()
    assert unnormalised != expected


def test_rank_and_probability_by_hand() -> None:
    classes_CD = torch.eye(3)
    found = choose(logits(torch.tensor([[3.0, 2.0, 1.0]]), classes_CD, scale=1.0), torch.tensor([1]))
    similarity = torch.tensor([3.0, 2.0, 1.0]) / 14**0.5
    assert (found.label.item(), found.rank.item()) == (0, 1)
    assert found.probability.item() == pytest.approx((similarity.exp() / similarity.exp().sum())[0].item())


def test_a_collapsed_model_scores_chance() -> None:
    labels_N = torch.arange(40) % 4
    found = choose(logits(torch.ones(40, 3), class_vectors(torch.ones(4, 2, 3)), SCALE), labels_N)
    assert (found.rank == 0).float().mean().item() == pytest.approx(0.25)


def test_confusion_counts_every_image() -> None:
    labels_N, predicted_N = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 0, 0])
    assert confusion(labels_N, predicted_N, 3) == [(0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 0, 2)]


@pytest.fixture
def colours(tmp_path: Path) -> EvaluationSet:
    return read_set(write_set(tmp_path / "colours"))


def measured(found: EvaluationSet, images_ND: torch.Tensor, rows: list[int]) -> SetResult:
    """Templates 1 and 2 point to each class's axis; the first one calls everything class 0."""
    axis_CD = torch.eye(4)
    prompts_CTD = torch.stack([axis_CD[[0, 0, 0, 0]] + 0.01 * axis_CD, axis_CD * 3, axis_CD * 3], dim=1)
    whole_NC, single_NC = ensemble_logits(images_ND, prompts_CTD, SCALE)
    return result_of(found, rows, [], whole_NC, single_NC, 0.95, MENTIONS, SKIPPED)


def test_figures_of_a_set(colours: EvaluationSet) -> None:
    # Twelve images, three of each class; the last two are taken for class 0, one image was unreadable.
    rows = [row for row in range(12) if row != 4]
    labels = [colours.samples[row].label for row in rows]
    images_ND = torch.eye(4)[[*labels[:-2], 0, 0]] + 0.05
    result = measured(colours, images_ND, rows)
    assert result.images == 11
    assert result.top1.value == pytest.approx(9 / 11)
    assert result.top5.value == 1
    assert (result.chance_top1, result.chance_top5) == (0.25, 1.0)
    assert result.mean_per_class.value == pytest.approx((1 + 1 + 2 / 3 + 2 / 3) / 4)
    assert [entry.images for entry in result.classes] == [2, 3, 3, 3]
    assert [entry.captions_naming_it for entry in result.classes] == [3, 0, 0, 1]
    assert [entry.words_occur for entry in result.classes] == [True, False, True, True]
    assert result.largest_class_share == pytest.approx(3 / 11)
    assert sum(images for *_, images in result.confusion) == 11
    assert {(verdict.label, verdict.predicted) for verdict in result.mistakes} == {(2, 0), (3, 0)}
    assert all(verdict.label == verdict.predicted for verdict in result.successes)
    assert result.top1.value - result.first_template_top1.value == pytest.approx(result.ensemble_gain)
    changed = result.mended_by_ensemble - result.broken_by_ensemble
    assert changed / 11 == pytest.approx(result.ensemble_gain)


def test_class_names_in_captions() -> None:
    captions = ["A Red circle, big", "red, circle", "a red striped circle", "the red circles", "BLUE"]
    found = count_mentions(["red circle", "blue", "circle", "red circle", "big blue", "blue whale"], captions)
    assert found.captions_naming == [2, 1, 3, 2, 0, 0]
    assert found.words_occur == [True, True, True, True, True, False]
    assert found.captions_read == 5
