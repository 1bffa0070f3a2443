"""Whatever a block offers, every method gives a result that is defined, in every precision.

One word, a picture of one colour, equal scores, sums of 0 and below it.
"""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from madtp.prune import METHODS, alignment_loss
from madtp.prune.score import EPS, denominator, token_score
from madtp.prune.step import Evidence

HEADS, SEMANTIC, WIDTH = 2, 3, 5
# Numbers at the edges of what sums, shares and exponentials do, all of float16's.
EDGES = (0.0, 1.0, -1.0, 0.5, 6e-8, -6e-8, 1e-4, -7.0, 1000.0, -1000.0)
MEASURED = tuple(x for x in EDGES if x >= 0)  # norms and probabilities
ENDS = {"vision": (1, 0), "text": (1, 1)}


@st.composite
def offered(draw: st.DrawFn) -> Evidence:
    """Up to three instances of up to seven content tokens; none, one, or all of them the same, among others."""
    head, tail = ENDS[draw(st.sampled_from(sorted(ENDS)))]
    content = draw(st.lists(st.integers(0, 7), min_size=1, max_size=3))
    lengths = torch.tensor([head + n + tail for n in content])
    t = int(lengths.sum())
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))

    def numbers(columns: int, among: tuple[float, ...]) -> torch.Tensor:
        how = draw(st.sampled_from(["one value", "one row", "free"]))
        if how == "one value":
            rows = [[draw(st.sampled_from(among))] * columns] * t
        elif how == "one row":
            rows = [draw(st.lists(st.sampled_from(among), min_size=columns, max_size=columns))] * t
        else:
            rows = draw(
                st.lists(st.lists(st.sampled_from(among), min_size=columns, max_size=columns), min_size=t, max_size=t)
            )
        return torch.tensor(rows).to(dtype)

    return Evidence(
        lengths=lengths,
        class_row=numbers(HEADS, MEASURED),
        output_norm=numbers(HEADS, MEASURED),
        column=numbers(1, MEASURED)[:, 0],
        affinity=numbers(SEMANTIC, EDGES),
        key=numbers(WIDTH, EDGES),
        size=torch.ones(t),
        entered=torch.tensor(content),
        head=head,
        tail=tail,
        straight_through=1.0,
    )


def strengths(name: str) -> st.SearchStrategy[float]:
    low, high = METHODS[name].bounds
    return st.sampled_from([low, (low * high) ** 0.5, high])


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(data=st.data())
def test_every_method_gives_finite_tokens(name: str, data: Any) -> None:
    evidence, strength = data.draw(offered()), data.draw(strengths(name))
    training = data.draw(st.booleans())
    decision = METHODS[name].decide(evidence, strength, training)
    selection, before = decision.selection, evidence.lengths
    ends = evidence.head + evidence.tail
    content = before - ends
    merges = torch.ones_like(before) if name != "madtp_drop" else torch.zeros_like(before)
    after = selection.lengths
    assert (after <= before).all() and (after[content <= 1] == before[content <= 1]).all()
    assert (after >= ends + torch.minimum(content, merges)).all()
    for value in (selection.weight, decision.threshold, *decision.scores.values()):
        assert value is None or value.isfinite().all()
    if decision.threshold is not None:
        assert decision.threshold.dtype == torch.float32
    x = torch.arange(int(before.sum()) * WIDTH, dtype=torch.float32).view(-1, WIDTH) / 64
    out = selection.apply(x.to(evidence.column.dtype))
    assert out.shape == (int(after.sum()), WIDTH) and out.dtype == evidence.column.dtype
    whole = selection.apply(x)
    assert whole.isfinite().all()
    # the pooled token, and what is protected beside it, come out as they went in
    starts, my_starts = before.cumsum(0) - before, after.cumsum(0) - after
    assert torch.equal(whole[my_starts], x[starts])
    if evidence.tail:
        assert torch.equal(whole[my_starts + after - 1], x[starts + before - 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=10)
@given(data=st.data())
def test_half_precision_is_judged_in_float32(name: str, dtype: torch.dtype, data: Any) -> None:
    """The same numbers in float32 give the same decision."""
    evidence, strength = data.draw(offered()), data.draw(strengths(name))
    parts = {key: getattr(evidence, key).to(dtype) for key in ("class_row", "output_norm", "column", "affinity", "key")}
    half = Evidence(evidence.lengths, **parts, size=evidence.size, entered=evidence.entered, tail=evidence.tail)
    full = {key: value.float() for key, value in parts.items()}
    single = Evidence(evidence.lengths, **full, size=evidence.size, entered=evidence.entered, tail=evidence.tail)
    one, other = (METHODS[name].decide(e, strength, False) for e in (half, single))
    assert torch.equal(one.selection.lengths, other.selection.lengths)
    for a, b in (
        (one.selection.index, other.selection.index),
        (one.selection.weight, other.selection.weight),
        (one.threshold, other.threshold),
    ):
        assert (a is None and b is None) or torch.equal(a, b)  # type: ignore[arg-type]


@given(best=st.lists(st.sampled_from([*EDGES, -EPS, EPS]), min_size=1, max_size=7))
def test_shares_are_finite_whatever_their_sum(best: list[float]) -> None:
    score = torch.tensor([best])
    share = token_score(score, torch.ones_like(score, dtype=torch.bool))
    assert share.isfinite().all()
    if abs(sum(best)) > 1e-3:
        torch.testing.assert_close(share.sum(-1), torch.ones(1), atol=2e-3, rtol=0)


def test_a_sum_that_would_divide_by_nothing() -> None:
    assert denominator(torch.tensor([-EPS, 0.0, 1.0])).tolist() == pytest.approx([EPS, EPS, 1.0])
    assert denominator(torch.tensor(-1.0)) < 0, "a negative sum is left negative, as published"


@given(data=st.data())
def test_alignment_of_anything_is_finite(data: Any) -> None:
    some = st.lists(st.sampled_from(EDGES), min_size=WIDTH, max_size=WIDTH)
    image, text = (torch.tensor([[data.draw(some), data.draw(some)]], requires_grad=True) for _ in range(2))
    loss = alignment_loss(image, text)
    loss.sum().backward()
    assert loss.isfinite().all() and image.grad is not None and image.grad.isfinite().all()
