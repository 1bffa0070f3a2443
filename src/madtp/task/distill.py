"""A dense teacher for a model that is compressed: what it puts out, and its tokens, are further targets.

Outputs as in Hinton et al., "Distilling the knowledge in a neural network" (2015); tokens as in Rao et al.,
"DynamicViT" (NeurIPS 2021), section 3.3, but for merged ones: they shall equal the mean of the teacher's tokens that
they stand for, by the weights they carry.
"""

import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from madtp.model.output import ImageSide, TextSide
from madtp.model.ragged import Ragged
from madtp.prune import Provenance, Trace
from madtp.task.gather import gather, weigh, world


class Teacher:
    """A dense, frozen copy of a model, and how far another one is from it.

    Args:
        model: to copy, as it is now.
        weight: of the distance in the training loss.
    """

    def __init__(self, model: Any, weight: float) -> None:
        self.model: Any = copy.deepcopy(model).eval().requires_grad_(False)
        self.model.temperature = None
        self.weight = weight

    def to(self, device: torch.device) -> None:
        """Move the copy."""
        self.model.to(device)

    def distance(self, output: Any, arguments: dict[str, Any]) -> Tensor:
        """Of a model that joins its towers: both towers' tokens, and the logits.

        Args:
            output: of the model's forward, with provenance and `arguments`.
            arguments: with which to ask the teacher. Next-token logits count where `labels [a, l]` are known.
        """
        with torch.no_grad():
            wanted = self.model(**arguments)
        mine, theirs = output.encoded, wanted.encoded
        total = tower_distance("vision", mine.image, theirs.image, output.trace)
        if mine.question is not None:
            total = total + tower_distance("text", mine.question, theirs.question, output.trace)
        logits, targets = output.logits, wanted.logits
        if logits.dim() == 3:
            known = arguments["labels"][:, 1:] != -100
            logits, targets = logits[:, :-1][known], targets[:, :-1][known]
        return total + divergence(logits, targets)

    def pair_distance(
        self,
        image: ImageSide,
        text: TextSide,
        pixel_values: Float[Tensor, "b 3 height width"],
        input_ids: Int[Tensor, "b l"],
        attention_mask: Int[Tensor, "b l"] | None,
        temperature: Tensor,
    ) -> Tensor:
        """Of a model whose towers run apart: both towers' tokens, and the similarities within a batch of pairs.

        Args:
            image, text: what the model's towers gave, with provenance.
            pixel_values, input_ids, attention_mask: with which to ask the teacher.
            temperature: similarities are divided by it.
        """
        with torch.no_grad():
            seen, read = self.model.see(pixel_values), self.model.read(input_ids, attention_mask)
        towers = tower_distance("vision", image.tokens, seen.tokens, image.trace) + tower_distance(
            "text", text.states, read.states, text.trace
        )
        scale = temperature.detach()
        sides = ((image, text), (seen, read))
        mine, theirs = (i.feature @ gather(t.feature).T / scale for i, t in sides)
        back, wanted = (t.feature @ gather(i.feature).T / scale for i, t in sides)
        return towers + (divergence(mine, theirs) + divergence(back, wanted)) / 2


def joined_loss(
    model: Any, arguments: dict[str, Any], teacher: Teacher | None, known: int | Tensor
) -> tuple[Tensor, dict[str, float], Trace]:
    """Training loss of a model that joins its towers, numbers to log, and the trace.

    Args:
        model: to be trained.
        arguments: of its forward, labels included.
        teacher: how far the model is from it is part of the loss; None = it is not.
        known: what the task's loss is a mean over, so many of them.
    """
    output = model(**arguments, provenance=teacher is not None)
    parts = {"loss_task": output.loss_task, "loss_align": output.loss_align}
    loss = output.loss
    if world()[1] > 1:  # the means of this process count as much as they stand for
        parts["loss_task"] = loss = output.loss_task * weigh(known, loss.device)
        if output.loss_align is not None:
            parts["loss_align"] = output.loss_align * weigh(len(arguments["input_ids"]), loss.device)
            loss = loss + model.pruning.alpha * parts["loss_align"]
    if teacher is not None:
        parts["loss_distill"] = teacher.distance(output, arguments)
        loss = loss + teacher.weight * parts["loss_distill"]
    return loss, {name: float(part.detach()) for name, part in parts.items() if part is not None}, output.trace


def tower_distance(tower: str, mine: Ragged, theirs: Ragged, trace: Trace) -> Tensor:
    """Mean squared distance of a tower's tokens and what they stand for among the dense tower's, each normalised.

    Args:
        tower: "vision" or "text", as in the trace.
        mine: the tokens left.
        theirs: the dense tower's tokens of the same instances.
        trace: with provenance.
    """
    last = trace.tower(tower)[-1]
    assert last.provenance is not None, "distillation follows tokens: run the model with provenance=True"
    x, y = (F.layer_norm(v.float(), v.shape[-1:]) for v in (mine.values, stands_for(mine, theirs, last.provenance)))
    return F.mse_loss(x, y) * weigh(len(x), x.device)


@torch.no_grad()
def stands_for(mine: Ragged, theirs: Ragged, where: Provenance) -> Float[Tensor, "t c"]:
    """The mean of the dense tower's tokens that each token left stands for, weighted by their shares in it.

    Protected tokens, the first of an instance and those behind its content, stand for themselves.
    """
    device, dtype = theirs.values.device, theirs.values.dtype
    content, extra = where.lengths, theirs.lengths - where.lengths  # of each instance: to be pruned, protected
    start, my_start = (x.lengths.cumsum(0) - x.lengths for x in (theirs, mine))
    place = torch.arange(len(where.owner)) - (content.cumsum(0) - content).repeat_interleave(content)
    source = [start.repeat_interleave(content) + 1 + place, start]
    target = [my_start.repeat_interleave(content) + where.owner.cpu(), my_start]
    for back in range(1, int(extra.max())):
        source.append(start + theirs.lengths - back)
        target.append(my_start + mine.lengths - back)
    from_, to = torch.cat(source).to(device), torch.cat(target).to(device)
    share = torch.ones(len(to), device=device, dtype=dtype)
    share[: len(where.share)] = where.share.to(dtype)
    total = theirs.values.new_zeros(mine.values.shape)
    total.index_add_(0, to, theirs.values.index_select(0, from_) * share[:, None])
    weight = share.new_zeros(len(total)).index_add_(0, to, share)
    return total / weight.clamp(min=torch.finfo(dtype).tiny)[:, None]


def divergence(logits: Float[Tensor, "n c"], wanted: Float[Tensor, "n c"]) -> Tensor:
    """Mean Kullback-Leibler divergence from the teacher's distribution, 0 or more; 0 = the same."""
    mine, theirs = (x.float().log_softmax(-1) for x in (logits, wanted))
    mean = F.kl_div(mine, theirs, log_target=True, reduction="sum") / max(1, len(logits))
    return mean * weigh(len(logits), logits.device)
