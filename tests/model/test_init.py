"""A start from scratch that knows the grid and lets like attend to like."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from madtp.model import init
from madtp.model.init import mimetic_attention, sincos_positions, start_vision_tower
from small import NANO, nano_model


def test_positions_by_hand() -> None:
    """Grid 3, width 8: frequencies 1 and 1/10 for the row (sin sin cos cos), then the same for the column."""
    positions = sincos_positions(3, 8)
    assert positions.shape == (9, 8)
    for row in range(3):
        for column in range(3):
            expected = [
                wave(place * frequency)
                for place in (row, column)
                for wave in (math.sin, math.cos)
                for frequency in (1.0, 0.1)
            ]
            assert positions[3 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_positions_tell_near_from_far() -> None:
    positions = sincos_positions(7, 20)
    similar = nn.functional.cosine_similarity(positions[24][None], positions).view(7, 7)
    assert similar.argmax() == 24
    assert similar[3, 4] == pytest.approx(float(similar[4, 3])), "rows and columns are alike"
    assert similar[3, 3] > similar[3, 4] > similar[3, 5] and similar[3, 4] > similar[4, 4] > similar[6, 6]


def test_other_base() -> None:
    assert sincos_positions(2, 8, base=4.0)[2].tolist() == pytest.approx(
        [math.sin(1), math.sin(0.5), math.cos(1), math.cos(0.5), 0, 0, 1, 1]
    )


@pytest.mark.parametrize("width", [6, 21])
def test_a_width_that_no_grid_fits_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 4, got {width}"):
        sincos_positions(3, width)


def fused(width: int) -> Any:
    return SimpleNamespace(qkv=nn.Linear(width, 3 * width), projection=nn.Linear(width, width))


def products(attention: Any, heads: int) -> tuple[list[Tensor], Tensor]:
    """`x -> q -> k` of every head and `x -> v -> output` over all: token x_i attends by `x_i (W_q W_k^T) x_j^T`."""
    width = attention.projection.weight.shape[0]
    q, k, v = attention.qkv.weight.detach().split(width)
    size = width // heads
    both = [q[h * size : (h + 1) * size].T @ k[h * size : (h + 1) * size] for h in range(heads)]
    return both, (attention.projection.weight.detach() @ v).T


def identity_part(matrix: Tensor) -> float:
    """The factor of I in a matrix: mean of its diagonal."""
    return float(matrix.diagonal().mean())


@pytest.mark.parametrize("heads", [1, 3])
def test_products_are_those_of_the_paper(heads: int) -> None:
    """`W_q W_k^T ~ 0.7 Z + 0.7 I` (of a head's rank), `W_v W_o ~ 0.4 Z - 0.4 I`."""
    width = 39
    attention = fused(width)
    mimetic_attention(attention, heads)
    like, over = products(attention, heads)
    for product in like:
        rank = torch.linalg.matrix_rank(product, rtol=1e-4)
        assert rank == width // heads
        off = product - product.diagonal().diag()
        assert identity_part(product) > 5 * float(off.abs().mean()) / math.sqrt(width)
    if heads == 1:
        assert identity_part(like[0]) == pytest.approx(0.7, abs=0.1)
        noise = like[0] - 0.7 * torch.eye(width)
        assert float(noise.std()) == pytest.approx(0.7 / math.sqrt(width), rel=0.1)
    assert identity_part(over) == pytest.approx(-0.4, abs=0.06)
    noise = over + 0.4 * torch.eye(width)
    assert float(noise.std()) == pytest.approx(0.4 / math.sqrt(width), rel=0.1)
    assert abs(float(noise.mean())) < 0.02


def test_without_noise_the_products_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "LIKE_NOISE", 0.0)
    monkeypatch.setattr(init, "MINUS_NOISE", 0.0)
    attention = fused(13)
    mimetic_attention(attention, 1)
    (like,), over = products(attention, 1)
    assert torch.allclose(like, 0.7 * torch.eye(13), atol=1e-5)
    assert torch.allclose(over, -0.4 * torch.eye(13), atol=1e-5)


def test_tokens_attend_to_their_like() -> None:
    attention = fused(40)
    mimetic_attention(attention, 2)
    x = torch.randn(53, 40)
    for product in products(attention, 2)[0]:
        score = x @ product @ x.T
        own, other = score.diagonal().mean(), (score.sum() - score.diagonal().sum()) / (53 * 52)
        assert own > other + 5


def test_biases_are_left_alone() -> None:
    attention = fused(12)
    before = attention.qkv.bias.clone(), attention.projection.bias.clone()
    mimetic_attention(attention, 2)
    assert attention.qkv.bias.equal(before[0]) and attention.projection.bias.equal(before[1])
    assert attention.qkv.weight.requires_grad


def test_a_tower_gets_both_in_every_layer() -> None:
    tower = nano_model().vision_model
    start_vision_tower(tower, position_scale=0.25)
    position = tower.embeddings.position_embedding.detach()[0]
    grid = NANO.image // NANO.patch
    assert torch.allclose(position[1:], 0.25 * sincos_positions(grid, NANO.width))
    assert len(position) == grid * grid + 1 and not torch.equal(position[0], position[1])
    weights = []
    for layer in tower.encoder.layers:
        like, over = products(layer.self_attn, NANO.heads)
        assert identity_part(over) < -0.25 and all(identity_part(product) > 0.1 for product in like)
        weights.append(over)
    assert not torch.equal(weights[0], weights[1]), "every layer draws anew"


def test_a_fresh_model_has_it() -> None:
    position = nano_model(seed=3).vision_model.embeddings.position_embedding.detach()[0, 1:]
    assert torch.allclose(position, 0.5 * sincos_positions(7, NANO.width))
