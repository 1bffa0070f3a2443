"""CLIP's towers, equal to the method's public implementation through the converter: see tests/golden/README.md."""

import json
from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from goldens import golden_file
from madtp.model.clip import MadtpCLIPModel
from madtp.model.convert_clip import clip_config, map_clip_keys
from madtp.model.convert_names import ConvertedInfo

TOLERANCE = 1e-4
META = json.loads(golden_file("meta.json").read_text(encoding="utf-8"))
CASE = META["cases"]["clip"]
TEMPERATURES = META["temperatures"]


@cache
def golden(name: str) -> dict[str, Tensor]:
    return load_file(golden_file(f"clip.{name}.safetensors"))


@pytest.fixture(scope="module")
def clip() -> Any:
    state, info = map_clip_keys(golden("weights"))
    assert info == ConvertedInfo(len(state), (), len(golden("weights")["space_dict"]))
    assert CASE["vision_heads"] == CASE["text_heads"]
    model = MadtpCLIPModel(clip_config(state, info, heads=CASE["vision_heads"])).eval()
    model.load_state_dict(state)
    return model


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool(torch.allclose(ours, theirs, rtol=0, atol=TOLERANCE))


@torch.no_grad()
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_image_tower(clip: Any, temperature: float) -> None:
    clip.temperature = temperature or None
    io = golden("io")
    seen = clip.see(io["image"], align=True)
    steps = [list(step) for step in seen.trace.steps()]
    if temperature:
        assert steps == CASE["trace"][str(temperature)]
    else:  # dense: one entry a block, nothing pruned
        assert steps == [["vision", steps[0][1], steps[0][1]]] * META["config"]["vdepth"]
    assert close(seen.feature, io[f"t{temperature}.image_feat"])
    assert close(seen.semantic, io[f"t{temperature}.image_semantic_sum"])


@torch.no_grad()
def test_text_tower(clip: Any) -> None:
    clip.temperature = None
    io = golden("io")
    text = clip.read(io["text_ids"])
    assert close(text.feature, io["text_feat_unpruned"])
    assert text.states.lengths.tolist() == [1 + int(io["text_ids"].argmax())]  # cut behind the end token
    assert close(normalize(clip.get_text_features(io["text_ids"]).pooler_output, dim=-1), io["text_feat_unpruned"])
