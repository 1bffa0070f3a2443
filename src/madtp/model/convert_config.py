"""Sizes of a BLIP, and what its public code sets beside them, as a config.

Sizes are read off the tensors. What the public code sets and transformers' defaults get wrong is set here: the image
tower's `layer_norm_eps`, the number of heads, label smoothing, and the ids that begin and end what a decoder writes.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.model.config import MadtpBlipConfig, PruneConfig
from madtp.model.convert_names import BLIP_PARTS, ConvertedInfo

HEAD_WIDTH = 64  # of every BLIP and CLIP
BERT_VOCABULARY, BERT_SEP = 30524, 102  # bert-base-uncased with [DEC] and [ENC] behind it


def vision_sizes(state: Mapping[str, Tensor], heads: int | None = None) -> dict[str, Any]:
    """Settings of a `BlipVisionConfig`, read off a state dict from `map_vision_keys`.

    Args:
        state: in our names.
        heads: attention heads; None = width / 64.

    Raises:
        InputError: a tensor is missing, or the sizes are not a BLIP's.
    """
    patches = shape_in(state, "vision_model.embeddings.patch_embedding.weight", 4)
    positions = shape_in(state, "vision_model.embeddings.position_embedding", 3)[1]
    return {
        "hidden_size": patches[0],
        "intermediate_size": shape_in(state, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": depth_in(state, "vision_model.encoder.layers"),
        "num_attention_heads": heads_of(patches[0], heads, "image tower"),
        "image_size": grid_of(positions) * patches[-1],
        "patch_size": patches[-1],
        "layer_norm_eps": 1e-6,
        "initializer_range": 0.02,
    }


def blip_config(
    state: Mapping[str, Tensor],
    info: ConvertedInfo,
    kind: str,
    *,
    heads: int | None = None,
    start_token_id: int | None = None,
    end_token_id: int | None = None,
) -> MadtpBlipConfig:
    """The config of a state dict from `map_blip_keys`; the ids as in `madtp.model.convert.convert`.

    Args:
        state: in our names.
        info: from `map_blip_keys`.
        kind: what is made, a key of `BLIP_PARTS`.
        heads: attention heads of both towers; None = width / 64.
        start_token_id, end_token_id: of what the decoder writes.

    Raises:
        InputError: a tensor is missing, the sizes are not a BLIP's, or an id must be given or is none.
    """
    vision = vision_sizes(state, heads)
    writes = "text_decoder" in BLIP_PARTS[kind]
    tower = "text_encoder" if "text_encoder" in BLIP_PARTS[kind] else "text_decoder.bert"
    vocabulary, width = shape_in(state, f"{tower}.embeddings.word_embeddings.weight", 2)
    text = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "encoder_hidden_size": vision["hidden_size"],
        "intermediate_size": shape_in(state, f"{tower}.encoder.layer.0.intermediate.dense.weight", 2)[0],
        "num_hidden_layers": depth_in(state, f"{tower}.encoder.layer"),
        "num_attention_heads": heads_of(width, heads, "text tower"),
        "max_position_embeddings": shape_in(state, f"{tower}.embeddings.position_embeddings.weight", 2)[0],
        "bos_token_id": vocabulary - 2,
    }
    others: dict[str, Any] = {}
    if writes:
        text |= _ends(vocabulary, start_token_id, end_token_id) | {"label_smoothing": 0.1}
        others["label_smoothing"] = 0.1
    if kind == "retrieval":
        others["image_text_hidden_size"] = shape_in(state, "vision_proj.weight", 2)[0]
    madtp = pruning_of(info).to_dict()
    return MadtpBlipConfig(vision_config=vision, text_config=text, madtp=madtp, **others)


def pruning_of(info: ConvertedInfo) -> PruneConfig:
    """How a converted model prunes."""
    madtp = PruneConfig(temperature=info.temperature)
    return madtp if info.semantic_tokens is None else replace(madtp, semantic_tokens=info.semantic_tokens)


def shape_in(state: Mapping[str, Tensor], name: str, dimensions: int) -> torch.Size:
    """The shape of a tensor. Raises InputError if there is none of this name with so many dimensions."""
    if name not in state:
        raise InputError(f"missing tensor {name}", fix="a whole checkpoint is needed")
    if state[name].dim() != dimensions:
        raise InputError(f"{name} has the shape {list(state[name].shape)}", fix=f"it needs {dimensions} dimensions")
    return state[name].shape


def depth_in(state: Mapping[str, Tensor], prefix: str) -> int:
    """The number of layers under a prefix."""
    found = {int(m[1]) for name in state if (m := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))}
    return max(found, default=-1) + 1


def heads_of(width: int, heads: int | None, where: str) -> int:
    """The number of attention heads, width / 64 unless given. Raises InputError if they do not share the width."""
    count = width // HEAD_WIDTH if heads is None else heads
    if count < 1 or width % count:
        raise InputError(
            f"{count} heads do not share the width of {width} of the {where}", fix="give the number of heads (--heads)"
        )
    return count


def grid_of(positions: int) -> int:
    """Patches along a side of the image. Raises InputError if the positions are not those of a square and one more."""
    grid = math.isqrt(max(positions - 1, 0))
    if grid < 1 or grid * grid != positions - 1:
        raise InputError(
            f"{positions} image positions are not a square of patches and one more", fix="see its position embedding"
        )
    return grid


def _ends(vocabulary: int, start_token_id: int | None, end_token_id: int | None) -> dict[str, int]:
    """The ids that begin and end what a decoder writes."""
    if end_token_id is None:
        if vocabulary != BERT_VOCABULARY:
            raise InputError(
                f"the vocabulary has {vocabulary} entries, not BERT's {BERT_VOCABULARY}",
                fix="give the id of [SEP] (--end-token)",
            )
        end_token_id = BERT_SEP
    start_token_id = vocabulary - 2 if start_token_id is None else start_token_id
    for name, number in (("start_token_id", start_token_id), ("end_token_id", end_token_id)):
        if not 0 <= number < vocabulary:
            raise InputError(f"{name} {number} is outside the vocabulary", fix=f"use 0..{vocabulary - 1}")
    return {"bos_token_id": start_token_id, "sep_token_id": end_token_id, "eos_token_id": end_token_id}
