"""The alignment loss that a model's settings name: of the paper, or over the batch, in every model with two towers."""

import pytest
import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.evaluate import batches
from madtp.model.config import PruneConfig
from madtp.task.step import check_run
from small import KINDS, nano, nano_task, samples

TWO_TOWERS = [kind for kind in KINDS if kind != "caption"]


@torch.no_grad()
def losses(kind: str, count: int, alignment: str) -> Tensor:
    """Of two texts of each of so many pictures (or pairs of them)."""
    task = nano_task(kind)
    data = samples("retrieval" if kind == "clip" else kind, "val", count)
    (batch,) = batches(task, data, count, torch.device("cpu"))
    model = nano(kind, temperature=8.0, alignment=alignment)
    inputs = {key: value for key, value in task.inputs(batch).items() if key != "match"}
    return model.encode(**inputs, align=True).alignment


@pytest.mark.parametrize("kind", TWO_TOWERS)
def test_contrastive_is_over_other_pictures(kind: str) -> None:
    assert losses(kind, 1, "contrastive").tolist() == [0, 0]  # there is no other picture
    several = losses(kind, 3, "contrastive")
    assert several.shape == (6,)
    assert bool((several > 0).all())
    plain = losses(kind, 1, "cosine")
    assert bool((plain > 0).all())
    torch.testing.assert_close(losses(kind, 3, "cosine")[:2], plain, atol=1e-5, rtol=0)  # which does not hang on others


def test_only_what_is_known() -> None:
    with pytest.raises(InputError, match=r"unknown 'cosin'.*cosine, contrastive"):
        PruneConfig(alignment="cosin")


def test_several_processes_contrast_nothing() -> None:
    task, data = nano_task("vqa"), samples("vqa", "val", 3)
    check_run(2, nano("vqa", alignment="cosine"), task, data, data)
    check_run(1, nano("vqa", alignment="contrastive"), task, data, data)
    with pytest.raises(InputError, match="texts of one process"):
        check_run(2, nano("vqa", alignment="contrastive"), task, data, data)
    with pytest.raises(InputError, match="3 pictures for more processes"):
        check_run(5, nano("vqa"), task, data, data)
