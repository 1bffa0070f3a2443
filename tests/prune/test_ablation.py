"""MADTP with one part changed, against slow twins put together from the method's."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import oracle
from instances import Instance, batch, evidence, features
from madtp.prune import METHODS, Decision

Scores = tuple[list[float], list[float], list[float]]


def scores(i: Instance) -> Scores:
    """S_cls, S_self and S_tok of the content tokens."""
    norms = [[oracle.norm(o) for o in token] for token in i.output.tolist()]
    row, columns = oracle.class_row(i.probability, i.tail), oracle.column(i.probability, i.content)
    return (
        oracle.class_score([row[j] for j in i.content], [norms[j] for j in i.content]),
        oracle.self_score([columns[j] for j in i.content]),
        oracle.token_score([i.affinity.tolist()[j] for j in i.content]),
    )


def mean(*parts: list[float]) -> list[float]:
    return [sum(some) / len(parts) for some in zip(*parts, strict=True)]


IMPORTANCE: dict[str, Callable[[Scores], list[float]]] = {
    "madtp_no_class": lambda s: mean(s[1], s[2]),
    "madtp_no_self": lambda s: mean(s[0], s[2]),
    "madtp_no_token": lambda s: mean(s[0], s[1]),
}


def importance_of(name: str, i: Instance) -> list[float]:
    if name == "madtp_robust":
        return mean(*scores(i)[:2], oracle.robust_token_score(i.affinity[i.content.start : i.content.stop]))
    return IMPORTANCE[name](scores(i))


def check(decision: Decision, instances: list[Instance], rows: list[list]) -> None:
    assert decision.selection.lengths.tolist() == [len(r) for r in rows]
    out = decision.selection.apply(features(instances))
    torch.testing.assert_close(out, torch.tensor([row for r in rows for row in r], dtype=out.dtype))
    assert sum(map(len, rows)) < len(features(instances)), "nothing was pruned"


@pytest.mark.parametrize("tail", [0, 1])
@pytest.mark.parametrize("temperature", [0.3, 2.0, 53.0])
@pytest.mark.parametrize("name", [*IMPORTANCE, "madtp_robust"])
def test_other_scores(name: str, temperature: float, tail: int) -> None:
    instances, rows, thetas = batch(tail=tail), [], []
    for i in instances:
        importance = importance_of(name, i)
        theta = (
            oracle.threshold(i.affinity[i.content.start : i.content.stop], importance, temperature)
            if importance
            else 0.0
        )
        thetas.append(theta)
        rows.append(oracle.merge(i.x, oracle.keep_above(importance, theta), importance, 1))
    decision = METHODS[name].decide(evidence(instances), temperature, False)
    check(decision, instances, rows)
    torch.testing.assert_close(decision.threshold, torch.tensor(thetas).double())


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_unguided(factor: float) -> None:
    instances, rows = batch(), []
    for i in instances:
        s = scores(i)
        importance = mean(s[0], s[1])
        keep = oracle.keep_above(importance, factor * sum(importance) / max(1, len(importance)))
        rows.append(oracle.merge(i.x, keep, importance, 1))
    check(METHODS["madtp_unguided"].decide(evidence(instances), factor, False), instances, rows)


@pytest.mark.parametrize("share", ["0.28", "0.5", "0.7"])
def test_static(share: str) -> None:
    instances, rows = batch(), []
    for i in instances:
        importance = oracle.token_importance(*scores(i))
        rows.append(oracle.merge(i.x, oracle.keep_top(importance, share), importance, 1))
    check(METHODS["madtp_static"].decide(evidence(instances), float(share), False), instances, rows)


def kept(i: Instance, temperature: float) -> tuple[list[bool], list[float]]:
    _, keep, importance, _ = oracle.step(i.x, i.probability, i.output, i.affinity, temperature, i.head, i.tail)
    return keep, importance


@pytest.mark.parametrize("tail", [0, 1])
def test_dropping(tail: int) -> None:
    instances = batch(tail=tail)
    rows = []
    for i in instances:
        stay = [j for j, keep in zip(i.content, kept(i, 2.0)[0], strict=True) if keep]
        rows.append(i.x[[0, *stay, *([len(i.x) - 1] if tail else [])]].tolist())
    decision = METHODS["madtp_drop"].decide(evidence(instances), 2.0, True)
    check(decision, instances, rows)
    assert decision.merged is not None and not decision.merged.any()


def test_the_batch_maximum_depends_on_the_batch() -> None:
    instances = batch([29, 29, 13, 2, 0])
    keeps = [kept(i, 2.0) for i in instances]
    most = max(sum(keep) for keep, _ in keeps if not all(keep))
    assert len({sum(keep) for keep, _ in keeps[:3]}) > 1, "nothing to level"
    rows = []
    for i, (keep, importance) in zip(instances, keeps, strict=True):
        best = sorted(range(len(keep)), key=lambda j: -importance[j])[:most]
        keep = [j in best or len(keep) - most <= 1 for j in range(len(keep))]
        rows.append(oracle.merge(i.x, keep, importance, 1))
    check(METHODS["madtp_batch_max"].decide(evidence(instances), 2.0, False), instances, rows)
    alone = [METHODS["madtp_batch_max"].decide(evidence([i]), 2.0, False).selection.lengths for i in instances]
    assert torch.cat(alone).tolist() != [len(r) for r in rows]
    assert [int(n) for n in alone[:3][0]] == [1 + sum(keeps[0][0]) + 1]


@pytest.mark.parametrize(("name", "part"), [("madtp_no_class", 0), ("madtp_no_self", 1), ("madtp_no_token", 2)])
def test_what_is_left_out_gets_no_gradient(name: str, part: int) -> None:
    """None at all: of zeros an optimizer would let the weights behind it decay."""
    instances = batch([11, 2, 7])
    given = evidence(instances)
    leaves = [x.detach().requires_grad_() for x in (given.class_row, given.column, given.affinity)]  # type: ignore[union-attr]
    made = replace(given, class_row=leaves[0], column=leaves[1], affinity=leaves[2])
    out = METHODS[name].decide(made, 2.0, True).selection.apply(features(instances))
    grads = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)
    assert [grad is None for grad in grads] == [i == part for i in range(3)]
