"""Captioning equals the method's public implementation: see tests/golden/README.md."""

from typing import Any

import pytest
import torch

from goldens import META, TEMPERATURES, close, expected, golden, same_rows
from model.golden_models import first_ids, golden_model

CASE = "caption"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return golden_model(CASE, tmp_path_factory.mktemp("golden") / CASE)


@torch.no_grad()
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_caption(model: Any, temperature: float) -> None:
    io, theirs = golden(f"{CASE}.io"), expected(CASE, temperature)
    ids = io["caption_ids"].clone()
    ids[:, 0] = first_ids(CASE)[1]
    labels = ids.clone()
    labels[:, : META["cases"][CASE]["prompt_length"]] = -100
    model.temperature = temperature or None
    out = model(io["image"], ids, labels=labels)
    assert close(out.logits, theirs["logits"])
    assert close(out.loss_task, theirs["loss_task"])
    assert out.loss is out.loss_task
    tokens, image = out.encoded.image.instance(0), theirs["image_embeds"][0]
    assert close(tokens[0], image[0])
    assert same_rows(tokens[1:], image[1:])
    steps = [list(step) for step in out.trace.steps()]
    if temperature:
        assert steps == META["cases"][CASE]["trace"][str(temperature)]
    else:
        assert len(steps) == META["config"]["vdepth"]
        assert all(before == after for _, before, after in steps)
