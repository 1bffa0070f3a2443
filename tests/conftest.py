"""What every test has: no network, one thread, fixed seeds; tests marked `gpu` are skipped without a device."""

import os
import random
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import torch

# Before torch or transformers is imported. One thread: the tensors are tiny, and sums then come in a fixed order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"

# The same examples in every run, on a slow machine too.
settings.register_profile("madtp", deadline=None, derandomize=True, database=None)
settings.load_profile("madtp")

SEED = 20240229


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if "gpu" in item.keywords]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The global generators, of which model initialisation draws, start every test alike."""
    random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)


@pytest.fixture
def generator() -> "torch.Generator":
    """A seeded generator of the test's own."""
    import torch

    return torch.Generator().manual_seed(SEED)


@pytest.fixture(autouse=True, scope="session")
def offline() -> Iterator[None]:
    """A connection that leaves this machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6} and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            self.close()
            raise RuntimeError(f"tests run without a network, this one connects to {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield
