"""The comparators against their slow twins."""

import pytest
import torch

import oracle
from instances import RAGGED, Instance, batch, evidence, features
from madtp.prune import METHODS, Decision, Evidence
from madtp.prune.baselines import class_attention, random

SHARES = ["0.005", "0.28", "0.5", "0.7", "0.95"]


def class_scores(i: Instance) -> list[float]:
    norms = [[oracle.norm(o) for o in token] for token in i.output.tolist()]
    rows = oracle.class_row(i.probability, i.tail)
    return oracle.class_score([rows[j] for j in i.content], [norms[j] for j in i.content])


@pytest.mark.parametrize("fewest", [1, 2])
@pytest.mark.parametrize(("head", "tail"), [(1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("share", SHARES)
def test_class_attention_keeps_the_top_and_merges_the_rest(share: str, head: int, tail: int, fewest: int) -> None:
    instances = batch([*RAGGED, 75], head=head, tail=tail)
    selection = class_attention(evidence(instances, fewest), float(share)).selection
    expected = []
    for i in instances:
        scores = class_scores(i)
        expected.append(oracle.merge(i.x, oracle.keep_top(scores, share, fewest), scores, head))
    assert selection.lengths.tolist() == [len(rows) for rows in expected]
    torch.testing.assert_close(
        selection.apply(features(instances)),
        torch.tensor([row for rows in expected for row in rows], dtype=torch.float64),
    )


def counts(decision: Decision, extra: int = 1) -> list[int]:
    return (decision.selection.lengths - extra).tolist()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", [class_attention, random])
def test_counts_by_hand(method, training: bool) -> None:  # type: ignore[no-untyped-def]
    # half of 13 is 7 and a merged one; of 2 and 3 one would go, so none does; 0.72 of 75 is 54 though float32 says more
    assert counts(method(evidence(batch([13, 0, 1, 2, 3, 4])), 0.5, training)) == [8, 0, 1, 2, 3, 3]
    assert counts(method(evidence(batch([75])), 0.28, training)) == [55]
    assert counts(method(evidence(batch([7])), 0.95, training)) == [2]
    assert counts(method(evidence(batch([7]), fewest=2), 0.95, training)) == [3]
    assert counts(method(evidence(batch([7, 5])), 0.0, training)) == [7, 5]


def equal_rows(n: int) -> Evidence:
    lengths = torch.tensor([1 + n])
    return Evidence(lengths, torch.ones(1 + n, 3), torch.ones(1 + n, 3), torch.ones(1 + n), None)


def test_equal_scores_keep_the_first() -> None:
    out = class_attention(equal_rows(7), 0.5).selection.apply(torch.arange(8.0).view(8, 1))
    torch.testing.assert_close(out, torch.tensor([[0.0], [1], [2], [3], [4], [6]]))


def kept(decision: Decision, lengths: list[int]) -> list[list[int]]:
    """Input positions of the content tokens each instance keeps as they are (or that it has whole)."""
    share = decision.selection.follow(torch.arange(sum(lengths)), torch.ones(sum(lengths)))[1]
    return [[j for j, s in enumerate(rows) if s == 1] for rows in oracle.split(share, lengths)]


def test_random_is_fixed_in_evaluation_and_averages_the_rest() -> None:
    instances = batch()
    lengths = [len(i.x) for i in instances]
    made = evidence(instances)
    torch.manual_seed(1)
    first = random(made, 0.5)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again = random(made, 0.5)
    assert kept(first, lengths) == kept(again, lengths)
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # the host's randomness is untouched
    out = oracle.split(first.selection.apply(features(instances)), first.selection.lengths.tolist())
    for i, rows, stay in zip(instances, out, kept(first, lengths), strict=True):
        keep = [j in stay for j in i.content]
        expected = oracle.merge(i.x, keep, [1.0] * len(keep), 1)
        torch.testing.assert_close(torch.tensor(rows), torch.tensor(expected))


def test_random_differs_between_blocks_and_between_draws_in_training() -> None:
    instances = batch([29, 29])
    lengths = [30, 30]
    blocks = [kept(random(evidence(instances, block=b), 0.5), lengths)[0] for b in (0, 1)]
    assert blocks[0] != blocks[1]
    torch.manual_seed(0)
    draws = [kept(random(evidence(instances), 0.5, True), lengths) for _ in range(2)]
    assert draws[0] != draws[1]
    assert draws[0][0] != draws[0][1]  # every instance its own
    torch.manual_seed(0)
    assert kept(random(evidence(instances), 0.5, True), lengths) == draws[0]


def test_random_keeps_every_position_sometimes() -> None:
    torch.manual_seed(0)
    instances = batch([11])
    seen = {j for _ in range(40) for j in kept(random(evidence(instances), 0.5, True), [12])[0]}
    assert seen == set(range(12))


def test_the_table_is_keyed_by_name_and_its_bounds_work() -> None:
    for name, method in METHODS.items():
        assert method.name == name
        low, high = method.bounds
        assert 0 < low < high
        made = evidence(batch([101]))
        for strength in (low, high):
            assert 2 <= counts(method.decide(made, strength, False))[0] <= 101
    guided = {name for name, method in METHODS.items() if method.guided}
    assert guided == {name for name in METHODS if name.startswith("madtp")} - {"madtp_unguided"} | {"crossget", "elip"}
