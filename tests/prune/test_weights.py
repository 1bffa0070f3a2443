"""The ranking of heads and channels, and its masks, against slow twins and by hand."""

import pytest
import torch

import oracle
from instances import DTYPES
from madtp.prune.weights import FADE, LEAST, fitting, openings, standing

STRUCTURES, GROUPS = 47, 5


def drawn(seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Importance, cost (few dear ones among many cheap) and group of each structure."""
    torch.manual_seed(seed)
    group = torch.randint(GROUPS, (STRUCTURES,))
    cost = torch.where(group < 2, 23.0, 3.0).to(dtype) + (group == 4)
    return torch.rand(STRUCTURES, dtype=dtype) * 10.0**group, cost, group


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES.items())
def test_standing(dtype: torch.dtype, rtol: float) -> None:
    importance, _, group = drawn(0, dtype)
    importance[group == 3] = 7.0  # all alike
    out = standing(importance, group)
    assert out.tolist() == pytest.approx(oracle.standing(importance, group.tolist()), rel=max(rtol, 1e-9), abs=1e-12)
    assert set(out[group == 3].tolist()) == {0.0}


def test_standing_by_hand() -> None:
    out = standing(torch.tensor([1.0, 100.0, 3.0, 300.0]), torch.tensor([0, 1, 0, 1]))
    assert out.tolist() == [-1.0, -1.0, 1.0, 1.0]


@pytest.mark.parametrize("share", [0.0, 0.07, 0.3, 0.5, 0.83, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_openings(seed: int, share: float) -> None:
    score, cost, _ = drawn(seed)
    score[::3] = score[0]  # ties go in order
    expected = oracle.openings(score, cost, share, FADE, LEAST)
    assert openings(score, cost, share).tolist() == pytest.approx(expected, rel=1e-9)


def test_openings_by_hand() -> None:
    # in order of score they cost 4, 2, 2, 2: half of 10 pays the first, and none of the others
    score, cost = torch.tensor([4.0, 1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 2.0, 2.0])
    assert openings(score, cost, 0.5, fade=0.4).tolist() == [1.0, 0.0, 0.25, 0.75]
    # one that is too dear is left, and cheaper ones behind it are bought
    assert openings(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([7.0, 2.0, 1.0]), 0.3, fade=1.0).tolist() == [
        pytest.approx(0.4), 0.0, 0.0,
    ]  # fmt: skip
    assert fitting(torch.tensor([5.0, 3.0, 3.0, 1.0]).double(), 6.5).tolist() == [True, False, False, True]


def test_the_cost_that_is_gone_is_the_share_that_was_asked_for() -> None:
    score, cost, _ = drawn(1)
    for share in (0.1, 0.33, 0.7):
        gone = float(cost[openings(score, cost, share) == 0].sum() / cost.sum())
        assert share - float(cost.min() / cost.sum()) < gone <= share, "what is left over would not pay the cheapest"


def test_masks_close_step_by_step_as_the_share_grows() -> None:
    """Of structures of one cost: each mask only falls, through values between 1 and 0, lowest scores first."""
    score, cost = drawn(2)[0], torch.full((STRUCTURES,), 5.0).double()
    shares = torch.linspace(0, 1, 201).tolist()
    masks = torch.stack([openings(score, cost, share) for share in shares])
    assert bool((masks.diff(dim=0) <= 0).all())
    assert bool((masks[0][score.argsort()[4:]] == 1).all()) and not masks[-1].any()
    assert bool((((masks > LEAST) & (masks < 1)).sum(0) >= 5).all()), "no mask falls in one step"
    for mask in masks:
        assert bool((mask[score.argsort()].diff() >= 0).all())
