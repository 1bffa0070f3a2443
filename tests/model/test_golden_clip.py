"""CLIP's towers equal the method's public implementation: see tests/golden/README.md."""

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from goldens import META, TEMPERATURES, close, expected, golden
from model.golden_models import golden_model

CASE = "clip"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return golden_model(CASE, tmp_path_factory.mktemp("golden") / CASE)


@torch.no_grad()
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_image_tower(clip: Any, temperature: float) -> None:
    clip.temperature = temperature or None
    theirs = expected(CASE, temperature)
    seen = clip.see(golden(f"{CASE}.io")["image"], align=True)
    steps = [list(step) for step in seen.trace.steps()]
    if temperature:
        assert steps == META["cases"][CASE]["trace"][str(temperature)]
    else:  # dense: one entry a block, nothing pruned
        assert steps == [["vision", steps[0][1], steps[0][1]]] * META["config"]["vdepth"]
    assert close(seen.feature, theirs["image_feat"])
    assert close(seen.semantic, theirs["image_semantic_sum"])


@torch.no_grad()
def test_text_tower(clip: Any) -> None:
    clip.temperature = None
    io = golden(f"{CASE}.io")
    text = clip.read(io["text_ids"])
    assert close(text.feature, io["text_feat_unpruned"])
    assert text.states.lengths.tolist() == [1 + int(io["text_ids"].argmax())]  # cut behind the end token
    assert close(normalize(clip.get_text_features(io["text_ids"]).pooler_output, dim=-1), io["text_feat_unpruned"])
