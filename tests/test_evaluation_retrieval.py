"""Recall against brute force, with ties, several captions of an image and captions that several images share."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from model.evaluation.results import RetrievalResult
from model.evaluation.retrieval import chance, first_hit_ranks, measure_retrieval, relevance


def slow_rank(similarities: list[float], right: list[int]) -> int:
    """Sort all answers, wrong before right where they tie, and look for the first right one."""
    order = sorted(range(len(similarities)), key=lambda index: (-similarities[index], index in right))
    return 1 + next(place for place, index in enumerate(order) if index in right)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_against_brute_force_with_ties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Small integers: products are exact and many are equal.
    queries_QD = torch.randint(-2, 3, (600, 3), generator=generator).float()
    gallery_GD = torch.randint(-2, 3, (40, 3), generator=generator).float()
    right = [torch.randperm(40, generator=generator)[: 1 + row % 3].tolist() for row in range(600)]
    similarity = (queries_QD @ gallery_GD.T).tolist()
    expected = [slow_rank(similarity[row], right[row]) for row in range(600)]
    assert first_hit_ranks(queries_QD, gallery_GD, right) == expected
    assert len(set(expected)) > 10


def test_relevance_numbers_texts_once() -> None:
    pairs = relevance([["a cat", "a dog"], ["A Cat"], ["a bird", "a bird"]], identity=str.lower)
    assert pairs.texts == ["a cat", "a dog", "a bird"]
    assert pairs.texts_of_image == [[0, 1], [0], [2]]
    assert pairs.images_of_text == [[0, 1], [0], [2]]


def test_chance_against_all_orders() -> None:
    right = [[0], [1, 2]]
    orders = list(permutations(range(4)))
    for k in (1, 2, 3, 5):
        expected = sum(bool(set(order[:k]) & set(answers)) for order in orders for answers in right) / len(orders) / 2
        assert chance(right, 4, k) == pytest.approx(expected)


def measured(captions: list[list[str]], images_ND: torch.Tensor, texts_MD: torch.Tensor) -> RetrievalResult:
    pairs = relevance(captions, identity=str)
    assert len(pairs.texts) == len(texts_MD)
    return measure_retrieval([f"{row:09d}" for row in range(len(captions))], images_ND, texts_MD, pairs, [], 0.95)


def test_any_caption_of_the_image_is_a_hit() -> None:
    result = measured([["bad", "good"], ["other"]], torch.eye(3)[:2], torch.eye(3)[[2, 0, 1]])
    assert [recall.share.value for recall in result.image_to_text] == [1, 1, 1]
    # "bad" points to neither image: a tie, which counts against the model.
    assert result.text_to_image[0].share.value == pytest.approx(2 / 3)
    assert result.text_to_image[1].share.value == 1


def test_a_shared_caption_is_one_query_with_two_right_answers() -> None:
    result = measured([["same"], ["same"], ["third"]], torch.eye(3), torch.eye(3)[[1, 2]])
    assert (result.images, result.texts) == (3, 2)
    # Image 1 is a right answer for the caption that came with image 0, too.
    assert result.text_to_image[0].share.value == 1
    assert result.text_to_image[0].chance == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_a_collapsed_model_finds_nothing() -> None:
    captions = [[f"text {row}"] for row in range(20)]
    result = measured(captions, torch.ones(20, 4), torch.ones(20, 4))
    assert [recall.share.value for recall in result.image_to_text + result.text_to_image] == [0] * 6
    assert result.image_to_text[1].chance == pytest.approx(5 / 20)


def test_examples_show_what_was_found() -> None:
    captions = [[f"text {row}"] for row in range(20)]
    result = measured(captions, torch.eye(20), torch.eye(20))
    assert len(result.text_queries) == len(result.image_queries) == 8
    for query in result.text_queries:
        assert query.rank == 1
        assert [found.is_hit for found in query.found] == [True, False, False, False, False]
        assert query.found[0].answer == f"{int(query.query.split()[1]):09d}"
