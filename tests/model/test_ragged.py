"""Ragged batches: packed and padded forms of the same tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from madtp.model.ragged import Ragged


def example() -> Ragged:
    """Three instances of 2, 1 and 3 tokens, two channels."""
    return Ragged(torch.arange(12.0).view(6, 2), torch.tensor([2, 1, 3]))


def test_by_hand() -> None:
    x = example()
    assert x.offsets == [0, 2, 3, 6]
    assert x.longest == 3
    assert x.first().tolist() == [[0, 1], [4, 5], [6, 7]]
    assert x.instance(0).tolist() == [[0, 1], [2, 3]]
    assert x.instance(2).tolist() == [[6, 7], [8, 9], [10, 11]]
    values, mask = x.padded()
    assert values.tolist() == [
        [[0, 1], [2, 3], [0, 0]],
        [[4, 5], [0, 0], [0, 0]],
        [[6, 7], [8, 9], [10, 11]],
    ]
    assert mask.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert mask.dtype == torch.int64


def test_instances_in_another_order() -> None:
    x = example()
    assert x.positions(torch.tensor([2, 0])).tolist() == [3, 4, 5, 0, 1]
    y = x.select(torch.tensor([2, 1, 2]))
    assert y.lengths.tolist() == [3, 1, 3]
    assert [y.instance(i).tolist() for i in range(3)] == [x.instance(i).tolist() for i in (2, 1, 2)]
    nothing = x.select(torch.tensor([], dtype=torch.long))
    assert nothing.values.shape == (0, 2) and nothing.lengths.tolist() == []


def test_other_vectors_for_the_same_tokens() -> None:
    x = example()
    y = x.with_values(x.values * 2)
    assert y.lengths is x.lengths
    assert y.values.tolist() == (x.values * 2).tolist()


def test_sizes_stay_with_their_tokens() -> None:
    x = example()
    x = Ragged(x.values, x.lengths, torch.tensor([1.0, 2, 3, 5, 7, 11]))
    assert x.bias().tolist() == x.size.log().tolist() and example().bias() is None  # type: ignore[union-attr]
    assert x.with_values(x.values * 2).size is x.size
    assert x.select(torch.tensor([2, 0])).size.tolist() == [5, 7, 11, 1, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize("sized", [True, False])
def test_apart_and_together_again(sized: bool) -> None:
    x, cpu = example(), torch.device("cpu")
    if sized:
        x = Ragged(x.values, x.lengths, torch.tensor([1.0, 2, 3, 5, 7, 11]))
    parts = x.split()
    assert [part.lengths.tolist() for part in parts] == [[2], [1], [3]]
    y = Ragged.join(parts, cpu)
    assert torch.equal(y.values, x.values) and torch.equal(y.lengths, x.lengths)
    assert (y.size is None) != sized and (y.size is None or torch.equal(y.size, x.size))  # type: ignore[arg-type]
    assert Ragged(x.values[:0], x.lengths[:0]).split() == []
    if sized:  # a picture seen dense beside pruned ones
        mixed = Ragged.join([parts[2], example().split()[0]], cpu)
        assert mixed.size.tolist() == [5, 7, 11, 1, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "mask",
    [
        [[1, 1, 0], [1, 0, 0], [1, 1, 1]],  # padding on the right
        [[0, 1, 1], [0, 0, 1], [1, 1, 1]],  # on the left
        [[1, 0, 1], [0, 1, 0], [1, 1, 1]],  # anywhere
    ],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_from_padded_with_its_padding_anywhere(mask: list[list[int]], dtype: torch.dtype) -> None:
    padded = torch.full((3, 3, 2), float("nan"))
    padded[torch.tensor(mask).bool()] = example().values
    x = Ragged.from_padded(padded, torch.tensor(mask, dtype=dtype))
    assert x.lengths.tolist() == [2, 1, 3]
    assert x.lengths.dtype == torch.int64
    assert torch.equal(x.values, example().values)


@pytest.mark.parametrize("mask", [None, torch.ones(2, 3)])
def test_from_padded_without_padding(mask: torch.Tensor | None) -> None:
    padded = torch.randn(2, 3, 5)
    x = Ragged.from_padded(padded, mask)
    assert x.lengths.tolist() == [3, 3]
    assert x.values.data_ptr() == padded.data_ptr()
    again, ones = x.padded()
    assert torch.equal(again, padded)
    assert bool(ones.all())


def test_more_than_one_axis_of_channels() -> None:
    x = Ragged(torch.randn(5, 3, 7), torch.tensor([4, 1]))
    values, mask = x.padded()
    assert values.shape == (2, 4, 3, 7)
    assert not bool(values[1, 1:].any())
    assert torch.equal(Ragged.from_padded(values, mask).values, x.values)


def test_no_instances() -> None:
    x = Ragged(torch.empty(0, 3), torch.empty(0, dtype=torch.long))
    assert x.longest == 0
    assert x.offsets == [0]
    assert x.first().shape == (0, 3)


def test_gradients_reach_tokens_and_nothing_comes_from_padding() -> None:
    values = torch.randn(6, 2, requires_grad=True)
    x = Ragged(values, torch.tensor([2, 1, 3]))
    (x.padded()[0] + 1).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1, 1]] * 6


def test_last_tokens() -> None:
    x = Ragged(torch.arange(12).view(6, 2), torch.tensor([2, 1, 3]))
    assert x.last().tolist() == [[2, 3], [4, 5], [10, 11]]


def test_chosen_instances_some_twice() -> None:
    x = example()
    y = x.select(torch.tensor([2, 0, 2]))
    assert y.lengths.tolist() == [3, 2, 3]
    assert torch.equal(y.values, torch.cat([x.instance(i) for i in (2, 0, 2)]))
    assert len(x.select(torch.tensor([], dtype=torch.long)).values) == 0


@settings(deadline=None, derandomize=True, max_examples=30)
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=5))
def test_padded_and_back(lengths: list[int]) -> None:
    values = torch.randn(sum(lengths), 3)
    x = Ragged(values, torch.tensor(lengths))
    padded, mask = x.padded()
    assert padded.shape == (len(lengths), max(lengths), 3)
    assert mask.sum(-1).tolist() == lengths
    back = Ragged.from_padded(padded, mask)
    assert torch.equal(back.values, values)
    assert back.lengths.tolist() == lengths
    for i in range(len(lengths)):
        assert torch.equal(padded[i, : lengths[i]], x.instance(i))
