"""One step's loss as a module, so that whatever spreads it over processes sees all that is trained."""

import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import Tensor, nn

from madtp.data.order import Part
from madtp.data.sample import Data
from madtp.data.stream import Stream
from madtp.errors import InputError
from madtp.model.save import save_model
from madtp.prune import METHODS, Trace
from madtp.task.base import Batch, Task
from madtp.task.distill import Teacher


class TrainingStep(nn.Module):
    """`step(batch) -> loss, numbers to log, trace` of the batch, or of this process's part of it.

    Over several processes the mean of the losses is that of the global batch, and so are their mean gradients.

    Args:
        model: to be trained.
        task: whose loss it is.
        helper: what is trained beside the model (`Task.helper`).
        teacher: a dense model to stay near to.

    Attributes:
        even: the guidance has a gradient in every process that prunes, be it 0: where nothing of one process's part of
            a batch was pruned, it would have none, and the others would wait for it.
    """

    def __init__(self, model: Any, task: Task, helper: nn.Module | None, teacher: Teacher | None) -> None:
        super().__init__()
        self.model: Any = model
        self.helper = helper
        self.task, self.teacher = task, teacher
        self.even = False

    def forward(self, batch: Batch, tagging: bool = False) -> tuple[Tensor, dict[str, float], Trace | None]:
        """`tagging`: the loss of the first epochs, of the image tower alone."""
        if tagging:
            loss = self.task.tagging_loss(self.model, batch)
            return loss, {"loss_tags": float(loss.detach())}, None
        loss, logs, trace = self.task.loss(self.model, batch, self.helper, self.teacher)
        if self.even and self.model.temperature is not None and METHODS[self.model.pruning.method].guided:
            loss = loss + 0 * torch.stack([p.sum() for p in self.model.madtp_guidance.parameters()]).sum()
        return loss, logs, trace


def check_run(processes: int, model: Any, task: Task, train: Data[Any] | Stream, val: Data[Any]) -> None:
    """Raises InputError for what cannot be trained on, or not by so many processes."""
    if len(train) < processes:
        raise InputError(f"{len(train)} pictures for more processes", f"{train.name} {train.split}")
    for part in (train, val):
        if part.hidden:
            said = f"{part.hidden} {task.text_name} without truth"
            raise InputError(said, f"{part.name} {part.split}", "train and validate on what is known")
    if processes > 1 and model.pruning.alignment == "contrastive":
        said = "contrasts the texts of one process, not those of all"
        raise InputError(said, "--alignment", "use cosine, or a single process")


# Dense steps use no semantic tokens; what a helper remembers is the same everywhere, and large.
SPREAD = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)


def prepared(accelerator: Accelerator, step: TrainingStep) -> nn.Module:
    """The step on its device, its gradients averaged over the processes. Raises InputError where that cannot be."""
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise InputError(f"{accelerator.distributed_type} is not supported", "accelerate", "start it by torchrun alone")
    with warnings.catch_warnings():  # the setting's new name is not known to accelerate
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        module: nn.Module = accelerator.prepare_model(step)
    return module


def write_model(accelerator: Accelerator, model: Any, processor: Any, out: Path) -> None:
    """The first process writes the model folder; when this returns, all can read it."""
    if accelerator.is_main_process:
        save_model(model, processor, out)
    accelerator.wait_for_everyone()


def steps_of_epoch(images: int, batch_size: int, processes: int) -> int:
    """Steps an epoch; a last batch too small for every process to have a part of it is joined to the one before."""
    whole, rest = divmod(images, batch_size * processes)
    return max(1, whole + (rest >= processes))


def rest_of_epoch(
    data: Data[Any] | Stream, batch_size: int, place: tuple[int, int], seed: int, epoch: int, done: int, workers: int
) -> dict[str, Any]:
    """What this process has to load from an epoch's step `done` on, as `tolerant.stream` takes it."""
    if isinstance(data, Stream):
        steps = steps_of_epoch(len(data), batch_size, place[1])
        return {"part": Part(len(data), batch_size, place, steps, max(1, workers), seed, epoch, done)}
    return {"batch_sampler": order_of_epoch(len(data), batch_size, place, seed, epoch)[done:]}


def order_of_epoch(images: int, batch_size: int, place: tuple[int, int], seed: int, epoch: int) -> list[list[int]]:
    """This process's part of every batch of an epoch, shuffled from (seed, epoch) alone.

    Together the parts of all processes, in the order of their ranks, are the batches of one process with a batch size
    that many times larger.

    Args:
        images: in the data.
        batch_size: images a step and process.
        place: rank, and number of processes.
    """
    rank, processes = place
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    size, steps = batch_size * processes, steps_of_epoch(images, batch_size, processes)
    groups = [order[i * size : (i + 1) * size if i + 1 < steps else images] for i in range(steps)]
    return [group.tensor_split(processes)[rank].tolist() for group in groups]
