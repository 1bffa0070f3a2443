"""The record of a run."""

import torch

from madtp.prune import BlockTrace, Provenance, Trace


def test_provenance_of_an_instance() -> None:
    owner, share = torch.tensor([1, 2, 1, 3, 3, 4]), torch.tensor([1.0, 1.0, 1.0, 0.25, 0.75, 0.5])
    where = Provenance(torch.tensor([2, 0, 3, 1]), owner, share)
    assert [part.tolist() for part in where.of(0)] == [[1, 2], [1.0, 1.0]]
    assert [part.tolist() for part in where.of(1)] == [[], []]
    assert [part.tolist() for part in where.of(2)] == [[1, 3, 3], [1.0, 0.25, 0.75]]
    assert [part.tolist() for part in where.of(3)] == [[4], [0.5]]


def test_towers_and_steps_in_order() -> None:
    def block(tower: str, index: int, tokens_in: list[int], tokens_out: list[int]) -> BlockTrace:
        return BlockTrace(tower, index, torch.tensor(tokens_in), torch.tensor(tokens_out))

    blocks = [
        block("vision", 0, [7, 5], [3, 5]),
        block("text", 0, [11, 2], [11, 2]),
        block("vision", 1, [3, 5], [2, 4]),
    ]
    trace = Trace(blocks)
    assert trace.tower("vision") == [blocks[0], blocks[2]]
    assert trace.tower("audio") == []
    assert trace.steps() == [("vision", 7, 3), ("text", 11, 11), ("vision", 3, 2)]
    assert trace.steps(1) == [("vision", 5, 5), ("text", 2, 2), ("vision", 5, 4)]
    assert Trace().steps() == []
