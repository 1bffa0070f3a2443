"""Settings of a training run, and what follows from them alone: learning rate and optimiser."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from madtp.cost.budget import check_reduction
from madtp.errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. Saved with its checkpoint: a resumed run must have the same.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a batch and process.
        texts: most texts (questions, statements, captions) of a sample in one epoch, drawn anew each time; 0 = all.
        lr: peak learning rate of AdamW; linear warm-up over the first `warmup` share of the steps, then a cosine to 1%.
        weight_decay: on matrices alone (not on norms, biases, embeddings of position).
        clip: largest gradient norm.
        accumulate: batches a step.
        precision: "no" (float32), "bf16" or "fp16".
        shift: training images are moved by up to so many pixels.
        seed: of weights, order and draws.
        val_images: images of the validation split used after each epoch; 0 = all.
        eval_every: epochs between validations.
        save_every: steps between checkpoints.
        keep: checkpoints that are kept, the newest included.
        workers: processes that load pictures; 0 = this one does. The run is the same whatever their number, but for
            streamed shards, which they share out.
        bad_steps: so many steps in a row without a finite loss and gradient end the run.
        reductions: budgets to compress to, taken in turn step by step; 0 among them = also train the dense model;
            none = leave the temperature alone. With several, one model serves all, and its temperature meets the last.
        tag_epochs: first epochs in which the image tower trains alone, on the tagging loss; for towers from scratch.
        ramp: share of the steps over which the target rises to it.
        distill: weight of the distance to the dense model that a compression starts from; 0 = it is let go.
        gradient_checkpointing: keep the blocks' inputs alone for backward and run the blocks again there.
        fsdp: share weights, gradients and optimiser state out to the processes.
    """

    epochs: int = 10
    batch_size: int = 16
    texts: int = 6
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "no"
    shift: int = 0
    seed: int = 0
    val_images: int = 0
    eval_every: int = 1
    save_every: int = 100
    keep: int = 2
    workers: int = 0
    bad_steps: int = 10
    reductions: tuple[float, ...] = ()
    tag_epochs: int = 0
    ramp: float = 0.3
    distill: float = 0.0
    gradient_checkpointing: bool = False
    fsdp: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "eval_every", "save_every", "keep", "bad_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{getattr(self, name)} is too small", f"--{name.replace('_', '-')}", "use 1 or more")
        if self.precision not in ("no", "bf16", "fp16"):
            raise InputError(f"unknown precision {self.precision!r}", "--precision", "one of no, bf16, fp16")
        for budget in self.reductions:
            if budget:
                check_reduction(budget)
        if self.tag_epochs >= self.epochs:
            raise InputError(f"{self.tag_epochs} of {self.epochs}", "--tag-epochs", "leave an epoch for the texts")
        if not self.lr > 0:
            raise InputError(f"{self.lr:g} is not above 0", "--lr")


@dataclass(frozen=True)
class Progress:
    """Where a run is: after a step, or after a validation.

    Attributes:
        step, steps: done, and to do in all.
        epoch: from 0.
        loss: of the step; NaN after a validation.
        note: for a display.
        value: after a validation, the task's main metric, the mean over the budgets.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    note: str = ""
    value: float | None = None


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to 1% of the peak."""
    warm = max(1, int(config.warmup * steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return config.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def make_optimizer(parameters: Mapping[str, Any], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over parameters by name; weight decay on matrices alone."""
    plain = {n for n, p in parameters.items() if p.ndim < 2 or "position_embedding" in n or "class_embedding" in n}
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in parameters.items() if n not in plain], "weight_decay": config.weight_decay},
        {"params": [p for n, p in parameters.items() if n in plain], "weight_decay": 0.0},
    ]
    if config.fsdp:  # no kernel takes parts and whole tensors at once, and those without a dimension are whole
        some, numbers = ([p for p in groups[1]["params"] if bool(p.ndim) is shared] for shared in (True, False))
        groups[1]["params"] = some
        groups += [{"params": numbers, "weight_decay": 0.0}] if numbers else []
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)
