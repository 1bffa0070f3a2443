"""What every method promises: an instance's answer does not depend on its batch."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from instances import RAGGED, Instance, batch, evidence, features
from madtp.prune import METHODS, Decision

CASES = [
    ("madtp", 0.3),
    ("madtp", 2.0),
    ("madtp", 53.0),
    ("madtp_nearest", 2.0),
    ("class_attention", 0.5),
    ("random", 0.5),
    ("tome", 0.3),
    ("tome_dynamic", 0.7),
    ("crossget", 0.3),
    ("elip", 0.5),
    ("madtp_no_class", 2.0),
    ("madtp_no_self", 2.0),
    ("madtp_no_token", 2.0),
    ("madtp_robust", 2.0),
    ("madtp_unguided", 0.9),
    ("madtp_static", 0.5),
    ("madtp_drop", 2.0),
]
# The blocks of a downsampled model, or of a narrower one, prune nothing; the public code's rule breaks the promise, see
# test_ablation.py.
APART = {"downsample", "upop", "madtp_batch_max"}


def test_every_method_is_in_the_cases() -> None:
    assert {name for name, _ in CASES} | APART == set(METHODS)


def decide(name: str, strength: float, instances: list[Instance]) -> Decision:
    made = evidence(instances)
    method = METHODS[name]
    unread = {} if method.guided else {"affinity": None}
    unread |= {field: None for field in ("key", "size") if field not in method.needs}
    return method.decide(replace(made, **unread), strength, False)


def results(name: str, strength: float, instances: list[Instance]) -> list[torch.Tensor]:
    """What comes out of the step, one tensor an instance."""
    selection = decide(name, strength, instances).selection
    return list(selection.apply(features(instances)).split(selection.lengths.tolist()))


def check_alone(name: str, strength: float, instances: list[Instance]) -> None:
    together = decide(name, strength, instances)
    for i, (one, out) in enumerate(zip(instances, results(name, strength, instances), strict=True)):
        alone = decide(name, strength, [one])
        torch.testing.assert_close(alone.selection.apply(one.x), out)
        assert (alone.threshold is None) == (together.threshold is None)
        if alone.threshold is not None and together.threshold is not None:
            torch.testing.assert_close(alone.threshold[0], together.threshold[i])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tail", [0, 1])
@pytest.mark.parametrize(("name", "strength"), CASES)
def test_alone_or_in_a_batch(name: str, strength: float, tail: int, dtype: torch.dtype) -> None:
    check_alone(name, strength, batch(dtype=dtype, tail=tail))


@pytest.mark.parametrize(("name", "strength"), CASES)
@settings(deadline=None, derandomize=True, max_examples=15)
@given(lengths=st.lists(st.integers(0, 31), min_size=1, max_size=4), seed=st.integers(1, 99))
def test_alone_or_in_any_batch(name: str, strength: float, lengths: list[int], seed: int) -> None:
    check_alone(name, strength, batch(lengths, seed=seed))


@pytest.mark.parametrize(("name", "strength"), CASES)
def test_in_any_order(name: str, strength: float) -> None:
    instances = batch()
    order = [3, 0, 6, 2, 5, 1, 4]
    assert sorted(order) == list(range(len(RAGGED)))
    out = results(name, strength, instances)
    shuffled = results(name, strength, [instances[i] for i in order])
    for i, rows in zip(order, shuffled, strict=True):
        torch.testing.assert_close(rows, out[i])


@pytest.mark.parametrize(("name", "strength"), CASES)
def test_a_poisoned_mate_harms_nobody_else(name: str, strength: float) -> None:
    instances = batch()
    out = results(name, strength, instances)
    broken = replace(
        instances[3],
        probability=torch.full_like(instances[3].probability, float("nan")),
        affinity=torch.full_like(instances[3].affinity, float("nan")),
        key=torch.full_like(instances[3].x[:, :5], float("nan")),
    )
    poisoned = results(name, strength, [*instances[:3], broken, *instances[4:]])
    for i in (0, 1, 2, 4, 5, 6):
        torch.testing.assert_close(poisoned[i], out[i])


@pytest.mark.parametrize(("name", "strength"), CASES)
def test_tokens_are_merged_not_lost(name: str, strength: float) -> None:
    instances = batch(tail=1)
    lengths = [len(i.x) for i in instances]
    selection = decide(name, strength, instances).selection
    owner, share = selection.follow(torch.arange(sum(lengths)), torch.ones(sum(lengths), dtype=torch.float64))
    after = selection.lengths.tolist()
    assert sum(after) < sum(lengths)
    held = torch.zeros(sum(after), dtype=torch.float64).index_add(0, owner, share)
    torch.testing.assert_close(held, torch.ones_like(held), atol=1e-6, rtol=0)
    assert (share == 0).any() == (name == "madtp_drop")
    for i, owners in enumerate(oracle.split(owner, lengths)):  # and nobody moves to another instance
        start = oracle.starts(after)[i]
        assert all(start <= o < start + after[i] for o in owners)
