"""Every objective: it can be learned, its loss is that of a slow obvious loop, several processes learn what one does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from ranks import run_ranks
from shards_for_model import colour_samples, write_shards
from small_runs import TEXT, TRAIN, VAL, assert_same_run, go, metrics, new_run
from torch import Tensor

from model.checkpoint import load_run
from model.config import ClipConfig, PretrainConfig, ResNetConfig, TextConfig, TrainConfig, VitConfig
from model.data import Order, preprocess
from model.data.views import VIEW_DRAWS
from model.distributed import Processes
from model.gradients import backward
from model.objectives.bag_of_words import bag_loss
from model.objectives.build import build_objective
from model.objectives.captioning import Captioning
from model.objectives.masked_lm import MaskedLm, choose_masked
from model.objectives.moco import Moco, moco_loss
from model.objectives.objective import Inputs, Objective
from model.objectives.sigmoid import sigmoid_loss
from model.objectives.simclr import simclr_loss
from model.objectives.words import bags
from model.optim import build_optimizer

KINDS: dict[str, dict[str, Any]] = {
    "contrastive": {},
    "bag_of_words_contrastive": {},
    "bag_of_words": {},
    "captioning": {"dropout": 0.0},
    "masked_lm": {"dropout": 0.0},
    "convirt": {},
    "sigmoid": {},
    "simclr": {},
    "moco": {"queue": 16, "momentum": 0.5, "temperature": 0.05},
}
VIT = ClipConfig(
    embed_dim=32,
    vision=VitConfig(image_px=16, patch_px=8, width=32, layers=1, heads=2),
    text=TextConfig(context_length=8, vocab_size=300, width=32, layers=1, heads=2),
)
ALONE = Processes(0, 1, torch.device("cpu"))
END = 299


def objective_of(kind: str, **settings: Any) -> Objective:
    torch.manual_seed(0)
    train = TrainConfig(loss_tile=5, global_batch=16, learning_rate=3e-3, weight_decay=0.0)
    objective = {"kind": kind, **KINDS[kind], **settings}
    return build_objective(
        PretrainConfig(name="test", dataset="none", model=VIT, train=train, objective=objective)  # type: ignore[arg-type]
    )


def pairs(number: int, draws: int) -> Inputs:
    """Noise of one mean colour each, and texts of one to five words of a hundred, the first of which no other begins with."""
    noise = torch.Generator().manual_seed(1)
    colour = torch.randint(30, 226, (number, 1, 1, 3), generator=noise)
    image_BHWC = (colour + torch.randint(-30, 30, (number, 16, 16, 3), generator=noise)).to(torch.uint8)
    tokens_BL = torch.zeros(number, 7, dtype=torch.int64)
    for row, words in enumerate(torch.randint(1, 6, (number,), generator=noise).tolist()):
        own = torch.randint(1, 100, (words,), generator=noise)
        own[0] = 150 + row
        tokens_BL[row, : words + 2] = torch.cat([torch.tensor([298]), own, torch.tensor([END])])
    return Inputs(image_BHWC, tokens_BL, torch.rand(number, draws, generator=noise))


def losses(objective: Objective, inputs: Inputs) -> float:
    return float(objective.loss(objective(inputs), ALONE))


@pytest.mark.parametrize("kind", KINDS)
def test_thirty_two_pairs_are_learned_by_heart(kind: str) -> None:
    objective = objective_of(kind).train()
    inputs = pairs(32, objective.draws)
    if kind in ("simclr", "moco"):  # views that are cropped and flipped, not jittered, grey or blurred
        inputs.draws_BK.unflatten(1, (2, VIEW_DRAWS))[:, :, [5, 10, 11]] = 0.9
    # Of earlier keys, MoCo must not have one of the same image: batches of half of them, a queue of the other half.
    batches = inputs.split(16 if kind == "moco" else 32)
    optimizer = build_optimizer(objective, TrainConfig(learning_rate=5e-3, weight_decay=0.0, adam_beta2=0.95))
    highest = 0.0
    for step in range(300):
        optimizer.zero_grad()
        loss, outputs = backward(objective, objective, batches[step % len(batches)], ALONE, 0, precision="fp32")
        highest = max(highest, float(loss))
        optimizer.step()
        objective.after_step(outputs, ALONE)
        if loss < 0.02 and highest > 0.5:  # MoCo's queue is not yet of images at first
            break
    assert highest > 0.5
    assert loss < 0.02


def gradients_of_all(processes: Processes, micro_batch: int) -> dict[str, dict[str, Tensor]]:
    """Of every objective, the gradients for twelve pairs shared among the processes."""
    found = {}
    for kind in KINDS:
        objective = objective_of(kind).train()
        share = 12 // processes.world_size
        inputs = Inputs(*(part[processes.rank * share :][:share] for part in pairs(12, objective.draws)))
        backward(objective, processes.wrap(objective), inputs, processes, micro_batch, precision="fp32")
        found[kind] = {name: weight.grad for name, weight in objective.named_parameters() if weight.grad is not None}
    return found


def test_two_processes_by_pieces_have_the_gradients_of_one() -> None:
    whole = gradients_of_all(ALONE, 0)
    for of_rank in run_ranks(2, gradients_of_all, 4):
        for kind, expected in whole.items():
            assert of_rank[kind].keys() == expected.keys()
            largest = max(float(gradient.abs().max()) for gradient in expected.values())
            for name, gradient in expected.items():
                difference = (of_rank[kind][name] - gradient).abs().max()
                assert difference <= 1e-5 * largest, f"{kind}: {name}"


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_is_trained_has_a_gradient(kind: str) -> None:
    objective = objective_of(kind).train()
    backward(objective, objective, pairs(12, objective.draws), ALONE, 0, precision="fp32")
    assert [name for name, weight in objective.named_parameters() if weight.requires_grad and weight.grad is None] == []


# --- losses against loops ---------------------------------------------------------------------------------------------


def unit(rows: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


@pytest.mark.parametrize("tile", [1, 4, 100])
def test_sigmoid_loss_judges_every_pair(tile: int) -> None:
    image_GD, text_GD = unit(6, 1), unit(6, 2)
    scale, bias = torch.tensor(10.0).double(), torch.tensor(-3.0).double()
    expected = 0.0
    for i in range(6):
        for j in range(6):
            logit = 10 * float(image_GD[i] @ text_GD[j]) - 3
            expected += math.log1p(math.exp(-logit if i == j else logit)) / 6
    parts = [sigmoid_loss(image_GD[i : i + 2], text_GD, scale, bias, tile, first=i) for i in (0, 2, 4)]
    assert float(torch.stack(parts).mean()) == pytest.approx(expected, rel=1e-9)


def test_simclr_loss_picks_the_other_view() -> None:
    view_GD, other_GD = unit(5, 1), unit(5, 2)
    every = [*view_GD, *other_GD]
    expected = 0.0
    for i in range(10):
        positive = math.exp(float(every[i] @ every[(i + 5) % 10]) / 0.1)
        expected -= (
            math.log(positive / sum(math.exp(float(every[i] @ every[k]) / 0.1) for k in range(10) if k != i)) / 10
        )
    assert float(simclr_loss(view_GD, other_GD, view_GD, other_GD, 0.1)) == pytest.approx(expected, rel=1e-9)


def test_moco_loss_picks_the_own_key() -> None:
    query_BD, key_BD, queue_QD = unit(4, 1), unit(4, 2), unit(7, 3)
    expected = 0.0
    for query, key in zip(query_BD, key_BD, strict=True):
        own = math.exp(float(query @ key) / 0.2)
        expected -= math.log(own / (own + sum(math.exp(float(query @ other) / 0.2) for other in queue_QD))) / 4
    assert float(moco_loss(query_BD, key_BD, queue_QD, 0.2)) == pytest.approx(expected, rel=1e-9)


def test_moco_queue_takes_the_newest_keys_and_the_copy_follows() -> None:
    moco = objective_of("moco", momentum=0.75)
    assert isinstance(moco, Moco)
    slow, fast = next(moco.slow_head.parameters()), next(moco.head.parameters())
    with torch.no_grad():
        fast += 1
    before = slow.clone()
    batches = [pairs(12, moco.draws), pairs(10, moco.draws)]
    outputs = [moco(batch) for batch in batches]
    outputs = [output._replace(rows=tuple(row.detach() for row in output.rows)) for output in outputs]
    for output in outputs:
        moco.after_step(output, ALONE)
    torch.testing.assert_close(slow.data, before + 1 - 0.75**2)
    keys = torch.cat([output.rows[1] for output in outputs])  # 22, into a queue of 16 that begins anew after 16
    torch.testing.assert_close(moco.queue_QD, torch.cat([keys[16:], keys[6:16]]))


def test_bag_loss_is_a_divergence_from_the_words() -> None:
    tokens_BL = torch.tensor([[298, 5, 7, 5, END, 0], [298, END, 0, 0, 0, 0], [298, 0, 3, END, 0, 0]])
    bag_BV = bags(tokens_BL, 300)
    assert bag_BV[0, [5, 7]].tolist() == [0.5, 0.5] and bag_BV[2, [0, 3]].tolist() == [0.5, 0.5]
    assert bag_BV.sum(dim=1).tolist() == [1, 0, 1]
    log_probability_BV = torch.randn(3, 300, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)
    found = bag_loss(log_probability_BV, bag_BV)
    expected = [
        sum(0.5 * (math.log(0.5) - float(log_probability_BV[row, word])) for word in words)
        for row, words in ((0, (5, 7)), (1, ()), (2, (0, 3)))
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_captioning_loss_predicts_each_token_from_those_before_it_both_ways() -> None:
    captioning = objective_of("captioning").eval()
    assert isinstance(captioning, Captioning)
    inputs = pairs(3, 0)
    expected, tokens = 0.0, 0
    with torch.no_grad():
        for row, ids in enumerate(inputs.tokens_BL.tolist()):
            ids = ids[: ids.index(END) + 1]
            grid = captioning._grid(_pixels(inputs.image_BHWC[row : row + 1]))
            for decoder, order in ((captioning.forwards, ids), (captioning.backwards, ids[::-1])):
                for place in range(1, len(order)):
                    log_probability_V = _next_word(captioning, decoder, grid, order[:place])
                    expected -= float(log_probability_V[order[place]])
            tokens += len(ids) - 1
        found = losses(captioning, inputs)
    assert found == pytest.approx(expected / tokens, rel=1e-4)


def _pixels(image_BHWC: Tensor) -> Tensor:
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    return ((image_BHWC / 255 - mean) / std).permute(0, 3, 1, 2)


def _next_word(captioning: Captioning, decoder: Any, grid: Tensor, prefix: list[int]) -> Tensor:
    x = captioning.token_embedding(torch.tensor([prefix])) + captioning.positional_embedding[: len(prefix)]
    x = captioning.ln_embedding(x)
    causal = torch.full((len(prefix), len(prefix)), -torch.inf).triu(1)
    for layer in decoder:
        x = layer(x, grid, tgt_mask=causal)
    return (x[0, -1] @ captioning.token_embedding.weight.T + captioning.output_bias).log_softmax(dim=0)


def test_captioning_scores_are_its_losses() -> None:
    captioning = objective_of("captioning").eval()
    inputs = pairs(4, 0)
    with torch.no_grad():
        scores_BT = captioning.score_texts(_pixels(inputs.image_BHWC), inputs.tokens_BL)
        for image in range(4):
            for text in range(4):
                pair = Inputs(inputs.image_BHWC[image, None], inputs.tokens_BL[text, None], inputs.draws_BK[:1])
                assert float(scores_BT[image, text]) == pytest.approx(-losses(captioning, pair) / 2, rel=1e-4)


def test_words_left_out_are_drawn_and_never_specials() -> None:
    inputs = pairs(64, 8)
    chosen_BL = choose_masked(inputs.tokens_BL, inputs.draws_BK, 0.3)
    for ids, draws, chosen in zip(inputs.tokens_BL.tolist(), inputs.draws_BK.tolist(), chosen_BL.tolist(), strict=True):
        words = range(1, ids.index(END))
        lowest = min(words, key=draws.__getitem__)
        assert [at for at, is_chosen in enumerate(chosen) if is_chosen] == [
            at for at in words if draws[at] < 0.3 or at == lowest
        ]


def test_masked_loss_is_the_mean_over_words_and_sees_neither_them_nor_padding() -> None:
    masked = objective_of("masked_lm").eval()
    assert isinstance(masked, MaskedLm)
    inputs = pairs(6, masked.draws)
    chosen_BL = choose_masked(inputs.tokens_BL, inputs.draws_BK, 0.15)
    with torch.no_grad():
        found = losses(masked, inputs)
        total = 0.0
        for row in range(6):  # each alone, without its padding
            length = int(inputs.tokens_BL[row].argmax()) + 1
            pair = Inputs(
                inputs.image_BHWC[row, None], inputs.tokens_BL[row, None, :length], inputs.draws_BK[row, None]
            )
            total += losses(masked, pair) * int(chosen_BL[row].sum())
        assert found == pytest.approx(total / int(chosen_BL.sum()), rel=1e-4)
        pixels, hidden_BL = _pixels(inputs.image_BHWC), inputs.tokens_BL.masked_fill(chosen_BL, 200)
        torch.testing.assert_close(
            masked._logits(pixels, inputs.tokens_BL, chosen_BL), masked._logits(pixels, hidden_BL, chosen_BL)
        )


# --- through the trainer ----------------------------------------------------------------------------------------------

SMALL = VIT.model_copy(
    update={"text": TEXT, "vision": VitConfig(image_px=32, patch_px=16, width=16, layers=1, heads=2)}
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("objectives") / "shards", TRAIN, VAL))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "contrastive"])
def test_a_run_learns_and_is_read_back(kind: str, shards: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", SMALL, {"kind": kind}, epochs=1, global_batch=12)
    assert go(ALONE, folder, shards)
    (validation,) = [line for line in metrics(folder) if line["kind"] == "validation"]
    assert math.isfinite(validation["loss"])
    found = load_run(folder).objective
    with torch.no_grad():
        feature_BD = found.encode_image(_pixels(torch.zeros(2, 32, 32, 3)))
    assert feature_BD.isfinite().all() and len(feature_BD) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_features_before_the_projection_are_what_it_projects(kind: str) -> None:
    found = objective_of(kind).eval()
    image_BCHW = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        before_BF, after_BD = found.encode_image_twice(image_BCHW)
        torch.testing.assert_close(after_BD, found.encode_image(image_BCHW))
        projected_BD = before_BF
        if kind not in {"captioning", "masked_lm"}:  # these take the mean of the map
            projected_BD = before_BF @ found.towers.visual.proj
        if kind == "convirt":
            projected_BD = found.image_head(projected_BD)
    torch.testing.assert_close(projected_BD, after_BD)
    assert before_BF.shape == (3, 32)


@pytest.mark.parametrize(("kind", "epochs"), [("bag_of_words", 16), ("captioning", 36)])
def test_the_likeliest_words_name_the_colour_of_unseen_squares(kind: str, epochs: int, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [(image, text.split(",")[0]) for image, text in colour_samples(80)])
    train = {"epochs": epochs, "global_batch": 16, "learning_rate": 1e-2, "weight_decay": 0.0}
    folder = new_run(tmp_path / "run", SMALL, {"kind": kind}, **train, checkpoint_every_steps=1000)
    assert go(ALONE, folder, str(shards))
    found = load_run(folder)
    images = torch.stack([torch.from_numpy(preprocess(image, 32).copy()) for image, _ in colour_samples(20, seed=3)])
    texts = found.tokenizer.encode([f"a {colour} square" for colour in ("red", "green", "blue", "yellow")])
    with torch.no_grad():
        scores_BT = found.objective.score_texts(_pixels(images), texts)
    assert (scores_BT.argmax(dim=1) == torch.arange(20) % 4).float().mean() >= 0.9


@pytest.mark.parametrize("kind", ["captioning", "moco"])
def test_dropout_and_queue_are_those_of_an_undisturbed_run(kind: str, shards: str, tmp_path: Path) -> None:
    settings = {"kind": kind} | ({"queue": 24} if kind == "moco" else {})
    for name, stops in (("whole", ()), ("stopped", (2,))):
        folder = new_run(tmp_path / name, SMALL, settings, epochs=1)
        for at in stops:
            assert go(ALONE, folder, shards, at, "stop")
        assert go(ALONE, folder, shards)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_a_queue_shorter_than_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objective\.queue 100 is smaller than one global_batch of 128"):
        PretrainConfig(
            name="a", dataset="b", train=TrainConfig(global_batch=128), objective={"kind": "moco", "queue": 100}
        )


def test_the_map_is_what_the_towers_pool() -> None:
    """The paper's ResNet has a map of a 32nd of its side; a ViT's patches see the whole image."""
    towers = [
        build_objective(PretrainConfig(name="a", dataset="b", model=VIT.model_copy(update={"vision": vision}))).towers
        for vision in (ResNetConfig(image_px=64, width=8, blocks=(1, 1, 1, 1), heads=4), VIT.vision)
    ]
    resnet, vit = (tower.visual for tower in towers)
    grid = resnet.grid(torch.randn(2, 3, 64, 64))
    assert grid.shape == (2, 4, resnet.grid_channels)
    vit_grid = vit.grid(torch.randn(2, 3, 16, 16))
    assert vit_grid.shape == (2, 4, vit.grid_channels)
    torch.testing.assert_close(vit_grid.mean(dim=2), torch.zeros(2, 4), atol=1e-5, rtol=0)  # ln_post


def test_draws_are_a_samples_own_in_an_epoch() -> None:
    order = Order(samples=40, global_batch=8, seed=3)
    ids = np.arange(8)
    draws = order.draws(0, ids, 20)
    assert draws.shape == (8, 20) and draws.min() >= 0 and draws.max() < 1
    assert (order.draws(4, ids[::-1], 20) == draws[::-1]).all()  # the same epoch, another step, another order
    assert (order.draws(0, ids, 9) == draws[:, :9]).all()
    assert len(np.unique(draws)) == 160
    assert not np.isin(order.draws(5, ids, 20), draws).any()  # the next epoch
    assert not np.isin(np.array(order.crops(0, ids)), draws).any()
