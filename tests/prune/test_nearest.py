"""MADTP's choice, merged into what is most like it, against its slow twin."""

from dataclasses import replace
from math import exp

import pytest
import torch

import oracle
from instances import Instance, batch, evidence, features
from madtp.prune import Method
from madtp.prune.methods import METHODS
from prune.test_ablation import mean, scores

NEAREST: Method = METHODS["madtp_nearest"]


def twin(i: Instance, temperature: float) -> tuple[list, float, int, int]:
    """Rows that come out, theta, merged tokens and pairs of keys compared."""
    importance = mean(*scores(i))
    n, affinity = len(importance), i.affinity[i.content.start : i.content.stop]
    theta = oracle.threshold(affinity, importance, temperature) if n else 0.0
    keep = oracle.keep_above(importance, theta)
    key = [[c / oracle.norm(row) for c in row] for row in i.key[i.content.start : i.content.stop].tolist()]  # type: ignore[index]
    into = list(range(n))
    for j in range(n):
        if not keep[j]:
            likeness = {k: sum(a * b for a, b in zip(key[j], key[k], strict=True)) for k in range(n) if keep[k]}
            into[j] = max(likeness, key=lambda k: likeness[k])
    size = i.size[i.content.start : i.content.stop].tolist()  # type: ignore[index]
    weight = [s / (1 + exp(-3 * (t / (abs(theta) + 1e-8) - 1))) for s, t in zip(size, importance, strict=True)]
    gone = n - sum(keep)
    merged = len({into[j] for j in range(n) if into[j] != j})
    return oracle.gather(i.x, into, weight, i.head), theta, merged, gone * (n - gone)


@pytest.mark.parametrize(("head", "tail"), [(1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("temperature", [0.3, 2.0, 53.0])
def test_madtp_nearest(temperature: float, head: int, tail: int) -> None:
    instances = batch(head=head, tail=tail)
    decision = NEAREST.decide(evidence(instances), temperature, False)
    rows, thetas, merged, pairs = zip(*(twin(i, temperature) for i in instances), strict=True)
    assert decision.selection.lengths.tolist() == [len(some) for some in rows]
    out = decision.selection.apply(features(instances))
    torch.testing.assert_close(out, torch.tensor([row for some in rows for row in some], dtype=out.dtype))
    torch.testing.assert_close(decision.threshold, torch.tensor(thetas).double())
    assert decision.merged is not None and decision.merged.tolist() == list(merged) and max(merged) > 1
    width = instances[0].key.shape[1]  # type: ignore[union-attr]
    assert decision.work is not None and decision.work.tolist() == [width * count for count in pairs]


def test_the_same_tokens_stay_as_in_madtp() -> None:
    made = evidence(batch())
    kept = [METHODS[name].decide(made, 2.0, False).selection for name in ("madtp", "madtp_nearest")]
    copied = [set(s.index.tolist()) - set(s.source.tolist()) for s in kept]  # type: ignore[union-attr]
    receivers = set(kept[1].index[kept[1].merged].tolist())  # type: ignore[index]
    assert copied[0] == copied[1] | receivers and receivers


def test_each_joins_its_like_and_a_heavy_one_counts_more() -> None:
    (one,) = batch([13])
    content = slice(1, 14)
    assert one.key is not None and one.size is not None
    stays = METHODS["madtp"].decide(evidence([one]), 2.0, False).selection
    gone = stays.source.tolist()  # type: ignore[union-attr]
    kept = [j for j in range(1, 14) if j not in gone]
    key = one.key.clone()
    key[content] = torch.eye(13, dtype=key.dtype)[:, :5] * 0 + 1e-3
    key[kept[-1]], key[gone[0]] = torch.tensor([3.0, 0, 0, 0, 0]).double(), torch.tensor([0.5, 0.01, 0, 0, 0]).double()
    made = evidence([replace(one, key=key)])
    decision = NEAREST.decide(made, 2.0, False).selection
    assert decision.source is not None and decision.target is not None and decision.merged is not None
    where = dict(zip(decision.source.tolist(), decision.merged[decision.target].tolist(), strict=True))
    assert where[gone[0]] == where[kept[-1]]

    def share(size: float) -> float:
        sizes = one.size.clone()  # type: ignore[union-attr]
        sizes[gone[0]] = size
        s = NEAREST.decide(evidence([replace(one, key=key, size=sizes)]), 2.0, False).selection
        return float(s.weight[s.source == gone[0]])  # type: ignore[index]

    assert share(1.0) < share(5.0) < 1


def test_of_no_instances() -> None:
    made = evidence(batch())
    per_token = {
        name: getattr(made, name)[:0] for name in ("class_row", "output_norm", "column", "affinity", "key", "size")
    }
    none = torch.zeros(0, dtype=torch.long)
    assert (
        NEAREST.decide(replace(made, lengths=none, entered=none, **per_token), 2.0, False).selection.lengths.numel()
        == 0
    )


def test_scores_learn_by_the_merge_weights() -> None:
    made = evidence(batch())
    affinity = made.affinity.requires_grad_()  # type: ignore[union-attr]
    decision = NEAREST.decide(replace(made, affinity=affinity), 2.0, True)
    decision.selection.apply(features(batch())).square().sum().backward()
    assert affinity.grad is not None and bool(affinity.grad.abs().sum() > 0)
