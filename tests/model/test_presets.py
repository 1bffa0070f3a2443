"""Presets: sizes as published, built without weights, the same from a seed."""

import pytest
import torch

from madtp.errors import InputError
from madtp.model.presets import PRESETS, Preset, build, config_of, empty, find_preset, random_inputs
from madtp.model.shape import CLASSES, class_of

# Parameters of the published dense checkpoints, in millions; guidance and merge layers come on top here.
MILLIONS = {
    "clip-vit-base-32": 151.3,
    "clip-vit-base-16": 149.6,
    "clip-vit-large-14": 427.6,
    "clip-vit-large-336": 427.9,
}


@pytest.mark.parametrize("name", PRESETS)
def test_config(name: str) -> None:
    config, kind = config_of(name), PRESETS[name].kind
    vision, text = config.vision_config, config.text_config
    assert vision.hidden_size == 64 * vision.num_attention_heads and text.hidden_size == 64 * text.num_attention_heads
    assert vision.initializer_range == text.initializer_range == 0.02
    assert config.madtp["semantic_tokens"] == 100 and config.madtp["temperature"] is None
    assert (text.vocab_size, text.num_hidden_layers) == (49408 if kind == "clip" else 30524, 12)
    if kind != "clip":
        assert text.encoder_hidden_size == vision.hidden_size and vision.layer_norm_eps == 1e-6
        assert vision.image_size == (480 if kind == "vqa" else 384)


@pytest.mark.parametrize("name", [*MILLIONS, "blip-base-nlvr2", "blip-large-vqa"])
def test_empty(name: str) -> None:
    model = empty(name)
    assert type(model) is class_of(PRESETS[name].kind) and all(p.is_meta for p in model.parameters())
    if name in MILLIONS:
        dense = sum(p.numel() for key, p in model.named_parameters() if not key.startswith("madtp_guidance"))
        assert dense == pytest.approx(1e6 * MILLIONS[name], rel=1e-3)


@pytest.mark.parametrize("kind", CLASSES)
def test_build_and_random_inputs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "nano", Preset(kind, 35, 5, (22, 3, 2, 31), (26, 2, 2, 37)))
    state = torch.get_rng_state()
    model, same, other = build("nano", 3), build("nano", 3), build("nano", 4)
    assert torch.equal(state, torch.get_rng_state()) and not model.training
    pairs = zip(model.parameters(), same.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) and (a.numel() == 1 or a.std() == 0 or not torch.equal(a, c)) for a, b, c in pairs)
    inputs = random_inputs(kind, model.config, 3, 11, seed=5)
    assert len(inputs["pixel_values"]) == (6 if kind == "reasoning" else 3)
    trace = model.encode(**inputs).trace
    texts = trace.tower("match" if kind == "retrieval" else "text")
    if kind == "caption":
        assert not texts
    else:
        assert texts[0].tokens_in.tolist() == [9 if kind == "clip" else 10] * 3
    assert torch.equal(inputs["pixel_values"], random_inputs(kind, model.config, 3, 11, seed=5)["pixel_values"])


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="did you mean clip-vit-base-32"):
        find_preset("clip-vit-base32")
