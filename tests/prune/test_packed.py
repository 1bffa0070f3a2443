"""Packed and padded layouts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from madtp.prune.packed import pad, start_of, unpad, valid


def test_by_hand() -> None:
    lengths = torch.tensor([2, 0, 3])
    values = torch.tensor([[10], [11], [20], [21], [22]])
    assert start_of(lengths).tolist() == [0, 2, 2]
    assert valid(lengths, 3).tolist() == [[True, True, False], [False] * 3, [True, True, True]]
    out = pad(values, lengths, 3)
    assert out.shape == (3, 3, 1)
    assert out[0, :2, 0].tolist() == [10, 11]
    assert out[2, :, 0].tolist() == [20, 21, 22]
    assert unpad(out, lengths).tolist() == values.tolist()


def test_no_padding_shares_memory() -> None:
    values = torch.arange(6.0).view(6, 1)
    lengths = torch.tensor([3, 3])
    assert pad(values, lengths, 3).data_ptr() == values.data_ptr()
    assert pad(values, lengths, 5).shape == (2, 5, 1)


def test_a_padded_length_beyond_the_longest() -> None:
    lengths = torch.tensor([2, 1])
    out = pad(torch.tensor([5, 6, 7]), lengths, 4)
    assert out[valid(lengths, 4)].tolist() == [5, 6, 7]


@pytest.mark.parametrize("tail", [(), (7,), (3, 5)])
@settings(deadline=None, derandomize=True, max_examples=25)
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=5).filter(any), extra=st.integers(0, 2))
def test_layouts_are_inverse(tail: tuple[int, ...], lengths: list[int], extra: int) -> None:
    n = max(lengths) + extra
    values = torch.arange(sum(lengths) * torch.Size(tail).numel()).view(sum(lengths), *tail)
    packed = torch.tensor(lengths)
    out = pad(values, packed, n)
    assert start_of(packed).tolist() == oracle.starts(lengths)
    for i, rows in enumerate(oracle.split(values, lengths)):
        assert out[i, : lengths[i]].tolist() == rows
        assert valid(packed, n)[i].tolist() == [j < lengths[i] for j in range(n)]
    assert torch.equal(unpad(out, packed), values)
