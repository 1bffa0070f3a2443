"""A training step of which each process holds a part: weights, gradients and optimiser state (FSDP).

Torch's `fully_shard` on every block, and on the rest as one. The whole weights come together block by block as they are
needed, gradients are the means over the processes as everywhere. What is no training step (validation, calibration,
saving) works on a whole copy of the model, which takes over the weights before.

Momentum towers are shared out as the model they follow.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import is_torch_version
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from madtp.errors import InputError
from madtp.model.recompute import layers_of
from madtp.task.gather import mean_of, world
from madtp.task.step import TrainingStep


def apart(accelerator: Accelerator, model: Any) -> Any:
    """A copy of a model, to be sharded; both prune alike at any time. The model itself will be off the device.

    Raises:
        InputError: there is one process, fp16 is asked for, or torch is too old.
    """
    if world()[1] == 1:
        raise InputError("shares a model out to several processes", "--fsdp", "start it by torchrun, or leave it out")
    if accelerator.mixed_precision == "fp16":
        raise InputError("does not go with --fsdp", "--precision fp16", "use bf16")
    if not is_torch_version(">=", "2.13"):  # before, it did not look for tensors in ragged batches
        raise InputError("needs torch 2.13 or newer", "--fsdp", "leave it out, or update torch")
    model.cpu().train()  # packed weights would not follow those that are trained
    other = copy.deepcopy(model)
    other.config = model.config
    return other


def shard(accelerator: Accelerator, step: TrainingStep) -> nn.Module:
    """The step, in place, each process with its part of what is trained and of what follows it."""
    mesh = init_device_mesh(accelerator.device.type, (world()[1],))
    numbers = {p for p in step.parameters() if not p.ndim}  # temperatures: there is nothing to share out
    for number in numbers:
        number.data = number.data.to(accelerator.device)
    towers = getattr(step.helper, "towers", None)
    for layer in (*layers_of(step.model), *([] if towers is None else layers_of(towers))):
        fully_shard(layer, mesh=mesh)
    fully_shard(step, mesh=mesh, ignored_params=numbers)
    step.even = True
    if towers is not None:
        _lead(step, towers)
    return step


def _lead(step: Any, towers: nn.Module) -> None:
    """Move the momentum towers before every step, and have all processes ask for their blocks alike."""
    helper = step.helper
    helper.led = True

    def follow(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        # once the step has begun, what is no block's is whole, and what is done to it is lost
        if step.training and not kwargs.get("tagging"):
            step.reshard()
            helper.follow()

    def even(_: nn.Module, args: Any) -> Any:
        # Their blocks learn nothing, and backward goes through them from where semantic tokens had a say in the
        # pruning on: other blocks in other processes, which would wait for each other. So it goes through all; without
        # it, their weights would not be there for checkpointing either.
        x, *others = args
        if torch.is_grad_enabled() and not x.values.requires_grad:
            x = x.with_values(x.values.detach().requires_grad_())
        return x, *others

    step.register_forward_pre_hook(follow, prepend=True, with_kwargs=True)  # before the hook that makes it whole
    for layer in layers_of(towers):
        layer.register_forward_pre_hook(even, prepend=True)
    for blocks in towers.modules():
        if isinstance(blocks, nn.ModuleList) and len(blocks) and isinstance(blocks[-1], GradientCheckpointingLayer):
            # No gradient comes to what a tower's last block gives, so backward never has its weights together to run
            # it again; nor needs them, for what is kept of it is what the semantic tokens gathered before them.
            blocks[-1].gradient_checkpointing = False


def is_part(x: Tensor) -> bool:
    """Whether a tensor is sharded."""
    return isinstance(x, DTensor)


def whole(x: Tensor) -> Tensor:
    """A sharded tensor whole, in all processes, which must all ask for it; another as it is."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def part_of(x: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that all have, shared out as `like` is; `x` itself where that is whole."""
    x = x.to(like.device)
    if not isinstance(like, DTensor):
        return x
    return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def gather_weights(model: nn.Module, sharded: nn.Module) -> None:
    """Have the whole model hold the weights of its sharded copy, if it has one. All processes must call it."""
    if sharded is model:
        return
    parts = dict(sharded.named_parameters())
    for name, parameter in model.named_parameters():
        parameter.copy_(whole(parts[name].detach()))


@torch.no_grad()
def scatter_weights(model: nn.Module, sharded: nn.Module) -> None:
    """Have the sharded copy, if there is one, hold the weights of the whole model, alike in all processes."""
    if sharded is model:
        return
    parts = dict(sharded.named_parameters())
    for name, parameter in model.named_parameters():
        parts[name].copy_(part_of(parameter.detach(), parts[name].detach()))


def gather_helper(helper: nn.Module | None) -> dict[str, Any] | None:
    """The state dictionary of what is trained beside the model, with whole tensors. All processes must call it."""
    if helper is None:
        return None
    return {name: whole(x).cpu() if isinstance(x, DTensor) else x for name, x in helper.state_dict().items()}


def scatter_helper(helper: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """This process's parts of what `gather_helper` gave, for `load_state_dict`."""
    mine = helper.state_dict()
    return {name: part_of(x, mine[name]) if name in mine else x for name, x in state.items()}


def gather_optimizer(optimizer: Any) -> dict[str, Any]:
    """The state dictionary of an optimiser with whole tensors, on the CPU where they were sharded."""
    state: dict[str, Any] = optimizer.state_dict()
    held = {
        number: {name: whole(x).cpu() if isinstance(x, DTensor) else x for name, x in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": held}


def scatter_optimizer(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The parts of this process's parameters of what `gather_optimizer` gave, for `load_state_dict`."""
    parameters = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    held = {
        number: {name: part_of(x, parameters[number]) if x.ndim else x for name, x in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": held}


@torch.no_grad()
def clip_parts(trained: Iterable[Tensor], clipped: Iterable[Tensor], most: float) -> float:
    """Average the gradients of what is not sharded, and clip: `torch.nn.utils.clip_grad_norm_` on parts.

    Args:
        trained: all parameters.
        clipped: those whose gradient's norm is clipped.
        most: largest norm.

    Returns:
        The norm before, of the whole gradient, the same in all processes.
    """
    for p in trained:
        if p.grad is not None and not isinstance(p.grad, DTensor):
            p.grad = mean_of(p.grad)
    grads = [p.grad for p in clipped if p.grad is not None]
    mine = [grad.to_local() for grad in grads if isinstance(grad, DTensor)]
    common = [grad for grad in grads if not isinstance(grad, DTensor)]
    square = torch.zeros((), dtype=torch.float64, device=grads[0].device if grads else None)
    for part in mine:
        square += part.double().square().sum()
    dist.all_reduce(square)
    for part in common:
        square += part.double().square().sum()
    norm = float(square.sqrt())
    if norm > most:
        for part in (*mine, *common):
            part.mul_(most / (norm + 1e-6))
    return norm
