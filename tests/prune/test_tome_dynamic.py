"""Merging by a threshold against its slow twin."""

from dataclasses import replace

import pytest
import torch

import oracle
from instances import RAGGED, batch, evidence, features
from madtp.prune.tome_dynamic import ROUNDS, tome_dynamic


@pytest.mark.parametrize("fewest", [1, 2])
@pytest.mark.parametrize(("head", "tail"), [(1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("farthest", [1e-4, 0.2, 0.7, 2.0])
def test_tome_dynamic(farthest: float, head: int, tail: int, fewest: int) -> None:
    instances = batch([*RAGGED, 75], head=head, tail=tail)
    decision = tome_dynamic(evidence(instances, fewest), farthest)
    expected, merged, compared = [], [], []
    for i in instances:
        own = slice(i.content.start, i.content.stop)
        size = i.size[own].tolist()  # type: ignore[index]
        into, pairs = oracle.matched(i.key[own], size, farthest, fewest, ROUNDS)  # type: ignore[index]
        expected.append(oracle.gather(i.x, into, size, head))
        merged.append(len({j for a, j in enumerate(into) if a != j}))
        compared.append(pairs * i.key.shape[1])  # type: ignore[union-attr]
        assert len(set(into)) >= min(fewest, len(into))
    assert decision.selection.lengths.tolist() == [len(rows) for rows in expected]
    out = decision.selection.apply(features(instances))
    torch.testing.assert_close(out, torch.tensor([row for rows in expected for row in rows], dtype=torch.float64))
    assert (decision.merged.tolist(), decision.work.tolist()) == (merged, compared)  # type: ignore[union-attr]
    assert any(merged) == (farthest > 0.1)
    halved = [min(n, max(fewest, -(-n // 2**ROUNDS))) for n in (len(i.content) for i in instances)]
    if farthest == 2.0:  # nothing is farther: every token that can goes
        assert [len(rows) - head - tail for rows in expected] == halved


def test_by_hand() -> None:
    # A holds the first, third and fifth of five tokens, B the second and fourth. The first is like the second (0.995),
    # the third is the fourth, the fifth is far from both. Then the mean of the first two, sizes 1 and 3, is dealt to
    # A, that of the next two to B: far.
    (one,) = batch([5])
    key = torch.tensor([[9.0, 9], [1, 0], [1, 0.1], [0, 5], [0, 2], [-1, 0]]).double()
    one = replace(
        one, key=key, x=torch.arange(6.0).double()[:, None] * 4, size=torch.tensor([1.0, 1, 3, 1, 1, 1]).double()
    )
    decision = tome_dynamic(evidence([one]), 0.1)
    assert decision.selection.apply(one.x).view(-1).tolist() == [0, 7, 14, 20]
    assert (decision.merged.tolist(), decision.work.tolist()) == ([2], [(3 * 2 + 2 * 1) * 2])  # type: ignore[union-attr]
    assert tome_dynamic(evidence([one]), 0.004).selection.lengths.tolist() == [5]


def test_an_input_that_is_all_alike_keeps_fewer() -> None:
    """As many as this very input allows."""
    plain, rich = batch([29, 29])
    plain = replace(plain, key=torch.ones_like(plain.key))  # type: ignore[arg-type]
    kept = tome_dynamic(evidence([plain, rich]), 0.05).selection.lengths - 1
    assert kept[0] == 4 and kept[1] > 20


def test_nothing_to_merge() -> None:
    made = evidence(batch([0, 1]))
    assert tome_dynamic(made, 2.0).selection.lengths.tolist() == [1, 2]
    per_token = {
        name: getattr(made, name)[:0] for name in ("class_row", "output_norm", "column", "affinity", "key", "size")
    }
    none = torch.zeros(0, dtype=torch.long)
    nobody = replace(made, lengths=none, entered=none, **per_token)
    assert tome_dynamic(nobody, 2.0).selection.lengths.tolist() == []


def test_without_sizes_every_token_counts_once() -> None:
    made = evidence(instances := batch())
    ones = replace(made, size=torch.ones_like(made.column))
    x = features(instances)
    got = [tome_dynamic(some, 0.6).selection.apply(x) for some in (replace(made, size=None), ones)]
    assert torch.equal(*got) and len(got[0]) < len(x)
