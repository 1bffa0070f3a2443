"""Checkpoints of OpenAI's CLIP and of the public MADTP code for CLIP, in transformers' (and our) names and sizes.

Names are bare (`visual.conv1.weight`), or all of them behind the `module.` of a distributed run. Every pattern is
matched against the whole name. Sizes are read off the tensors.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from madtp.errors import InputError
from madtp.model.checkpoint import listed
from madtp.model.config import MadtpCLIPConfig
from madtp.model.convert_config import depth_in, grid_of, heads_of, pruning_of, shape_in
from madtp.model.convert_names import SEMANTIC_TOKENS, ConvertedInfo, bare

NEEDED = "a whole checkpoint of CLIP with a vision transformer, or of MADTP for it, is needed"

_NAMES = {
    r"visual\.class_embedding": "vision_model.embeddings.class_embedding",
    r"visual\.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    r"visual\.conv1\.weight": "vision_model.embeddings.patch_embedding.weight",
    r"visual\.ln_pre\.(weight|bias)": r"vision_model.pre_layrnorm.\1",
    r"visual\.ln_post\.(weight|bias)": r"vision_model.post_layernorm.\1",
    r"visual\.proj": "visual_projection.weight",
    r"token_embedding\.weight": "text_model.embeddings.token_embedding.weight",
    r"positional_embedding": "text_model.embeddings.position_embedding.weight",
    r"ln_final\.(weight|bias)": r"text_model.final_layer_norm.\1",
    r"text_projection": "text_projection.weight",
    r"logit_scale": "logit_scale",
    r"space_dict": SEMANTIC_TOKENS,
}
_BLOCK_NAME = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_BLOCK = {
    r"ln_([12])\.(weight|bias)": r"layer_norm\1.\2",
    r"mlp\.c_fc\.(weight|bias)": r"mlp.fc1.\1",
    r"mlp\.c_proj\.(weight|bias)": r"mlp.fc2.\1",
    r"attn\.in_proj_(weight|bias)": r"self_attn.*_proj.\1",
    r"attn\.out_proj\.(weight|bias)": r"self_attn.out_proj.\1",
}
_MAP = re.compile(r"query_model\.q_map\.0\.(weight|bias)")
_TRANSPOSED = ("visual.proj", "text_projection")
# Of no use to inference: sizes and causal masks, which archives hold as tensors, and what only training uses.
_DROPPED = (
    r"input_resolution|context_length|vocab_size",
    r"(?:visual\.)?transformer\.resblocks\.\d+\.attn_mask",
    r"(?:visual|transformer|token_embedding|ln_final)_m\..+",
    r"(?:text_projection|positional_embedding)_m",
    r"(?:image|text|idx|ptr)_queue",
)


def map_clip_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ConvertedInfo]:
    """A CLIP or MADTP checkpoint in the names of `MadtpCLIPModel`, floats as float32.

    Raises:
        InputError: a name is unknown, or a fused tensor does not hold three parts.
    """
    out: dict[str, Tensor] = {}
    dropped, unknown = [], []
    for name, tensor in bare(state).items():
        if any(re.fullmatch(pattern, name) for pattern in _DROPPED):
            dropped.append(name)
        elif (new := _rename(name)) is None:
            unknown.append(name)
        else:
            tensor = tensor.float() if tensor.is_floating_point() else tensor
            turned = tensor.T.contiguous() if name in _TRANSPOSED and tensor.dim() == 2 else tensor
            out |= _split(new, turned, name)
    if unknown:
        raise InputError(f"unknown tensors: {listed(unknown)}", fix=NEEDED)
    semantic = out.get(SEMANTIC_TOKENS)
    return out, ConvertedInfo(len(out), tuple(sorted(dropped)), None if semantic is None else len(semantic))


def clip_config(state: Mapping[str, Tensor], info: ConvertedInfo, *, heads: int | None = None) -> MadtpCLIPConfig:
    """The config of a state dict from `map_clip_keys`.

    Texts end with the last word of the vocabulary and start with the last but one, as in OpenAI's.

    Args:
        state: in our names.
        info: from `map_clip_keys`.
        heads: attention heads of both towers; None = width / 64, as in every CLIP.

    Raises:
        InputError: a tensor is missing, or the sizes are not a CLIP's.
    """
    patches = shape_in(state, "vision_model.embeddings.patch_embedding.weight", 4)
    positions = shape_in(state, "vision_model.embeddings.position_embedding.weight", 2)[0]
    vocabulary, width = shape_in(state, "text_model.embeddings.token_embedding.weight", 2)
    feature = shape_in(state, "visual_projection.weight", 2)[0]
    vision = {
        **_tower(state, "vision_model", patches[0], heads),
        "image_size": grid_of(positions) * patches[-1],
        "patch_size": patches[-1],
        "projection_dim": feature,
    }
    text = {
        **_tower(state, "text_model", width, heads),
        "vocab_size": vocabulary,
        "max_position_embeddings": shape_in(state, "text_model.embeddings.position_embedding.weight", 2)[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
        "projection_dim": feature,
    }
    semantic_width = None if info.semantic_tokens is None else shape_in(state, SEMANTIC_TOKENS, 2)[1]
    return MadtpCLIPConfig(
        vision_config=vision,
        text_config=text,
        projection_dim=feature,
        semantic_width=semantic_width,
        madtp=pruning_of(info).to_dict(),
    )


def _rename(name: str) -> str | None:
    """Our name, that of a fused tensor with a * for q, k and v; None = unknown."""
    if not (block := _BLOCK_NAME.fullmatch(name)):
        return _expand(name, _NAMES)
    tower, number, rest = "vision" if block[1] else "text", block[2], block[3]
    if part := _MAP.fullmatch(rest):
        return f"madtp_guidance.{tower}_maps.{number}.{part[1]}"
    new = _expand(rest, _BLOCK)
    return None if new is None else f"{tower}_model.encoder.layers.{number}.{new}"


def _expand(name: str, rules: Mapping[str, str]) -> str | None:
    for pattern, new in rules.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(new)
    return None


def _split(new: str, tensor: Tensor, name: str) -> dict[str, Tensor]:
    """The tensor under its name, or the three parts of a fused one."""
    if "*" not in new:
        return {new: tensor}
    if tensor.dim() == 0 or tensor.shape[0] % 3:
        raise InputError(f"{name} has the shape {list(tensor.shape)}", fix="it holds the rows of q, k and v")
    return {new.replace("*", part): rows.clone() for part, rows in zip("qkv", tensor.chunk(3), strict=True)}


def _tower(state: Mapping[str, Tensor], prefix: str, width: int, heads: int | None) -> dict[str, Any]:
    layers = f"{prefix}.encoder.layers"
    return {
        "hidden_size": width,
        "intermediate_size": shape_in(state, f"{layers}.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": depth_in(state, layers),
        "num_attention_heads": heads_of(width, heads, prefix),
    }
