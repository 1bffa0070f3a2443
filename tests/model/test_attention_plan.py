"""Chunks: every instance once, little padding, and the way into them and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from madtp.model.attention_plan import CPU_PADDED, SPARE, WASTE, Chunk, plan

HEADS, WIDTH = 3, 5


def lengths(most: int, size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Queries and keys of each instance."""
    return st.lists(st.tuples(st.integers(0, most), st.integers(1, most)), min_size=1, max_size=size)


def planned(pairs: list[tuple[int, int]], limit: int | None) -> tuple[Tensor, Tensor, list[Chunk]]:
    nq, nk = (torch.tensor(part) for part in zip(*pairs, strict=True))
    return nq, nk, plan(nq, nk, HEADS, torch.device("cpu"), limit)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(pairs=lengths(200, 7), limit=st.sampled_from([None, 1, 5_000, 100_000]))
def test_a_plan_holds_every_instance_once_and_wastes_little(pairs: list[tuple[int, int]], limit: int | None) -> None:
    nq, _, chunks = planned(pairs, limit)
    assert sorted(p for c in chunks for p in c.query.position.tolist()) == list(range(int(nq.sum())))
    for c in chunks:
        q, k = c.query, c.key
        assert (q.n, k.n) == (max(q.lengths), max(k.lengths))
        assert min(q.lengths) > 0
        if c.size > 1:
            scores = c.size * q.n * k.n
            assert limit is None or scores * HEADS <= limit
            assert (q.even and k.even) or scores * HEADS <= CPU_PADDED
            assert (q.place and k.place) or scores * HEADS <= CPU_PADDED or 2 * q.n * k.n * HEADS <= CPU_PADDED
            assert scores <= WASTE * sum(i * j for i, j in zip(q.lengths, k.lengths, strict=True)) + SPARE


@settings(deadline=None, derandomize=True, max_examples=25)
@given(pairs=lengths(11, 5), limit=st.sampled_from([None, 1, 100, 300]))
def test_chunks_pad_and_pack(pairs: list[tuple[int, int]], limit: int | None) -> None:
    nq, nk, chunks = planned(pairs, limit)
    q, k = (torch.randn(int(n.sum()), HEADS, WIDTH) for n in (nq, nk))
    copy_q, copy_k = torch.zeros_like(q), torch.zeros_like(k)
    for c in chunks:
        padded = c.query.take(q)
        assert padded.shape == (c.size, HEADS, c.query.n, WIDTH)
        for row, start, n in zip(padded, c.query.starts, c.query.lengths, strict=True):
            assert torch.equal(row[:, :n], q[start : start + n].transpose(0, 1))
            assert torch.equal(row[:, n:], row[:, n - 1 : n].expand_as(row[:, n:]))
        copy_q[c.query.position] = c.query.pack(padded.transpose(1, 2))
        c.key.put(copy_k, c.key.take(k).transpose(1, 2))
    assert torch.equal(copy_q, q)
    live = (nq > 0).repeat_interleave(nk)
    assert torch.equal(copy_k, k * live[:, None, None])


@pytest.mark.parametrize(("device", "sizes"), [("cpu", [2, 1, 1, 1]), ("cuda", [5])])
def test_on_the_cpu_unlike_lengths_and_distant_ones_share_little(device: str, sizes: list[int]) -> None:
    n = torch.tensor([151, 151, 157, 151, 163])  # 3 heads of two of them are more than CPU_PADDED
    assert [c.size for c in plan(n, n, HEADS, torch.device(device), None)] == sizes


def test_in_self_attention_the_sides_are_one() -> None:
    n = torch.tensor([13, 2, 7])
    assert all(c.query is c.key for c in plan(n, n, HEADS, torch.device("cpu"), None))


def test_by_hand() -> None:
    # the second instance has no query; the others share a chunk, the shorter first, padded to 3 queries and 2 keys
    chunk = plan(torch.tensor([3, 0, 1]), torch.tensor([2, 5, 1]), 1, torch.device("cpu"), None)
    assert [(c.query.starts, c.query.lengths, c.key.starts, c.key.lengths) for c in chunk] == [
        ((3, 0), (1, 3), (7, 0), (1, 2))
    ]
    padded = chunk[0].query.take(torch.tensor([10, 11, 12, 20]).view(4, 1, 1))
    assert padded[:, 0, :, 0].tolist() == [[20, 20, 20], [10, 11, 12]]
    assert chunk[0].query.mask.tolist() == [[True, False, False], [True, True, True]]
    assert chunk[0].query.position.tolist() == [3, 0, 1, 2]


def check_take(chunk: Chunk, lengths: tuple[int, ...]) -> None:
    tokens = torch.arange(sum(lengths))
    padded = chunk.query.take(tokens.view(-1, 1, 1))[:, 0, :, 0]
    assert padded[chunk.query.mask].tolist() == chunk.query.position.tolist()
    for row, start, n in zip(padded.tolist(), chunk.query.starts, chunk.query.lengths, strict=True):
        assert row[:n] == list(range(start, start + n))


def test_equal_lengths_that_are_no_neighbours() -> None:
    n = torch.tensor([7, 13, 7])
    chunks = plan(n, n, 1, torch.device("cpu"), 100)
    assert [c.query.starts for c in chunks] == [(0, 20), (7,)]
    for c in chunks:
        check_take(c, (7, 13, 7))


def test_a_shorter_instance_at_the_end_of_a_chunk() -> None:
    # queries 3 and 2 begin 3 apart, as if unpadded
    (chunk,) = plan(torch.tensor([3, 2, 3]), torch.tensor([1, 2, 3]), 1, torch.device("cpu"), None)
    assert chunk.query.starts == (0, 3, 5)
    check_take(chunk, (3, 2, 3))
    (chunk,) = plan(torch.tensor([3, 2]), torch.tensor([1, 2]), 1, torch.device("cpu"), None)
    check_take(chunk, (3, 2))
