"""Steps without a finite loss or gradient are left out, counted and named; too many in a row end the run."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from madtp.checkpoints import STATE
from madtp.errors import InputError
from madtp.train import Trainer
from test_train import CONFIG, Stop, after, assert_same_run, log_of, power_cut, same, start

ONE = replace(CONFIG, epochs=1)  # 5 steps of 3 samples, the last of 1


def spoil(trainer: Trainer, bad: set[int], monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The losses of these calls, from 1, are NaN. Returns the ids of the samples of every call, as they come."""
    loss, seen = trainer.task.loss, list[list[str]]()

    def spoilt(model: Any, batch: Any, helper: Any, teacher: Any) -> Any:
        seen.append([sample.image_id for sample in batch["samples"]])
        value, logs, trace = loss(model, batch, helper, teacher)
        return value * (math.nan if trainer.step + 1 in bad else 1.0), logs, trace

    monkeypatch.setattr(trainer.task, "loss", spoilt)
    return seen


def told(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]


def test_a_step_without_a_finite_loss_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[dict[str, torch.Tensor]] = []
    trainer = start(tmp_path, ONE)
    trainer.report = lambda _: copies.append({name: p.clone() for name, p in trainer.bare.state_dict().items()})
    seen = spoil(trainer, {2, 3}, monkeypatch)
    trainer.run()
    assert [same(a, b) for a, b in pairwise(copies[:5])] == [True, True, False, False]
    assert (trainer.bad.total, trainer.bad.row) == (2, 0)
    lines = told(tmp_path)
    assert [(line["id"], line["error"], line["samples"]) for line in lines] == [
        ("2", "loss is not finite", seen[1]),
        ("3", "loss is not finite", seen[2]),
    ]
    assert [(line["step"], line["loss"]) for line in log_of(tmp_path)[1:3]] == [(2, None), (3, None)]


def test_a_gradient_that_is_not_finite_counts_too(tmp_path: Path) -> None:
    trainer = start(tmp_path, ONE)
    parameter = trainer.bare.vision_model.post_layernorm.bias
    parameter.register_hook(lambda gradient: gradient / (trainer.step != 2))
    before = parameter.detach().clone()
    trainer.run()
    assert [(line["id"], line["error"]) for line in told(tmp_path)] == [("3", "gradient is not finite")]
    assert parameter.isfinite().all() and not torch.equal(parameter, before)


def test_too_many_in_a_row_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = start(tmp_path, replace(CONFIG, bad_steps=3, save_every=1))
    seen = spoil(trainer, {2, 4, 5, 6, 7}, monkeypatch)
    with pytest.raises(
        InputError, match=r"3 steps in a row without a finite loss and gradient, the last \(loss\) is ste"
    ):
        trainer.run()
    assert [line["samples"] for line in told(tmp_path)] == [seen[i - 1] for i in (2, 4, 5, 6)]
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["step"] == 5 and all(value.isfinite().all() for value in state["model"].values())


def test_of_an_accumulated_step_one_bad_batch_costs_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[bool] = []
    trainer = start(tmp_path, replace(ONE, accumulate=2))
    seen = spoil(trainer, {1}, monkeypatch)
    before = {name: value.clone() for name, value in trainer.bare.state_dict().items()}
    trainer.report = lambda _: moved.append(not same(before, trainer.bare.state_dict()))
    trainer.run()
    assert moved[:4] == [False, False, False, True]
    assert [line["samples"] for line in told(tmp_path)] == [seen[0] + seen[1]]


def test_the_count_goes_on_in_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out, bad = tmp_path / "whole", tmp_path / "run", {1, 3, 4}
    config = replace(ONE, save_every=1)
    trainer = start(whole, config)
    spoil(trainer, bad, monkeypatch)
    trainer.run()
    trainer = start(out, config, report=after(4, power_cut))
    spoil(trainer, bad, monkeypatch)
    with pytest.raises(Stop):
        trainer.run()
    trainer = start(out, config)
    spoil(trainer, bad, monkeypatch)
    trainer.run(resume=True)
    assert trainer.bad.total == 3
    assert_same_run(out, whole)
    assert told(out) == told(whole)
