"""Peak memory of a piece of work beyond what was there before it: its activations."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):
    """Bytes of the tensors' memory made within, while they live. Kernels' own scratch memory is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):  # what was there before is none of the work's
            self._known.add(storage)
        out = func(*args, **kwargs)
        for storage in _storages(out):
            if storage not in self._known:
                self._known.add(storage)
                size = storage.nbytes()
                self.now += size
                weakref.finalize(storage, self._free, size)
        self.peak = max(self.peak, self.now)
        return out

    def _free(self, size: int) -> None:
        self.now -= size


def _storages(tree: Any) -> list[Any]:
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.layout is torch.strided]
    return [tensor.untyped_storage() for tensor in tensors]


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes of activations at any time while `work` runs once: parameters and inputs are not counted.

    On a GPU what torch's allocator held at most beyond what it held at the start; on the CPU the memory of all tensors
    that operators returned.
    """
    if torch.cuda.is_available() and torch.cuda.memory_allocated():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    with _Live() as live:
        work()
    return live.peak
