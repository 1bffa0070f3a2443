"""The threshold and what stays above it, against their slow twins and by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from instances import DTYPES, RAGGED, mask_of, padded
from madtp.prune import keep_above, threshold
from madtp.prune.threshold import _hide

N = max(RAGGED)
CONTENT = torch.arange(N) < torch.tensor(RAGGED)[:, None]


def scored(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Random affinities and importances of RAGGED, with poison in the padding."""
    torch.manual_seed(0)
    affinity = torch.randn(len(RAGGED), N, 7, dtype=dtype) * 2
    importance = torch.randn(len(RAGGED), N, dtype=dtype)
    affinity[~CONTENT], importance[~CONTENT] = 1e6, float("nan")
    return affinity, importance


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0, 211.0])
@pytest.mark.parametrize(("dtype", "atol"), DTYPES.items())
def test_threshold_of_ragged_instances(dtype: torch.dtype, atol: float, temperature: float) -> None:
    affinity, importance = scored(dtype)
    theta = threshold(affinity, importance, CONTENT, temperature)
    for i, n in enumerate(RAGGED):
        expected = oracle.threshold(affinity[i, :n], importance[i, :n], temperature) if n else 0.0
        assert theta[i].item() == pytest.approx(expected, abs=atol)


def test_affinities_may_lie_in_any_order() -> None:
    affinity, importance = scored(torch.float64)
    turned = affinity.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    expected = threshold(affinity, importance, CONTENT, 0.5)
    torch.testing.assert_close(threshold(turned, importance, CONTENT, 0.5), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("row_by_row", [True, False], ids=["as on the CPU", "as on a GPU"])
def test_what_is_outside_is_hidden(row_by_row: bool) -> None:
    affinity, _ = scored(torch.float32)
    hidden = _hide(affinity.clone(), ~CONTENT, row_by_row)
    assert torch.equal(hidden[CONTENT], affinity[CONTENT])
    assert bool((hidden[~CONTENT] == torch.finfo(torch.float32).min).all())


def test_threshold_by_hand() -> None:
    # tau = 2. First semantic token weighs the tokens 1 : 3 -> 3.5, second 1 : 1 -> 3; the least counts.
    affinity = torch.tensor([[[0.0, 5.0], [2 * math.log(3), 5.0], [50.0, 50.0]]])
    importance = torch.tensor([[2.0, 4.0, -100.0]])
    theta = threshold(affinity, importance, torch.tensor([[True, True, False]]), 2.0)
    torch.testing.assert_close(theta, torch.tensor([3.0]))
    only = threshold(affinity[..., :1], importance, torch.tensor([[True, True, False]]), 2.0)
    torch.testing.assert_close(only, torch.tensor([3.5]))


@pytest.mark.parametrize("temperature", [1e12, math.inf])
def test_an_endless_temperature_gives_the_mean(temperature: float) -> None:
    affinity, importance = scored(torch.float64)
    theta = threshold(affinity, importance, CONTENT, temperature)
    for i, n in enumerate(RAGGED):
        mean = importance[i, :n].mean().item() if n else 0.0
        assert theta[i].item() == pytest.approx(mean, abs=1e-9)


def test_threshold_in_float16() -> None:
    affinity, importance = scored(torch.float64)
    affinity[~CONTENT] = 6e4
    theta = threshold(affinity.half(), importance.half(), CONTENT, 0.5)
    assert theta.dtype == torch.float16
    torch.testing.assert_close(theta.double(), threshold(affinity, importance, CONTENT, 0.5), atol=1e-2, rtol=0)


def above(importance: list[list[float]], theta: list[float], fewest: int = 1) -> list[list[bool]]:
    keep, content, _ = mask_of([[True] * len(row) for row in importance])
    wide = padded(importance, keep.shape[1], fill=math.inf)  # whatever is no content is never kept
    out = keep_above(wide, torch.tensor(theta, dtype=torch.float64), content, fewest)
    assert not bool((out & ~content).any())
    return [out[i, 1 : 1 + len(row)].tolist() for i, row in enumerate(importance)]


@pytest.mark.parametrize(
    ("importance", "theta", "fewest", "expected"),
    [
        ([3, 1, 2, 4], 2, 1, [True, False, False, True]),  # strictly above
        ([3, 1, 1, 1], 2, 1, [True, False, False, False]),
        ([3, 1, 1, 1], 2, 2, [True] * 4),  # one would stay, two are the least
        ([3, 3, 1, 1], 2, 2, [True, True, False, False]),
        ([1, 1, 1, 1], 2, 1, [True] * 4),  # none would stay
        ([2, 2, 2, 2], 2, 1, [True] * 4),  # all equal
        ([3, 3, 3, 1], 2, 1, [True] * 4),  # one would go: nothing to merge it with
        ([3, 3, 3, 3], 2, 1, [True] * 4),
        ([3, 1], 2, 1, [True, True]),
        ([3], 2, 1, [True]),
        ([1], 2, 1, [True]),
        ([], 2, 1, []),
        ([-1, -3, -3], -2, 1, [True, False, False]),
    ],
)
def test_keep_above_by_hand(importance: list[float], theta: float, fewest: int, expected: list[bool]) -> None:
    mate = [5.0, 0.0, 0.0, 5.0, 0.0]
    assert above([mate, importance], [1, theta], fewest) == [oracle.keep_above(mate, 1, fewest), expected]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    importance=st.lists(st.lists(st.integers(-3, 3), max_size=7), min_size=1, max_size=4),
    theta=st.integers(-3, 3),
    fewest=st.integers(1, 3),
)
def test_keep_above_is_its_twin(importance: list[list[float]], theta: int, fewest: int) -> None:
    expected = [oracle.keep_above(row, theta, fewest) for row in importance]
    assert above(importance, [theta] * len(importance), fewest) == expected
