"""Peak memory: what is alive at once counts, and nothing else."""

import torch

from madtp.cost.memory import peak_bytes


def test_what_lives_at_once() -> None:
    def work() -> None:
        a = torch.zeros(1009)
        b = a + 1
        del a
        c = b.view(1009, 1)  # the same memory
        d = c * 2
        _ = d + c

    assert peak_bytes(work) == 3 * 4 * 1009
    with torch.inference_mode():
        assert peak_bytes(work) == 3 * 4 * 1009


def test_what_was_there_before_does_not_count() -> None:
    x = torch.zeros(1013, dtype=torch.float64)
    assert peak_bytes(lambda: x.view(-1)) == 0
    assert peak_bytes(lambda: x.add_(1)) == 0
    assert peak_bytes(lambda: x + 1) == 8 * 1013
