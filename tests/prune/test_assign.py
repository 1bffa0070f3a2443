"""Tokens that go into others, or are let go."""

import pytest
import torch

import oracle
from instances import mask_of
from madtp.prune.assign import assign, drop


def test_by_hand() -> None:
    # two instances of a pooled token and four, then two: 4 and 8 go into 0 (weights 1, 2, 1), 6 stays; nothing goes
    x = torch.tensor([[9.0], [0], [4], [6], [8], [7], [1], [3]])
    into = torch.tensor([[0, 1, 1, 3, 1], [0, 1, 2, 3, 4]])
    weight = torch.tensor([[5.0, 1, 2, 5, 1], [1, 1, 1, 0, 0]])
    selection, merged = assign(into, weight, torch.tensor([5, 3]))
    assert selection.lengths.tolist() == [3, 3]
    assert merged.tolist() == [1, 0]
    assert selection.apply(x).view(-1).tolist() == [9, 4, 6, 7, 1, 3]
    owner, share = selection.follow(torch.arange(8), torch.ones(8))
    assert owner.tolist() == [0, 1, 1, 2, 1, 3, 4, 5]
    assert share.tolist() == [1, 0.25, 0.5, 1, 0.25, 1, 1, 1]
    assert selection.total(torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8])).tolist() == [1, 10, 4, 6, 7, 8]


@pytest.mark.parametrize("gradients", [True, False])
def test_several_merged_tokens_of_several_instances(gradients: bool) -> None:
    torch.manual_seed(0)
    intos = [[0, 1, 1, 3, 0, 3, 6], [], [0], [1, 1, 1], [0, 1, 2, 3, 4]]
    weights = [(torch.rand(len(i)) + 0.1).tolist() for i in intos]
    _, content, lengths = mask_of([[True] * len(i) for i in intos], head=2, tail=1)
    into = torch.arange(content.shape[1]).repeat(len(intos), 1)
    weight = torch.full(content.shape, float("nan"), dtype=torch.float64)
    for i, (targets, some) in enumerate(zip(intos, weights, strict=True)):
        into[i, 2 : 2 + len(targets)] = torch.tensor(targets) + 2
        weight[i, 2 : 2 + len(targets)] = torch.tensor(some, dtype=torch.float64)
    x = torch.randn(int(lengths.sum()), 3, dtype=torch.float64)
    selection, merged = assign(into, weight, lengths)
    assert merged.tolist() == [3, 0, 0, 1, 0]
    rows = oracle.split(x, lengths.tolist())
    expected = [oracle.gather(r, i, w, 2) for r, i, w in zip(rows, intos, weights, strict=True)]
    assert selection.lengths.tolist() == [len(r) for r in expected]
    assert selection.target is not None and bool((selection.target.diff() >= 0).all())
    with torch.set_grad_enabled(gradients):
        out = selection.apply(x)
    torch.testing.assert_close(out, torch.tensor([row for r in expected for row in r]).double())


def test_nothing_goes_is_the_very_same_tensor() -> None:
    selection, merged = assign(torch.arange(3).repeat(2, 1), torch.ones(2, 3), torch.tensor([3, 2]))
    x, size = torch.randn(5, 2), torch.ones(5)
    assert selection.apply(x) is x and selection.total(size) is size
    assert merged.tolist() == [0, 0]


def test_dropped_tokens_leave_no_trace() -> None:
    keep, content, lengths = mask_of([[True, False, True, False, False], [True, True]], tail=1)
    x = torch.randn(int(lengths.sum()), 3, dtype=torch.float64)
    selection = drop(keep, content, lengths)
    assert selection.lengths.tolist() == [4, 4]
    assert torch.equal(selection.apply(x), x[[0, 1, 3, 6, 7, 8, 9, 10]])
    owner, share = selection.follow(torch.arange(11), torch.ones(11))
    assert share.tolist() == [1, 1, 0, 1, 0, 0, 1, 1, 1, 1, 1]
    assert owner.tolist() == [0, 1, 0, 2, 0, 0, 3, 4, 5, 6, 7]
