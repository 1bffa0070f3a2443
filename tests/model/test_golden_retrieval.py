"""Retrieval, equal to the method's public implementation: see tests/golden/README.md."""

import json
from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from goldens import golden_file
from madtp.model.blip_retrieval import MadtpBlipForImageTextRetrieval
from madtp.model.config import MadtpBlipConfig, PruneConfig
from madtp.model.convert import vision_sizes
from madtp.model.convert_names import SEMANTIC_TOKENS, map_vision_keys

TOLERANCE = 1e-4
META = json.loads(golden_file("meta.json").read_text(encoding="utf-8"))
ENC = 201


@cache
def golden(name: str) -> dict[str, Tensor]:
    return load_file(golden_file(f"retrieval.{name}.safetensors"))


@pytest.fixture(scope="module")
def model() -> Any:
    weights = golden("weights")
    state = map_vision_keys(weights)
    own = ("text_encoder.", "vision_proj.", "text_proj.", "itm_head.")
    state |= {k: v.float() for k, v in weights.items() if k.startswith(own) and not k.endswith("position_ids")}
    words, width = state["text_encoder.embeddings.word_embeddings.weight"].shape
    heads = META["config"]["heads"]
    text = {
        "vocab_size": words,
        "hidden_size": width,
        "encoder_hidden_size": len(state["vision_model.embeddings.class_embedding"][0, 0]),
        "intermediate_size": len(state["text_encoder.encoder.layer.0.intermediate.dense.weight"]),
        "num_hidden_layers": META["config"]["tdepth"],
        "num_attention_heads": heads,
        "max_position_embeddings": len(state["text_encoder.embeddings.position_embeddings.weight"]),
    }
    config = MadtpBlipConfig(
        vision_config=vision_sizes(state, heads),
        text_config=text,
        image_text_hidden_size=len(state["vision_proj.weight"]),
        madtp=PruneConfig(semantic_tokens=len(state[SEMANTIC_TOKENS])).to_dict(),
    )
    model = MadtpBlipForImageTextRetrieval(config).eval()
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("temperature", META["temperatures"])
@torch.no_grad()
def test_retrieval(model: Any, temperature: float) -> None:
    io = golden("io")
    expected = {k.removeprefix(f"t{temperature}."): v for k, v in io.items() if k.startswith(f"t{temperature}.")}
    model.temperature = temperature or None
    out = model.encode(io["caption_ids"], io["image"], match=True, match_token_id=ENC, align=True)
    assert torch.allclose(out.image.feature, expected["image_feat"], rtol=0, atol=TOLERANCE)
    assert torch.allclose(out.text.feature, expected["text_feat"], rtol=0, atol=TOLERANCE)
    assert torch.allclose(out.logits, expected["itm_logits"], rtol=0, atol=TOLERANCE)
    steps = out.trace.steps()
    vision, text = META["config"]["vdepth"], META["config"]["tdepth"]
    assert [tower for tower, _, _ in steps] == ["vision"] * vision + ["text"] * text + ["match"] * text
    if temperature:  # at 0 the public code reports another loss, and no trace
        assert torch.allclose(out.alignment[0], expected["loss_align"], rtol=0, atol=TOLERANCE)
        counts = [[before, after] for _, before, after in steps]
        assert counts == [count for _, *count in META["cases"]["retrieval"]["trace"][str(temperature)]]
    else:
        assert all(before == after for _, before, after in steps)
