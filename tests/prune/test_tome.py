"""ToMe's matching against its slow twin."""

from dataclasses import replace

import pytest
import torch

import oracle
from instances import RAGGED, batch, evidence, features
from madtp.prune.tome import due, tome


@pytest.mark.parametrize("fewest", [1, 2])
@pytest.mark.parametrize("block", [0, 1, 4])
@pytest.mark.parametrize(("head", "tail"), [(1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("share", ["0.01", "0.1", "0.3", "0.5"])
def test_tome(share: str, head: int, tail: int, block: int, fewest: int) -> None:
    instances = batch([*RAGGED, 75], head=head, tail=tail)
    decision = tome(evidence(instances, fewest, block, before=7), float(share))
    expected, merged = [], []
    for i in instances:
        n, own = len(i.content), slice(i.content.start, i.content.stop)
        count = oracle.due(share, n + 7, n, block, fewest)
        into = oracle.bipartite(i.key[own], count)  # type: ignore[index]
        expected.append(oracle.gather(i.x, into, i.size[own].tolist(), head))  # type: ignore[index]
        merged.append(len({j for a, j in enumerate(into) if a != j}))
        assert n - len(into) + sum(a != j for a, j in enumerate(into)) == count
    assert decision.selection.lengths.tolist() == [len(rows) for rows in expected]
    out = decision.selection.apply(features(instances))
    torch.testing.assert_close(out, torch.tensor([row for rows in expected for row in rows], dtype=torch.float64))
    if any(merged):
        assert decision.merged.tolist() == merged  # type: ignore[union-attr]


def test_by_hand() -> None:
    # A holds the first and the third of five tokens, and the last; B the second and the fourth. The third and the
    # fourth have one key, then the first is most like the second. Sizes 1, 3, 1, 1: 0.4 of 5 is two.
    (one,) = batch([5])
    key = torch.tensor([[9.0, 9], [1, 0.1], [1, 0], [0, 5], [0, 2], [-1, 0]]).double()
    one = replace(
        one, key=key, x=torch.arange(6.0).double()[:, None] * 4, size=torch.tensor([1.0, 1, 3, 1, 1, 1]).double()
    )
    decision = tome(evidence([one]), 0.4)
    assert decision.selection.apply(one.x).view(-1).tolist() == [0, 7, 14, 20]
    assert (decision.merged.tolist(), decision.work.tolist()) == ([2], [3 * 2 * 2])  # type: ignore[union-attr]


def test_the_same_number_in_every_block_until_half() -> None:
    made = evidence(batch([10, 29]))
    taken = [due(replace(made, block=b), 0.13).tolist() for b in range(6)]
    assert [sum(some) for some in zip(*taken, strict=True)] == [7, 22]  # 0.13 * 6 * 10 and 29, whole
    assert {t[0] for t in taken} == {1, 2} and {t[1] for t in taken} == {3, 4}
    assert due(made, 0.9).tolist() == [5, 14]
    assert due(replace(made, fewest=8), 0.9).tolist() == [2, 14]


def test_without_sizes_every_token_counts_once() -> None:
    instances = batch()
    made = evidence(instances)
    ones = replace(made, size=torch.ones_like(made.column))
    x = features(instances)
    assert torch.equal(tome(replace(made, size=None), 0.3).selection.apply(x), tome(ones, 0.3).selection.apply(x))
