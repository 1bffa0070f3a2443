"""Checkpoints of OpenAI's CLIP and of the public MADTP code become models of ours, value for value."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.model.clip import MadtpCLIPModel
from madtp.model.config import MadtpCLIPConfig
from madtp.model.convert_clip import clip_config, map_clip_keys
from madtp.model.convert_names import ConvertedInfo
from model.public import original_clip
from model.tiny_clip import HEADS, SEMANTIC, SEMANTIC_WIDTH, padded, pictures, sentences, tiny_model


@cache
def made() -> dict[str, Tensor]:
    """The tensors of `tiny_model()` under the original names; not to be changed in place."""
    return original_clip(tiny_model())


def rebuilt(state: dict[str, Tensor]) -> tuple[MadtpCLIPModel, ConvertedInfo]:
    ours, info = map_clip_keys(state)
    model = MadtpCLIPModel(clip_config(ours, info, heads=HEADS)).eval()
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected
    assert all(name.startswith("madtp_guidance.") for name in missing)
    return model, info


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module."])
def test_madtp_checkpoint(generator: torch.Generator, prefix: str) -> None:
    model = tiny_model()
    momentum = {
        "visual_m.proj": torch.ones(2),
        "transformer_m.resblocks.0.ln_1.weight": torch.ones(2),
        "token_embedding_m.weight": torch.ones(2),
        "ln_final_m.bias": torch.ones(2),
        "positional_embedding_m": torch.ones(2),
        "text_projection_m": torch.ones(2),
        **{f"{what}_queue": torch.ones(2) for what in ("image", "text", "idx", "ptr")},
    }
    again, info = rebuilt({prefix + name: tensor for name, tensor in (made() | momentum).items()})
    assert info == ConvertedInfo(len(model.state_dict()), tuple(sorted(momentum)), SEMANTIC)
    assert model.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    model.temperature = again.temperature = 1.0
    ids, mask = padded(sentences([3, 17], generator))
    batch = (ids, pictures(2, generator), mask)
    assert torch.equal(again(*batch).logits_per_text, model(*batch).logits_per_text)


@torch.no_grad()
def test_clip_state_dict_in_half_precision() -> None:
    """As OpenAI's archives hold it: sizes and causal masks among the tensors, no guidance."""
    model = tiny_model()
    extra = {
        "input_resolution": torch.tensor(35),
        "context_length": torch.tensor(43),
        "vocab_size": torch.tensor(101),
        "transformer.resblocks.1.attn_mask": torch.zeros(43, 43),
    }
    again, info = rebuilt({name: t.half() for name, t in original_clip(model, madtp=False).items()} | extra)
    assert info.dropped == tuple(sorted(extra))
    assert info.semantic_tokens is None
    for name, tensor in again.state_dict().items():
        if not name.startswith("madtp_guidance."):
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, model.state_dict()[name].half().float()), name


def sizes(config: MadtpCLIPConfig) -> dict[str, Any]:
    """What tells two configs of CLIP apart."""
    common = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim")
    common += ("hidden_act", "layer_norm_eps")
    own = {"vision": ("image_size", "patch_size"), "text": ("vocab_size", "max_position_embeddings", "eos_token_id")}
    found = {"feature": config.projection_dim, "semantic": config.semantic_width}
    for tower, names in own.items():
        part = getattr(config, f"{tower}_config")
        found |= {f"{tower}.{name}": getattr(part, name) for name in (*common, *names)}
    return found


def test_config_is_read_off_the_tensors() -> None:
    state, info = map_clip_keys(made())
    config = clip_config(state, info, heads=HEADS)
    assert sizes(config) == sizes(tiny_model().config)
    assert config.text_config.bos_token_id == 99
    assert config.madtp["semantic_tokens"] == SEMANTIC
    assert config.semantic_width == SEMANTIC_WIDTH


def test_sizes_of_vit_large_336() -> None:
    """Every argument that the tensors leave open is what OpenAI's model has."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    expected = MadtpCLIPConfig(
        vision_config={**vision, "image_size": 336, "patch_size": 14, "projection_dim": 768},
        text_config={**text, "projection_dim": 768},  # the rest is the host's default, which is OpenAI's
        projection_dim=768,
    )
    with torch.device("meta"):
        state = original_clip(MadtpCLIPModel(expected), madtp=False)
    ours, info = map_clip_keys(state)
    assert sizes(clip_config(ours, info)) == sizes(expected)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("resnet", r"unknown tensors: 1 \(visual.layer1.0.conv1.weight\)"),
        ("missing", "missing tensor vision_model.embeddings.patch_embedding.weight"),
        ("flat", r"visual_projection.weight has the shape \[19\]"),
        ("positions", "49 image positions"),
        ("fused", r"in_proj_bias has the shape \[65\]"),
        ("blocks", "missing tensor text_model.encoder.layers.0.mlp.fc1.weight"),
        ("empty", "missing tensor"),
    ],
)
def test_wrong_checkpoints(fault: str, says: str) -> None:
    state = dict(made())
    if fault == "resnet":
        state["visual.layer1.0.conv1.weight"] = torch.ones(2)
    elif fault == "missing":
        del state["visual.conv1.weight"]
    elif fault == "flat":
        state["visual.proj"] = torch.ones(19)
    elif fault == "positions":
        state["visual.positional_embedding"] = torch.ones(49, 22)
    elif fault == "fused":
        state["visual.transformer.resblocks.0.attn.in_proj_bias"] = torch.ones(65)
    elif fault == "blocks":
        state = {name: tensor for name, tensor in state.items() if not name.startswith("transformer.")}
    else:
        state = {}
    with pytest.raises(InputError, match=says):
        clip_config(*map_clip_keys(state), heads=HEADS)


@pytest.mark.parametrize(("heads", "says"), [(None, "0 heads do not share"), (7, "7 heads do not share")])
def test_wrong_heads(heads: int | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        clip_config(*map_clip_keys(made()), heads=heads)
