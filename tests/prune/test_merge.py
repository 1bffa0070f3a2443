"""Selections: applying them to features and to provenance, against slow twins and by hand."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import oracle
from instances import CHANNELS, DTYPES, mask_of, padded
from madtp.prune import Selection, select

Keeps = list[list[bool]]
# Ragged: some pruned, one whole, one without content, one of a single token.
KEEPS: Keeps = [
    [j % 3 == 1 for j in range(29)],
    [True] * 5,
    [],
    [True],
    [True, False, False],
    [False, False, True, True, False, False, False],
]
PROTECTED = [(1, 0), (1, 1), (2, 1), (1, 2)]


def weights_of(keeps: Keeps, seed: int = 0) -> list[list[float]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(len(k), generator=generator, dtype=torch.float64) + 0.1).tolist() for k in keeps]


def chosen(keeps: Keeps, weights: list[list[float]], head: int = 1, tail: int = 0) -> Selection:
    keep, content, lengths = mask_of(keeps, head, tail)
    return select(keep, content, padded(weights, keep.shape[1], head, fill=float("nan")), lengths, tail)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize(("head", "tail"), PROTECTED)
@pytest.mark.parametrize(("dtype", "atol"), DTYPES.items())
def test_apply(dtype: torch.dtype, atol: float, head: int, tail: int, gradients: bool) -> None:
    torch.manual_seed(0)
    weights = weights_of(KEEPS)
    selection = chosen(KEEPS, weights, head, tail)
    before = [head + len(k) + tail for k in KEEPS]
    x = torch.randn(sum(before), CHANNELS, dtype=dtype)
    expected = [
        oracle.merge(rows, k, w, head) for rows, k, w in zip(oracle.split(x, before), KEEPS, weights, strict=True)
    ]
    with torch.set_grad_enabled(gradients):
        out = selection.apply(x)
    assert out.dtype == dtype
    assert selection.lengths.tolist() == [len(rows) for rows in expected]
    flat = torch.tensor([row for rows in expected for row in rows], dtype=dtype)
    torch.testing.assert_close(out, flat, atol=atol, rtol=0)


def test_numbers_are_copied_from_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no operator has a shape that is in the data, for which a GPU would be waited for, too."""
    asked: list[str] = []

    def noted(name: str) -> Any:
        way = getattr(torch.Tensor, name)
        return lambda self, *args: asked.append(name) or way(self, *args)

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            if name in ("nonzero", "masked_select") or (name == "repeat_interleave" and "output_size" not in kwargs):
                asked.append(name)
            return func(*args, **(kwargs or {}))

    keep, content, lengths = mask_of(KEEPS, 1, 0)
    weights = padded(weights_of(KEEPS), keep.shape[1], 1, fill=1.0)
    for name in ("tolist", "item", "cpu", "__bool__", "__int__", "equal"):
        monkeypatch.setattr(torch.Tensor, name, noted(name))
    with Spy():
        selection = select(keep, content, weights, lengths, 0)
    assert selection.index is not None
    assert asked == ["tolist", "tolist"], "of what goes; and of the lengths, which are on the CPU"


def test_by_hand() -> None:
    # BOT, three content tokens, EOT: the middle one stays, the others merge 1 : 3 right behind the last content token
    selection = chosen([[False, True, False], [True, True]], [[1.0, 9.0, 3.0], [1.0, 1.0]], head=1, tail=1)
    x = torch.tensor([[7.0], [4.0], [5.0], [8.0], [6.0], [1.0], [2.0], [3.0], [0.0]])
    assert selection.lengths.tolist() == [4, 4]
    torch.testing.assert_close(selection.apply(x), torch.tensor([[7.0], [5], [7], [6], [1], [2], [3], [0]]))


def test_the_epsilon_stands_in_the_divisor() -> None:
    selection = chosen([[True, False, False]], [[1.0, 1e-8, 2e-8]])
    assert selection.weight is not None
    torch.testing.assert_close(selection.weight, torch.tensor([0.25, 0.5], dtype=torch.float64))
    nothing = chosen([[True, False, False]], [[1.0, 0.0, 0.0]])
    assert nothing.apply(torch.ones(4, 1)).tolist() == [[1.0], [1.0], [0.0]]


@pytest.mark.parametrize("keeps", [[[True] * 5, [], [True]], [[]]])
def test_identity_is_the_very_same_tensor(keeps: Keeps) -> None:
    selection = chosen(keeps, weights_of(keeps))
    x = torch.randn(sum(1 + len(k) for k in keeps), CHANNELS)
    owner, share = torch.arange(3), torch.ones(3)
    assert selection.index is None
    assert selection.apply(x) is x
    assert selection.follow(owner, share) == (owner, share)
    assert selection.lengths.tolist() == [1 + len(k) for k in keeps]


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_adds_up_many_small_shares(dtype: torch.dtype, atol: float) -> None:
    # bfloat16 cannot add 1/996 to a half: the sum must be kept in a wider type
    torch.manual_seed(0)
    keeps, weights = [[True] + [False] * 996], [[1.0] * 997]
    x = (1 + torch.randn(998, 2) / 8).to(dtype)
    out = chosen(keeps, weights).apply(x)
    assert out.dtype == dtype
    expected = torch.tensor(oracle.merge(x, keeps[0], weights[0], 1))
    torch.testing.assert_close(out.float(), expected, atol=atol, rtol=0)


def composed(steps: list[Keeps], weights: list[list[list[float]]], head: int) -> list[tuple[list[int], list[float]]]:
    """Where each original content token of each instance is after all steps, by the twin."""
    where = []
    for i in range(len(steps[0])):
        owner, share = [head + j for j in range(len(steps[0][i]))], [1.0] * len(steps[0][i])
        for keeps, weight in zip(steps, weights, strict=True):
            moves = oracle.whereabouts(keeps[i], weight[i], head)
            share = [s * moves[o - head][1] for o, s in zip(owner, share, strict=True)]
            owner = [moves[o - head][0] for o in owner]
        where.append((owner, share))
    return where


def after(keeps: Keeps) -> list[int]:
    """Content tokens of each instance after a step."""
    return [sum(k) + (not all(k)) for k in keeps]


def random_steps(lengths: list[int], count: int, seed: int) -> list[Keeps]:
    """`count` steps in each of which each instance keeps tokens at random, sometimes all of them."""
    generator = torch.Generator().manual_seed(seed)
    steps: list[Keeps] = []
    for _ in range(count):
        keeps = [(torch.rand(n, generator=generator) > 0.4).tolist() for n in lengths]
        keeps = [[True] * len(k) if len(k) - sum(k) <= 1 else k for k in keeps]
        steps.append(keeps)
        lengths = after(keeps)
    return steps


@pytest.mark.parametrize(("head", "tail"), PROTECTED)
@settings(deadline=None, derandomize=True, max_examples=20)
@given(lengths=st.lists(st.integers(0, 17), min_size=1, max_size=4), count=st.integers(1, 4), seed=st.integers(0, 99))
def test_provenance_composes_and_reproduces_the_features(
    head: int, tail: int, lengths: list[int], count: int, seed: int
) -> None:
    steps = random_steps(lengths, count, seed)
    weights = [weights_of(keeps, seed + i) for i, keeps in enumerate(steps)]
    before = [head + n + tail for n in lengths]
    x = torch.randn(sum(before), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    begins = [start + head for start in oracle.starts(before)]
    original = torch.cat([torch.arange(start, start + n) for start, n in zip(begins, lengths, strict=True)])
    owner, share, out, now = original, torch.ones(len(original), dtype=torch.float64), x, before
    for keeps, weight in zip(steps, weights, strict=True):
        selection = chosen(keeps, weight, head, tail)
        owner, share = selection.follow(owner, share)
        out, now = selection.apply(out), selection.lengths.tolist()
    expected = composed(steps, weights, head)
    packed = [start + o for start, (owners, _) in zip(oracle.starts(now), expected, strict=True) for o in owners]
    assert owner.tolist() == packed
    shares = torch.tensor([s for _, shares in expected for s in shares], dtype=torch.float64)
    torch.testing.assert_close(share, shares)
    # Every content token that came out is the weighted sum of what it holds, an untouched one exactly itself.
    rebuilt = torch.zeros_like(out).index_add(0, owner, share[:, None] * x[original])
    inside = torch.zeros(len(out), dtype=torch.bool).index_fill(0, owner, True)
    torch.testing.assert_close(rebuilt[inside], out[inside])
    assert torch.equal(out[owner[share == 1]], x[original[share == 1]])
    assert int((~inside).sum()) == (head + tail) * len(lengths)


def test_order_is_kept() -> None:
    selection = chosen(KEEPS, weights_of(KEEPS))
    owner, share = selection.follow(torch.arange(sum(1 + len(k) for k in KEEPS)), torch.ones(51))
    kept = owner[share == 1].tolist()
    assert all(a < b for a, b in pairwise(kept))


def test_gradients_of_features_and_weights() -> None:
    keep, content, lengths = mask_of([[True, False, False, True], [True], [False, False, False, True, False]])
    torch.manual_seed(0)
    x = torch.randn(int(lengths.sum()), 2, dtype=torch.float64, requires_grad=True)
    weight = (torch.rand(*keep.shape, dtype=torch.float64) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: select(keep, content, w, lengths, 0).apply(x), (x, weight))
    select(keep, content, weight, lengths, 0).apply(x).square().sum().backward()
    assert weight.grad is not None
    assert bool((weight.grad[content & ~keep] != 0).all())
    assert not bool(weight.grad[~(content & ~keep)].any())


@pytest.mark.parametrize(("head", "tail"), PROTECTED)
def test_a_gate_gets_the_gradient_of_going_into_the_merged_token(head: int, tail: int) -> None:
    """That of `g x + (1 - g) m` at g = 1, worked out with g a number of its own for each kept token."""
    keep, content, lengths = mask_of(KEEPS, head, tail)
    weights = padded(weights_of(KEEPS), keep.shape[1], head, fill=1.0)
    score = padded(weights_of(KEEPS, seed=1), keep.shape[1], head, fill=float("nan")).requires_grad_()
    torch.manual_seed(0)
    x = torch.randn(int(lengths.sum()), CHANNELS, dtype=torch.float64)
    plain = select(keep, content, weights, lengths, tail).apply(x)
    gated = select(keep, content, weights, lengths, tail, score).apply(x)
    assert torch.equal(plain, gated), "nothing changes forward"
    direction = torch.randn_like(plain)
    (gated * direction).sum().backward()

    expected, start = torch.zeros_like(score), 0
    for i, k in enumerate(KEEPS):
        rows = plain[start : (start := start + head + sum(k) + (not all(k)) + tail)]
        toward = direction[start - len(rows) : start]
        if all(k):
            continue  # nothing is merged
        merged = rows[len(rows) - tail - 1]
        for place, token in enumerate(j for j, kept in enumerate(k) if kept):
            expected[i, head + token] = toward[head + place] @ (rows[head + place] - merged)
    torch.testing.assert_close(score.grad, expected, atol=1e-12, rtol=0)


def test_a_gate_lets_the_gradients_of_tokens_and_weights_be() -> None:
    keep, content, lengths = mask_of(KEEPS, 1, 0)
    grads = []
    for gated in (False, True):
        weights = padded(weights_of(KEEPS), keep.shape[1], 1, fill=1.0).requires_grad_()
        torch.manual_seed(0)
        x = torch.randn(int(lengths.sum()), CHANNELS, dtype=torch.float64, requires_grad=True)
        gate = torch.ones_like(weights) if gated else None
        out = select(keep, content, weights, lengths, 0, gate).apply(x)
        (out.sin() * torch.arange(CHANNELS)).sum().backward()
        grads.append((x.grad, weights.grad))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
