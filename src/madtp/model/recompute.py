"""Gradient checkpointing of pruned blocks: only their inputs are kept for backward, which runs them again.

A block writes into its `Pruner`, and reads what the block before wrote. So it is run again on the pruner as it was when
the block began, with a trace that nobody reads; dropout and random methods draw again what they drew. The decisions
are then those of the first run, for the same numbers go in.
"""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from madtp.model.block import Pruner
from madtp.model.ragged import Ragged
from madtp.prune import Trace


def run_again(block: Callable[..., Ragged], x: Ragged, *others: Any) -> Ragged:
    """`block(x, *others)`, one of `others` its tower's pruner, to be run again in backward.

    In the place of the `checkpoint` that transformers calls for its own layers.
    """
    (place,) = (i for i, other in enumerate(others) if isinstance(other, Pruner))
    entered, again, lengths = copy.copy(others[place]), False, None

    def run(values: Tensor) -> Tensor:
        nonlocal again, lengths
        given = list(others)
        if again:  # early or often, as backward asks for it
            given[place] = copy.copy(entered)
            given[place].trace, given[place].provenance, given[place].record = Trace(), False, False
        again = True
        out = block(x.with_values(values), *given)
        lengths = out.lengths
        return out.values

    values: Tensor = checkpoint(run, x.values, use_reentrant=False)
    assert lengths is not None
    return Ragged(values, lengths)


class PrunedBlock:
    """Mixin, first of the bases, of a block of a pruned tower: called `block(x, ..., pruner, ...)`."""


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model's towers and of its decoder."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def recompute(model: nn.Module) -> None:
    """Have the blocks of a model's pruned towers run again by `run_again`; the host has set its own for all layers."""
    for module in model.modules():
        if isinstance(module, PrunedBlock):
            module._gradient_checkpointing_func = run_again  # type: ignore[assignment]
