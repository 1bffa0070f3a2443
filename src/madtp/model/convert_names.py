"""Names of the original BLIP and MADTP checkpoints, in transformers' (and our) names. Tensors pass through by value.

Every pattern is matched against the whole name, so that nothing is renamed by accident.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.model.checkpoint import listed

SEMANTIC_TOKENS = "madtp_guidance.semantic_tokens"

# What a BLIP of each task (a key of `madtp.model.shape.CLASSES`) has besides its image tower.
BLIP_PARTS = {
    "vqa": ("text_encoder", "text_decoder"),
    "reasoning": ("text_encoder", "cls_head"),
    "caption": ("text_decoder",),
    "retrieval": ("text_encoder", "vision_proj", "text_proj", "itm_head"),
}
_PARTS = {part for parts in BLIP_PARTS.values() for part in parts}
_CLIP_PARTS = {"visual", "transformer"}

_VISION = {
    r"visual_encoder\.blocks\.(\d+)\.norm([12])\.(weight|bias)": r"vision_model.encoder.layers.\1.layer_norm\2.\3",
    r"visual_encoder\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)": r"vision_model.encoder.layers.\1.self_attn.qkv.\2",
    r"visual_encoder\.blocks\.(\d+)\.attn\.proj\.(weight|bias)": (
        r"vision_model.encoder.layers.\1.self_attn.projection.\2"
    ),
    r"visual_encoder\.blocks\.(\d+)\.mlp\.(fc1|fc2)\.(weight|bias)": r"vision_model.encoder.layers.\1.mlp.\2.\3",
    r"visual_encoder\.norm\.(weight|bias)": r"vision_model.post_layernorm.\1",
    r"visual_encoder\.patch_embed\.proj\.(weight|bias)": r"vision_model.embeddings.patch_embedding.\1",
    r"visual_encoder\.pos_embed": r"vision_model.embeddings.position_embedding",
    r"visual_encoder\.cls_token": r"vision_model.embeddings.class_embedding",
    r"visual_encoder\.img_query_model\.q_map\.0\.(weight|bias)": r"madtp_guidance.vision_map.\1",
    r"space_dict": SEMANTIC_TOKENS,
}
# These have the names that we have.
_REST = (
    r"text_encoder\.(?:embeddings|encoder\.layer\.\d+)\..+",
    r"text_decoder\.(?:bert\.embeddings|bert\.encoder\.layer\.\d+|cls\.predictions)\..+",
    r"(?:cls_head\.[02]|vision_proj|text_proj|itm_head)\.(?:weight|bias)",
)
# Of no use to inference: buffers that the host makes itself, and what only pre-training and retrieval training use.
_DROPPED = (
    r"text_(?:encoder|decoder\.bert)\.embeddings\.position_ids",
    r"(?:visual_encoder|text_encoder|text_decoder|vision_proj|text_proj)_m\..+",
    r"(?:image|text|idx|ptr)_queue|queue_ptr",
    r"temp",
)
_TIED = {
    "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}
_TEXT_MAP = re.compile(r"text_(?:encoder|decoder\.bert)\.encoder\.txt_query_model\..+")


@dataclass(frozen=True)
class ConvertedInfo:
    """What a conversion did.

    Attributes:
        tensors: tensors carried over.
        dropped: names left out knowingly: position ids, momentum copies, queues, `temp`; of BLIP's pre-trained
            checkpoint also the parts that the task has no use for.
        semantic_tokens: K of the checkpoint; None = it has none, and they start untrained.
        temperature: pruning temperature stored in the checkpoint; None = dense.
        kind: what was made, a key of `madtp.model.shape.CLASSES`; None = no model yet.
    """

    tensors: int
    dropped: tuple[str, ...]
    semantic_tokens: int | None
    temperature: float | None = None
    kind: str | None = None


def kinds_of(names: Iterable[str]) -> tuple[str, ...]:
    """The kinds of model (keys of `madtp.model.shape.CLASSES`) that can be made of tensors of these public names.

    One; several of BLIP's pre-trained checkpoint, which has parts for several tasks; none of half a checkpoint or of
    another model's.
    """
    first = {name.partition(".")[0] for name in names}
    if first & _CLIP_PARTS:
        return ("clip",)
    present = first & _PARTS
    for kind, parts in BLIP_PARTS.items():
        if present == set(parts):
            return (kind,)
    pretrained = {"text_encoder", "text_decoder"} < present and "cls_head" not in present
    return tuple(kind for kind, parts in BLIP_PARTS.items() if pretrained and present.issuperset(parts))


def bare(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors by their names without the `module.` of a distributed run, if all of them have it."""
    prefix = "module."
    if not all(name.startswith(prefix) for name in state):
        return state
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def map_vision_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower and the semantic tokens of any BLIP or MADTP checkpoint in our names; the rest is left out."""
    renamed = ((_rename(name), tensor) for name, tensor in state.items())
    return {name: _single(tensor) for name, tensor in renamed if name is not None}


def map_blip_keys(state: Mapping[str, Tensor], kind: str) -> tuple[dict[str, Tensor], ConvertedInfo]:
    """A BLIP or MADTP checkpoint in our names, floats as float32.

    Tied parameters, which these checkpoints hold twice, come out once.

    Args:
        state: in public names.
        kind: what to make, a key of `BLIP_PARTS`.

    Raises:
        InputError: a name is unknown, or the two copies of a tied parameter differ.
    """
    out = map_vision_keys(state)
    spare = _PARTS - set(BLIP_PARTS[kind]) if len(kinds_of(state)) > 1 else set()
    dropped, unknown = [], []
    for name, tensor in state.items():
        part = name.partition(".")[0]
        known = any(re.fullmatch(pattern, name) for pattern in _REST)
        if any(re.fullmatch(pattern, name) for pattern in _DROPPED) or (known and part in spare):
            dropped.append(name)
        elif known and part in BLIP_PARTS[kind]:
            out[name] = _single(tensor)
        elif _rename(name) is None:
            unknown.append(name)
    if maps := [name for name in unknown if _TEXT_MAP.fullmatch(name)]:
        raise InputError(
            f"the checkpoint maps text tokens before it compares them with the semantic tokens: {listed(maps)}",
            fix="only checkpoints whose text and semantic tokens have one width and no map can be converted",
        )
    if unknown:
        raise InputError(f"unknown tensors: {listed(unknown)}", fix=f"a BLIP or MADTP checkpoint for {kind} is needed")
    for copy, source in _TIED.items():
        if copy in out:
            tensor = out.pop(copy)
            if not torch.equal(out.setdefault(source, tensor), tensor):
                raise InputError(
                    f"{copy} and {source} differ, which BLIP ties", fix="a checkpoint of BLIP or MADTP is needed"
                )
    semantic = out.get(SEMANTIC_TOKENS)
    return out, ConvertedInfo(len(out), tuple(sorted(dropped)), None if semantic is None else len(semantic))


def _rename(name: str) -> str | None:
    for pattern, new in _VISION.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(new)
    return None


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
