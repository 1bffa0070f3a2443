"""Checkpoints as the public codes would have saved our tiny models."""

import re
from functools import cache
from typing import Any

import torch
from torch import Tensor

from model.tiny import END, HEADS, POSITIONS, START, tiny_captioner, tiny_model, tiny_reasoner
from model.tiny_retrieval import tiny_retrieval

_CLIP = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
    "logit_scale": "logit_scale",
    "madtp_guidance.semantic_tokens": "space_dict",
}
GIVEN: dict[str, Any] = {"heads": HEADS, "start_token_id": START, "end_token_id": END}
MAKE: dict[str, Any] = {
    "vqa": tiny_model, "reasoning": tiny_reasoner, "caption": tiny_captioner, "retrieval": tiny_retrieval,
}  # fmt: skip


def given(kind: str) -> dict[str, Any]:
    """Arguments that the tiny models need: their heads are too narrow, and their vocabulary is not BERT's."""
    return GIVEN if kind in ("vqa", "caption") else {"heads": HEADS}


def original(model: Any, madtp: bool = True) -> dict[str, Tensor]:
    """A model's tensors under the original names, as the original code would save them."""
    out: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        block = re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.(.+)", name)
        if block:
            rest = block[2].replace("layer_norm", "norm").replace("self_attn", "attn").replace("projection", "proj")
            out[f"visual_encoder.blocks.{block[1]}.{rest}"] = tensor
        elif name.startswith("vision_model."):
            new = {
                "post_layernorm.weight": "norm.weight",
                "post_layernorm.bias": "norm.bias",
                "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
                "embeddings.patch_embedding.bias": "patch_embed.proj.bias",
                "embeddings.position_embedding": "pos_embed",
                "embeddings.class_embedding": "cls_token",
            }[name.removeprefix("vision_model.")]
            out[f"visual_encoder.{new}"] = tensor
        elif name.startswith("madtp_guidance.vision_map"):
            out[name.replace("madtp_guidance.vision_map", "visual_encoder.img_query_model.q_map.0")] = tensor
        elif name == "madtp_guidance.semantic_tokens":
            if madtp:
                out["space_dict"] = tensor
        else:
            out[name] = tensor
    for tower in ("text_encoder", "text_decoder.bert"):
        if f"{tower}.embeddings.LayerNorm.bias" in out:
            out[f"{tower}.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    return {name: tensor.clone() for name, tensor in out.items()}


def original_clip(model: Any, madtp: bool = True) -> dict[str, Tensor]:
    """The same of a CLIP."""
    out: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        stem, _, last = name.rpartition(".")
        if name.startswith("madtp_guidance.") and not madtp:
            continue
        if block := re.fullmatch(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)", name):
            prefix = f"{'visual.' if block[1] == 'vision' else ''}transformer.resblocks.{block[2]}."
            rest = block[3].replace("layer_norm", "ln_").replace("fc1", "c_fc").replace("fc2", "c_proj")
            if fused := re.fullmatch(r"self_attn\.([qkv])_proj\.(.+)", rest):
                rest = f"attn.in_proj_{fused[2]}"
                # the host's order is k, v, q; the fused tensor's q, k, v
                parts = [model.state_dict()[name.replace(f"{fused[1]}_proj", f"{p}_proj")] for p in "qkv"]
                tensor = torch.cat(parts)
            out[prefix + rest.replace("self_attn", "attn")] = tensor
        elif part := re.fullmatch(r"madtp_guidance\.(vision|text)_maps\.(\d+)\.(.+)", name):
            prefix = "visual." if part[1] == "vision" else ""
            out[f"{prefix}transformer.resblocks.{part[2]}.query_model.q_map.0.{part[3]}"] = tensor
        else:
            new = _CLIP[name] if name in _CLIP else f"{_CLIP[stem]}.{last}"
            out[new] = tensor.T if name.endswith("_projection.weight") else tensor
    return {name: tensor.clone() for name, tensor in out.items()}


@cache
def made(kind: str = "vqa") -> dict[str, Tensor]:
    """The tensors of a tiny model under the original names; not to be changed in place."""
    return original(MAKE[kind]())


@cache
def pretrained() -> dict[str, Tensor]:
    """What BLIP's pre-training leaves: both text towers, all heads, momentum copies and queues."""
    extra = {"vision_proj_m.bias": 3, "text_encoder_m.embeddings.position_ids": 5, "image_queue": 7, "queue_ptr": 1}
    return (
        made("vqa") | made("retrieval") | {name: torch.zeros(n) for name, n in extra.items()} | {"temp": torch.ones(())}
    )
