"""Gradient checkpointing: the same losses, gradients and traces to the bit, less kept for backward."""

from typing import Any

import pytest
import torch
from torch import Tensor

from madtp.prune import METHODS
from madtp.task.distill import Teacher
from small import KINDS, nano, nano_task, samples

OPTIONS: dict[str, dict[str, Any]] = {
    "retrieval": {"queue": 5, "momentum": 0.9},
    "clip": {"queue": 5, "momentum": 0.9},
}
STRENGTH = {"temperature": 5.0, "prune_share": 0.3, "factor": 1.0, "distance": 0.5}


def step(kind: str, again: bool | str, distill: float = 0.0, **madtp: Any) -> dict[str, Any]:
    """One training step of a nano model with dropout: loss, gradients, trace, draws, bytes kept for backward."""
    task, model = nano_task(kind, **OPTIONS.get(kind, {})), nano(kind, 3, **madtp)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    teacher = Teacher(model, distill) if distill else None
    if again == "host":
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    elif again:
        model.checkpoint_blocks()
    data = samples(task.name, "train", 5)
    dataset = task.dataset(data, training=True, per_image=2)
    helper = task.helper(model, 7, 0)
    model.train()
    if helper is not None:
        helper.train()
    weights = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *(helper or model).parameters()]}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    torch.manual_seed(11)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss, logs, trace = task.loss(model, task.collate([dataset[i] for i in range(5)]), helper, teacher)
    kept_bytes = sum(kept.values())
    with torch.autocast("cpu", enabled=False):  # as training has it
        loss.backward()
    return {
        "loss": loss.detach(),
        "logs": logs,
        "grads": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        "steps": [trace.steps(i) for i in range(5)],
        "drawn": torch.rand(3),
        "bytes": kept_bytes,
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert torch.equal(a["loss"], b["loss"]) and a["logs"] == b["logs"] and a["steps"] == b["steps"]
    assert torch.equal(a["drawn"], b["drawn"]), "the random state after backward is as if nothing had run again"
    assert a["grads"].keys() == b["grads"].keys() and len(a["grads"]) > 20
    for name, grad in a["grads"].items():
        assert torch.equal(grad, b["grads"][name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_gradients_for_less_memory(kind: str) -> None:
    """A pruned model of every family, dropout on, with a teacher that follows its tokens."""
    settings = {"distill": 2.0, "temperature": 5.0, "straight_through": 0.3}
    plain, again = step(kind, False, **settings), step(kind, True, **settings)
    assert any(before > after for _, before, after in plain["steps"][0]), "it prunes"
    same(plain, again)
    assert again["bytes"] < 0.7 * plain["bytes"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_decides_alike_the_second_time(method: str) -> None:
    """Random draws, sizes of merged tokens and semantic features are those with which each block began."""
    settings = {"method": method, "temperature": STRENGTH[METHODS[method].knob]}
    same(step("vqa", False, **settings), step("vqa", True, **settings))


@pytest.mark.parametrize("kind", ["vqa", "retrieval"])
def test_dense(kind: str) -> None:
    """Retrieval's momentum towers then run without gradient."""
    same(step(kind, False), step(kind, True))


def test_in_half_precision() -> None:
    """Autocast is in force the second time, too."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, again = step("vqa", False, temperature=5.0), step("vqa", True, temperature=5.0)
    same(plain, again)
    assert not torch.equal(plain["loss"], step("vqa", False, temperature=5.0)["loss"])


def test_as_the_host_has_it() -> None:
    """What transformers' `Trainer` calls for its own `gradient_checkpointing=True`."""
    settings = {"temperature": 5.0}
    plain, again = step("vqa", False, **settings), step("vqa", "host", **settings)
    same(plain, again)
    assert again["bytes"] < 0.7 * plain["bytes"]
