"""Settings of a run are checked, and the learning rate and the optimiser follow from them."""

import math
from typing import Any

import pytest

from madtp.errors import InputError
from madtp.recipe import TrainConfig, learning_rate, make_optimizer
from small import nano_model


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (12, 0.505), (20, 0.01), (8, 0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2)],
)
def test_learning_rate_by_hand(step: int, expected: float) -> None:
    """20 steps, a fifth of them warm-up: up to the peak in four, then half a cosine from 1 down to 0.01."""
    assert learning_rate(step, 20, TrainConfig(lr=1.0, warmup=0.2)) == pytest.approx(expected)
    assert learning_rate(step, 20, TrainConfig(lr=3.0, warmup=0.2)) == pytest.approx(3 * expected)


def test_a_warm_up_is_at_least_a_step_and_steps_may_be_few() -> None:
    assert learning_rate(0, 1, TrainConfig(lr=2.0)) == 2.0
    assert [learning_rate(i, 2, TrainConfig(lr=2.0, warmup=0.0)) for i in range(2)] == [2.0, 2.0]
    assert all(0 < learning_rate(i, 7, TrainConfig(lr=2.0, warmup=0.5)) <= 2.0 for i in range(7))


def test_decay_is_for_matrices_alone() -> None:
    model = nano_model()
    decayed, plain = make_optimizer(dict(model.named_parameters()), TrainConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
    assert all(p.ndim >= 2 for p in decayed["params"])
    two_dimensional = {names[id(p)] for p in plain["params"] if p.ndim >= 2}
    assert two_dimensional and all("embedding" in name for name in two_dimensional)
    assert not any("bias" in names[id(p)] or "norm" in names[id(p)].lower() for p in decayed["params"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"epochs": 0}, "--epochs: 0 is too small; use 1 or more"),
        ({"batch_size": -3}, "--batch-size: -3 is too small"),
        ({"save_every": 0}, "--save-every"),
        ({"precision": "fp8"}, "--precision: unknown precision 'fp8'; one of no, bf16, fp16"),
        ({"reductions": (0.5, 1.0)}, "--reduction: 1 is impossible"),
        ({"lr": 0.0}, "--lr: 0 is not above 0"),
        ({"lr": math.nan}, "--lr: nan is not above 0"),
    ],
)
def test_settings_are_checked(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        TrainConfig(**setting)
    assert str(error.value).startswith(said)
