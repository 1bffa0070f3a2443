"""Visual reasoning equals the method's public implementation, each image alone: see tests/golden/README.md."""

from typing import Any

import pytest
import torch

from goldens import META, TEMPERATURES, close, expected, golden, same_rows
from model.golden_models import first_ids, golden_model

CASE = "nlvr"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return golden_model(CASE, tmp_path_factory.mktemp("golden") / CASE)


@torch.no_grad()
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_reasoning(model: Any, temperature: float) -> None:
    io, theirs = golden(f"{CASE}.io"), expected(CASE, temperature)
    ids = io["input_ids"].clone()
    ids[:, 0] = first_ids(CASE)[0]
    model.temperature = temperature or None
    out = model(ids, io["image"], labels=io["targets"], align=True)
    assert close(out.logits, theirs["logits_independent"])
    assert close(out.loss_align, theirs["loss_align_independent"])
    assert close(out.loss_task, torch.nn.functional.cross_entropy(theirs["logits_independent"], io["targets"]))
    assert close(out.loss, out.loss_task + 0.1 * out.loss_align)
    for i in range(2):
        tokens, image = out.encoded.image.instance(i), theirs[f"image{i}_embeds"][0]
        assert close(tokens[0], image[0])
        assert same_rows(tokens[1:], image[1:])
        assert out.trace.tower("vision")[-1].tokens_out[i] == len(image) - 1
    steps = [list(step) for step in out.trace.steps() if step[0] == "text"]
    if temperature:
        assert steps == META["cases"][CASE]["trace"][f"{temperature}.text_independent"]
    else:
        assert len(steps) == META["config"]["tdepth"]
        assert all(before == after for _, before, after in steps)
    assert out.trace.image_index.tolist() == [[0, 1]]
