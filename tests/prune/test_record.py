"""Records of a pruning step: what the slow twin computes, one instance at a time; and off unless asked for."""

import pytest
import torch

import oracle
from instances import batch, evidence
from madtp.prune import METHODS, Provenance, is_recording, record, recording


def test_a_kept_token_that_others_are_merged_into_is_kept() -> None:
    seen = evidence(batch())
    one, other = (record(seen, METHODS[name].decide(seen, 2.0, False)).kept for name in ("madtp", "madtp_nearest"))
    assert torch.equal(one, other) and not one.all()
    dropped = record(seen, METHODS["madtp_drop"].decide(seen, 2.0, False)).kept
    assert torch.equal(one, dropped)


@pytest.mark.parametrize(("head", "tail"), [(1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("temperature", [0.3, 53.0])
def test_a_record_is_what_the_slow_twin_computes(temperature: float, head: int, tail: int) -> None:
    instances = batch(head=head, tail=tail)
    seen = evidence(instances)
    kept = record(seen, METHODS["madtp"].decide(seen, temperature, False))
    assert kept.head == head
    assert kept.lengths.tolist() == [len(i.content) for i in instances]
    assert not kept.kept.all()
    for number, i in enumerate(instances):
        mine = kept.of(number)
        affinity = i.affinity[list(i.content)]
        norms = i.output.norm(dim=-1)
        row = torch.tensor(oracle.class_row(i.probability, tail), dtype=i.x.dtype).view(len(i.x), -1)
        twin = {
            "class": oracle.class_score(row[list(i.content)], norms[list(i.content)]),
            "self": oracle.self_score([oracle.column(i.probability, i.content)[j] for j in i.content]),
            "token": oracle.token_score(affinity) if len(i.content) else [],
        }
        twin["importance"] = oracle.token_importance(twin["class"], twin["self"], twin["token"])
        assert set(mine.scores) == set(twin)
        for name, score in twin.items():
            torch.testing.assert_close(mine.scores[name].tolist(), score, atol=1e-5, rtol=1e-5)
        assert mine.affinity is not None
        torch.testing.assert_close(mine.affinity.double(), affinity, atol=1e-6, rtol=1e-6)
        if len(i.content):
            theta = oracle.threshold(affinity, twin["importance"], temperature)
            assert mine.kept.tolist() == oracle.keep_above(twin["importance"], theta)


@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("madtp_")])
def test_parts_of_madtp_record_what_they_rank_by(method: str) -> None:
    seen = evidence(batch())
    decision = METHODS[method].decide(seen, 0.5, False)
    importance = record(seen, decision).scores["importance"]
    assert len(importance) == sum(len(i.x) - i.head - i.tail for i in batch())
    assert float(importance.std()) > 0


@pytest.mark.parametrize("method", ["class_attention", "random"])
def test_comparators_record_what_they_have(method: str) -> None:
    seen = evidence(batch())
    decision = METHODS[method].decide(seen, 0.5, False)
    kept = record(seen, decision)
    names = {"class_attention": {"importance"}, "random": set()}[method]
    assert set(kept.scores) == names
    extra = seen.head + seen.tail
    pruned = decision.selection.lengths - extra < kept.lengths
    out = [int(kept.of(i).kept.sum()) + int(merges) for i, merges in enumerate(pruned)]
    assert out == (decision.selection.lengths - extra).tolist()


def test_recording_is_off_but_in_the_block() -> None:
    assert not is_recording()
    with recording():
        assert is_recording()
        with pytest.raises(KeyError), recording():
            raise KeyError
        assert is_recording()
    assert not is_recording()


def test_kept_are_those_that_nothing_else_is_merged_with() -> None:
    owner, share = torch.tensor([3, 1, 3, 2, 1, 1]), torch.tensor([1.25, 1.0, -0.25, 1.0, 0.5, 0.5])
    where = Provenance(torch.tensor([4, 2, 0]), owner, share)
    assert where.kept(0).tolist() == [False, True, False, True]  # a share above 1 is no sign of being kept
    assert where.kept(1).tolist() == [False, False]
    assert where.kept(2).tolist() == []
