"""The whole pruning step of a ragged batch against the slow twin, one instance at a time."""

import math
from dataclasses import replace

import pytest
import torch

import oracle
from instances import CHANNELS, DTYPES, Instance, batch, equal_scores, evidence, features, instance
from madtp.prune import METHODS, Decision, Selection

madtp = METHODS["madtp"].decide


def twin(i: Instance, temperature: float, fewest: int = 1) -> tuple[list, list[bool], list[float], float]:
    return oracle.step(i.x, i.probability, i.output, i.affinity, temperature, i.head, i.tail, fewest)


def check(decision: Decision, instances: list[Instance], temperature: float, atol: float, fewest: int = 1) -> None:
    """Counts exact; thresholds and features to `atol`."""
    twins = [twin(i, temperature, fewest) for i in instances]
    assert decision.selection.lengths.tolist() == [len(x) for x, *_ in twins]
    assert decision.threshold is not None
    torch.testing.assert_close(decision.threshold.tolist(), [theta for *_, theta in twins], atol=atol, rtol=0)
    out = decision.selection.apply(features(instances))
    expected = torch.tensor([row for x, *_ in twins for row in x], dtype=out.dtype)
    torch.testing.assert_close(out, expected, atol=10 * atol, rtol=10 * atol)


def pruned(decision: Decision, instances: list[Instance]) -> list[bool]:
    return [int(n) < len(i.x) for n, i in zip(decision.selection.lengths, instances, strict=True)]


@pytest.mark.parametrize("shift", [0.0, -4.0, -1.4], ids=["mixed", "negative", "sum near zero"])
@pytest.mark.parametrize(("head", "tail"), [(1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("temperature", [0.3, 2.0, 53.0])
@pytest.mark.parametrize(("dtype", "atol"), DTYPES.items())
def test_step(dtype: torch.dtype, atol: float, temperature: float, head: int, tail: int, shift: float) -> None:
    instances = batch(dtype=dtype, head=head, tail=tail, shift=shift)
    decision = madtp(evidence(instances), temperature, False)
    assert any(pruned(decision, instances))
    check(decision, instances, temperature, atol)


def test_a_negative_sum_of_the_best_affinities_prunes_as_published() -> None:
    instances = batch(shift=-3.0)
    assert instances[0].affinity[1:].amax(-1).sum() < 0
    decision = madtp(evidence(instances), 2.0, False)
    assert pruned(decision, instances)[0]
    check(decision, instances, 2.0, 1e-10)


def test_float16_is_scored_in_float32() -> None:
    instances = batch(dtype=torch.float16)
    decision = madtp(evidence(instances), 2.0, False)
    twins = [twin(i, 2.0) for i in instances]
    assert decision.selection.lengths.tolist() == [len(x) for x, *_ in twins]
    assert decision.threshold is not None
    assert decision.threshold.dtype == torch.float32
    # The inputs are rounded to float16 (norms and columns by torch), the scores are not.
    torch.testing.assert_close(decision.threshold.tolist(), [theta for *_, theta in twins], atol=2e-4, rtol=0)
    out = decision.selection.apply(features(instances))
    assert out.dtype == torch.float16
    expected = torch.tensor([row for x, *_ in twins for row in x])
    torch.testing.assert_close(out.float(), expected, atol=2e-2, rtol=2e-2)


def test_float16_tokens_without_attention_output() -> None:
    # 1e-8 is 0 in float16: scored there, 0 / 0 would prune by NaN
    instances = batch(dtype=torch.float16)
    silent = [replace(i, output=torch.zeros_like(i.output)) for i in instances]
    decision = madtp(evidence(silent), 2.0, False)
    assert decision.threshold is not None
    assert bool(decision.threshold.isfinite().all())
    assert pruned(decision, silent)[0]


def one_of_four() -> Instance:
    """TIS by hand: (4, 2, 1, 1) / 8.

    Two heads of equal norm, and every attention row is (0, 4, 2, 1, 1) / 8, so that S_cls = S_self = (4, 2, 1, 1) / 8;
    the affinities to the one semantic token are (4, 2, 1, 1), so that S_tok is the same.
    """
    row = torch.tensor([0.0, 0.5, 0.25, 0.125, 0.125])
    x = torch.tensor([[9.0], [8.0], [4.0], [0.0], [16.0]])
    return Instance(x, row.expand(2, 5, 5), torch.ones(5, 2, 1), torch.tensor([[7.0], [4], [2], [1], [1]]))


def test_by_hand() -> None:
    # At tau = 1e9 theta is the mean, 1/4, which the second token does not exceed: the others merge 2 : 1 : 1.
    one = one_of_four()
    decision = madtp(evidence([one]), 1e9, False)
    assert decision.selection.lengths.tolist() == [3]
    torch.testing.assert_close(decision.threshold, torch.tensor([0.25]))
    torch.testing.assert_close(decision.selection.apply(one.x), torch.tensor([[9.0], [8.0], [6.0]]))
    check(decision, [one], 1e9, 1e-6)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_little_content_is_left_whole(n: int) -> None:
    instances = batch([n, n])
    decision = madtp(evidence(instances), 2.0, False)
    x = features(instances)
    assert decision.selection.apply(x) is x
    assert decision.threshold is not None
    assert bool(decision.threshold.isfinite().all())


@pytest.mark.parametrize("n", [3, 4, 7, 13])
@pytest.mark.parametrize("value", [0.25, -0.25])
def test_equal_scores_prune_nothing(n: int, value: float) -> None:
    instances = [equal_scores(n, value)]
    x = features(instances)
    assert madtp(evidence(instances), 2.0, False).selection.apply(x) is x


def test_none_above_the_threshold_prunes_nothing() -> None:
    # One semantic token that looks at the best token alone: theta is its TIS to the last bit, and nothing exceeds it.
    one = instance(7, 3)
    importance = oracle.step(one.x, one.probability, one.output, one.affinity, 1.0, 1, 0)[2]
    best = 1 + importance.index(max(importance))
    sharp = one.affinity.clone()
    sharp[best] = 1e6
    lone = replace(one, affinity=sharp[:, :1])
    _, keep, importance, theta = twin(lone, 0.1)
    assert theta == max(importance)
    assert all(keep)
    assert madtp(evidence([lone]), 0.1, False).selection.index is None


@pytest.mark.parametrize(("fewest", "tokens"), [(1, 3), (2, 5)])
def test_fewest_leaves_an_instance_whole_that_would_keep_one(fewest: int, tokens: int) -> None:
    one = one_of_four()
    decision = madtp(evidence([one], fewest), 1e9, False)
    assert decision.selection.lengths.tolist() == [tokens]
    check(decision, [one], 1e9, 1e-6, fewest)


def test_an_endless_temperature_gives_the_mean_importance() -> None:
    instances = batch()
    theta = madtp(evidence(instances), math.inf, False).threshold
    assert theta is not None
    for i, one in enumerate(instances):
        importance = twin(one, 1.0)[2]
        mean = sum(importance) / len(importance) if importance else 0.0
        assert theta[i].item() == pytest.approx(mean, abs=1e-12)


def test_protected_tokens_stay_where_they_are() -> None:
    instances = batch(head=2, tail=1)
    selection = madtp(evidence(instances), 2.0, False).selection
    out = oracle.split(selection.apply(features(instances)), selection.lengths.tolist())
    for one, rows in zip(instances, out, strict=True):
        assert rows[:2] == one.x[:2].tolist()
        assert rows[-1] == one.x[-1].tolist()


def decide_with_gradient() -> tuple[Selection, dict[str, torch.Tensor], torch.Tensor]:
    instances = batch([11, 2, 7])
    given = evidence(instances)
    leaves = {
        name: getattr(given, name).clone().requires_grad_()
        for name in ("class_row", "output_norm", "column", "affinity")
    }
    decision = madtp(replace(given, **leaves), 2.0, True)
    assert decision.threshold is not None
    assert not decision.threshold.requires_grad
    return decision.selection, leaves, features(instances)


def test_the_merge_weights_carry_gradient_to_every_score() -> None:
    selection, leaves, x = decide_with_gradient()
    selection.apply(x).square().sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert bool(leaf.grad.any()), name


def test_the_decision_carries_none() -> None:
    selection, leaves, x = decide_with_gradient()
    owner, share = selection.follow(torch.arange(len(x)), torch.ones(len(x)))
    assert not share.requires_grad
    kept = owner[share == 1]
    grads = torch.autograd.grad(selection.apply(x)[kept].sum(), list(leaves.values()))
    assert not any(bool(g.any()) for g in grads)


def test_straight_through_gives_kept_tokens_scores_a_gradient_in_training_alone() -> None:
    """What the kept tokens put out depends on every score then, by the weight given; forward nothing differs."""
    instances = batch([11, 2, 7])
    x, plain = features(instances), madtp(evidence(instances), 2.0, True).selection
    found = {}
    for weight, training in ((0.0, True), (3.0, False), (3.0, True), (6.0, True)):
        given = evidence(instances)
        leaf = given.affinity.clone().requires_grad_()  # type: ignore[union-attr]
        selection = madtp(replace(given, affinity=leaf, straight_through=weight), 2.0, training).selection
        assert torch.equal(selection.apply(x), plain.apply(x))
        owner, share = selection.follow(torch.arange(len(x)), torch.ones(len(x)))
        found[weight, training] = torch.autograd.grad(selection.apply(x)[owner[share == 1]].sum(), leaf)[0]
    assert not found[0.0, True].any() and not found[3.0, False].any()
    assert found[3.0, True].any()
    torch.testing.assert_close(found[6.0, True], 2 * found[3.0, True])


def test_a_worthier_kept_token_is_scored_higher_by_following_the_gradient() -> None:
    """One token of the instance is what the loss wants kept as itself: its score rises, and by as much as is hers."""
    one = one_of_four()
    given = evidence([one])
    column = given.column.clone().requires_grad_()
    decision = madtp(replace(given, column=column, straight_through=1.0), 1e6, True)
    x = features([one])
    out = decision.selection.apply(x)
    kept = 1  # behind the pooled token
    assert decision.selection.lengths.tolist() == [3] and torch.equal(out[kept], x[given.column.argmax()])
    wanted = out[kept].detach()
    (-(out[kept] @ (wanted - out[2].detach()))).backward()
    assert column.grad is not None and column.grad[given.column.argmax()] < 0


def test_gradcheck() -> None:
    instances = batch([5, 3])
    given, x = evidence(instances), features(instances)[:, :2]
    names = ("class_row", "output_norm", "column", "affinity")

    def step(x: torch.Tensor, *leaves: torch.Tensor) -> torch.Tensor:
        made = replace(given, **dict(zip(names, leaves, strict=True)))
        return madtp(made, 2.0, True).selection.apply(x)

    leaves = [getattr(given, name).clone().requires_grad_() for name in names]
    assert step(x, *leaves).shape[0] < len(x)
    assert torch.autograd.gradcheck(step, (x.clone().requires_grad_(), *leaves))


def test_madtp_says_what_it_needs() -> None:
    with pytest.raises(AssertionError, match="affinity"):
        madtp(replace(evidence(batch()), affinity=None), 2.0, False)


def test_tokens_have_the_width_they_came_with() -> None:
    instances = batch()
    assert madtp(evidence(instances), 2.0, False).selection.apply(features(instances)).shape[1] == CHANNELS
