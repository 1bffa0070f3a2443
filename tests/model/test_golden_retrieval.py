"""Retrieval equals the method's public implementation: see tests/golden/README.md."""

from typing import Any

import pytest
import torch

from goldens import META, TEMPERATURES, close, expected, golden
from model.golden_models import first_ids, golden_model

CASE = "retrieval"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return golden_model(CASE, tmp_path_factory.mktemp("golden") / CASE)


@torch.no_grad()
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_retrieval(model: Any, temperature: float) -> None:
    io, theirs = golden(f"{CASE}.io"), expected(CASE, temperature)
    model.temperature = temperature or None
    out = model.encode(io["caption_ids"], io["image"], match=True, match_token_id=first_ids(CASE)[0], align=True)
    assert close(out.image.feature, theirs["image_feat"])
    assert close(out.text.feature, theirs["text_feat"])
    assert close(out.logits, theirs["itm_logits"])
    steps = out.trace.steps()
    vision, text = META["config"]["vdepth"], META["config"]["tdepth"]
    assert [tower for tower, _, _ in steps] == ["vision"] * vision + ["text"] * text + ["match"] * text
    if temperature:  # at 0 the public code reports another loss, and no trace
        assert close(out.alignment[0], theirs["loss_align"])
        counts = [[before, after] for _, before, after in steps]
        assert counts == [count for _, *count in META["cases"][CASE]["trace"][str(temperature)]]
    else:
        assert all(before == after for _, before, after in steps)
