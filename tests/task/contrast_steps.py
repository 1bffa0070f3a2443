"""Steps of retrieval training in one process or several: what test_contrast.py compares."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from madtp.cli.lost import leave
from madtp.task.contrast import MomentumContrast
from model.tiny import Example, batch_of, tiny_examples
from model.tiny_retrieval import tiny_retrieval

STEPS, PAIRS, QUEUE, ENC, SEED = 3, 5, 7, 97, 13
IDS = [[4, 0, 4, 2, 1], [3, 3, 1, 0, 2], [0, 1, 2, 3, 4]]  # of images; some come twice, or again in a later batch
RATE, MOMENTUM, ALPHA, RAMP = 0.05, 0.7, 0.4, 2
VARIANTS: dict[str, dict[str, Any]] = {
    "momentum": {"queue_size": QUEUE, "momentum": MOMENTUM, "alpha": ALPHA, "ramp_steps": RAMP},
    "plain": {"queue_size": 0, "momentum": None},
}


def make(variant: str, stock: bool = False, **madtp: Any) -> MomentumContrast:
    """A tiny model in its training object, float64, in training mode."""
    model = tiny_retrieval(stock=stock, **{"temperature": 1.0, **madtp})
    contrast = MomentumContrast(model, **VARIANTS[variant], temperature=0.3, match_token_id=ENC, seed=SEED)
    return contrast.double().train()


def pairs_of(step: int) -> dict[str, Tensor]:
    """A batch of pairs with texts of several lengths under padding."""
    generator = torch.Generator().manual_seed(100 + step)
    examples = tiny_examples(generator, PAIRS, most_questions=1, longest=11)
    images = {number: torch.randn(3, *examples[0].image.shape[1:], generator=generator) for number in range(PAIRS)}
    examples = [Example(images[i], e.questions, e.answers) for i, e in zip(IDS[step], examples, strict=True)]
    batch = batch_of(examples, generator, torch.float64)
    names = ("pixel_values", "input_ids", "attention_mask")
    return {name: batch[name] for name in names} | {"image_ids": torch.tensor(IDS[step])}


@dataclass
class Done:
    """What steps of training gave: losses and averaged gradients of each, and the state in the end."""

    losses: list[list[Tensor]] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    state: dict[str, Tensor] = field(default_factory=dict)


def average(x: Tensor) -> Tensor:
    """Over the processes."""
    if dist.is_initialized():
        dist.all_reduce(x)
        x /= dist.get_world_size()
    return x


def train(variant: str, rows: slice = slice(None)) -> Done:
    """Gradient descent on `rows` of every batch."""
    contrast, done = make(variant), Done()
    for step in range(STEPS):
        losses = contrast(**{name: value[rows] for name, value in pairs_of(step).items()})
        contrast.zero_grad()
        losses.total(0.1).backward()
        done.losses.append([average(loss.detach().clone()) for loss in losses[:4] if loss is not None])
        trained = {name: p for name, p in contrast.named_parameters() if p.requires_grad}
        done.gradients.append({name: average(p.grad).clone() for name, p in trained.items()})
        with torch.no_grad():
            for p in trained.values():
                p -= RATE * p.grad
    done.state = contrast.state_dict()
    return done


def process(rank: int, folder: str) -> None:
    """One of two processes, the second of which has a pair more; leaves its results in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for variant in VARIANTS:
        done = train(variant, slice(0, 2) if rank == 0 else slice(2, PAIRS))
        torch.save(vars(done), Path(folder) / f"{variant}.{rank}.pt")
    leave(0)
