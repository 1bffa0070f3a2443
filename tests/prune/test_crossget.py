"""CrossGET's matching against its slow twin, and the stages of ELIP."""

from dataclasses import replace
from math import exp

import pytest
import torch

import oracle
from instances import RAGGED, Instance, batch, evidence, features
from madtp.prune.crossget import crossget, match
from madtp.prune.elip import elip, ends_stage


@pytest.mark.parametrize("block", [0, 1, 4])
@pytest.mark.parametrize(("head", "tail"), [(1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("share", ["0.01", "0.1", "0.3", "0.5"])
def test_crossget(share: str, head: int, tail: int, block: int) -> None:
    instances = batch([*RAGGED, 47], head=head, tail=tail)
    decision = crossget(evidence(instances, 1, block, before=7), float(share))
    expected, merged = [], []
    for i in instances:
        n, own = len(i.content), slice(i.content.start, i.content.stop)
        importance = oracle.deviations([max(a) for a in i.affinity[own].tolist()]) if n else []
        into = oracle.complete_graph(i.key[own], importance, oracle.due(share, n + 7, n, block))  # type: ignore[index]
        expected.append(oracle.gather(i.x, into, [exp(x) for x in importance], head))
        merged.append(len({j for a, j in enumerate(into) if a != j}))
    assert decision.selection.lengths.tolist() == [len(rows) for rows in expected]
    out = decision.selection.apply(features(instances))
    torch.testing.assert_close(out, torch.tensor([row for rows in expected for row in rows], dtype=torch.float64))
    if any(merged):
        assert decision.merged is not None and decision.merged.tolist() == merged


def test_of_two_that_are_most_alike_the_less_important_goes() -> None:
    # tokens 0 and 1 are alike, 2 is near to both, 3 is far from all
    key = torch.nn.functional.normalize(torch.tensor([[[1.0, 0.02], [1, 0], [1, 0.5], [-1, 3]]]), dim=-1)
    like, content, one = key @ key.transpose(1, 2), torch.ones(1, 4, dtype=torch.bool), torch.tensor([1])
    for loser, importance in ((0, [-1.0, 1, 0, 0]), (1, [1.0, -1, 0, 0])):
        into = match(like, torch.tensor([importance]), content, one)[0].tolist()
        assert into == [1 - loser if j == loser else j for j in range(4)]
    # of two that go, none goes into one that goes
    into = match(like, torch.tensor([[-1.0, 1, -1, 0]]), content, torch.tensor([2]))[0].tolist()
    assert into == [1, 1, 1, 3]


def test_the_importance_learns_from_the_task() -> None:
    given = evidence(batch([11, 7]))
    leaf = given.affinity.clone().requires_grad_()  # type: ignore[union-attr]
    selection = crossget(replace(given, affinity=leaf), 0.3, True).selection
    selection.apply(features(batch([11, 7]))).square().sum().backward()
    assert leaf.grad is not None and bool(leaf.grad.any()) and bool(leaf.grad.isfinite().all())


def elip_scores(i: Instance) -> list[float]:
    norms = [[oracle.norm(o) for o in token] for token in i.output.tolist()]
    row = oracle.class_row(i.probability, i.tail)
    seen = oracle.share(oracle.class_score([row[j] for j in i.content], [norms[j] for j in i.content]))
    said = oracle.token_score([i.affinity.tolist()[j] for j in i.content])
    return [(a + b) / 2 for a, b in zip(seen, said, strict=True)]


@pytest.mark.parametrize("share", ["0.28", "0.5", "0.95"])
def test_elip(share: str) -> None:
    instances = batch([*RAGGED, 75])
    selection = elip(evidence(instances), float(share)).selection
    expected = [oracle.merge(i.x, oracle.keep_top(s := elip_scores(i), share), s, 1) for i in instances]
    assert selection.lengths.tolist() == [len(rows) for rows in expected]
    flat = torch.tensor([row for rows in expected for row in rows], dtype=torch.float64)
    torch.testing.assert_close(selection.apply(features(instances)), flat)


def test_stages() -> None:
    ends = {depth: [b for b in range(depth) if ends_stage("vision", b, depth)] for depth in (1, 3, 4, 6, 12)}
    assert ends == {1: [0], 3: [0, 1, 2], 4: [0, 1, 2, 3], 6: [1, 2, 4, 5], 12: [2, 5, 8, 11]}
    assert not any(ends_stage("text", b, 12) for b in range(12))
