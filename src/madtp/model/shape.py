"""The sizes that a model's cost depends on, read from the model or from its config alone."""

import re
from dataclasses import replace
from importlib import import_module
from typing import Any

from madtp.cost.shape import Decoder, Narrow, Shape, Tower
from madtp.errors import InputError
from madtp.model.config import PruneConfig
from madtp.model.narrow import open_of
from madtp.model.text_pair import MERGE_FROM
from madtp.prune import METHODS

# What a model does -> its class.
CLASSES = {
    "vqa": ("madtp.model.blip", "MadtpBlipForQuestionAnswering"),
    "reasoning": ("madtp.model.blip_reasoning", "MadtpBlipForVisualReasoning"),
    "caption": ("madtp.model.blip_caption", "MadtpBlipForConditionalGeneration"),
    "retrieval": ("madtp.model.blip_retrieval", "MadtpBlipForImageTextRetrieval"),
    "clip": ("madtp.model.clip", "MadtpCLIPModel"),
}
_OUTLET = re.compile(r"\.layers?\.(\d+)\.(.+)")
CLASSIFIER = 2  # outputs of the heads that tell true from false, match from mismatch


def class_of(kind: str) -> Any:
    """The model class of a kind, a key of `CLASSES`."""
    module, name = CLASSES[kind]
    return getattr(import_module(module), name)


def kind_of(model: Any) -> str:
    """The key of `CLASSES` that a model belongs to.

    Raises:
        InputError: it is of no class of ours.
    """
    names = {cls.__name__ for cls in type(model).__mro__}
    for kind, (_, name) in CLASSES.items():
        if name in names:
            return kind
    raise InputError(f"GFLOPs of a {type(model).__name__} are unknown", fix="load the model with madtp.load")


def task_of(kind: str) -> str:
    """The task of a kind of model, a key of `CLASSES`."""
    return "retrieval" if kind == "clip" else kind


def shape_of(model: Any, kind: str | None = None) -> Shape:
    """The sizes that the model's cost depends on; with guidance if its method uses it.

    Args:
        model: one of ours, or its config.
        kind: of a config, a key of `CLASSES`; None = `model` is a model.

    Raises:
        InputError: the model is of no class of ours.
    """
    left = None
    if kind is None:
        left, kind = open_of(model), kind_of(model)  # of one whose masks are closed, and weights still there
        model = model.config
    settings = PruneConfig.of(model.madtp)
    method = METHODS[settings.method]
    guided = method.guided and settings.temperature is not None
    semantic = settings.semantic_tokens if guided else 0
    shape = _clip(model, semantic) if kind == "clip" else _blip(model, kind, semantic)
    if widths := settings.widths or left:
        shape = _narrowed(shape, model, widths)
    return replace(shape, thresholds=method.knob == "temperature") if guided else shape


def _tower(config: Any, **others: Any) -> Tower:
    return Tower(config.hidden_size, config.num_hidden_layers, config.intermediate_size, **others)


def _patches(vision: Any) -> tuple[int, int]:
    """Patches of an image, and multiply-accumulates of the convolution that makes them."""
    patches = (vision.image_size // vision.patch_size) ** 2
    return patches, patches * 3 * vision.patch_size**2 * vision.hidden_size


def _blip(config: Any, kind: str, semantic: int) -> Shape:
    vision, text = config.vision_config, config.text_config
    seen, width = vision.hidden_size, text.hidden_size
    feature = config.image_text_hidden_size if kind == "retrieval" else 0
    reads = match = decoder = None
    if kind == "reasoning":
        reads = _tower(text, context=seen, head=width * (width + CLASSIFIER), merged_from=MERGE_FROM)
    elif kind == "retrieval":
        reads = _tower(text, head=width * feature)
        match = _tower(text, context=seen, head=width * CLASSIFIER)
    elif kind == "vqa":
        reads = _tower(text, context=seen)
    if kind in ("vqa", "caption"):
        attended = seen if kind == "caption" else width
        decoder = Decoder(width, text.num_hidden_layers, text.intermediate_size, text.vocab_size, attended)
    patches, convolution = _patches(vision)
    return Shape(
        patches=patches,
        vision=_tower(vision, mapped=seen != width, stem=convolution, head=seen * feature),
        text=reads,
        match=match,
        decoder=decoder,
        images=2 if kind == "reasoning" else 1,
        semantic=semantic,
        semantic_width=width,
    )


def _clip(config: Any, semantic: int) -> Shape:
    vision, text, feature = config.vision_config, config.text_config, config.projection_dim
    patches, convolution = _patches(vision)
    return Shape(
        patches=patches,
        vision=_tower(vision, mapped=True, stem=convolution, head=vision.hidden_size * feature),
        text=_tower(text, mapped=True, protected=2, head=text.hidden_size * feature),
        semantic=semantic,
        semantic_width=config.semantic_width or text.hidden_size,
    )


def _narrowed(shape: Shape, config: Any, widths: dict[str, int]) -> Shape:
    """The shape of a model out of which weights have been taken; `widths` as in `PruneConfig`."""

    def narrow(tower: Tower | None, part: Any, of_vision: bool) -> Tower | None:
        if tower is None:
            return None
        attention, mlp = [tower.width] * tower.layers, [tower.mlp] * tower.layers
        cross = [[tower.width] * tower.layers for _ in range(shape.images if tower.context else 0)]
        head = tower.width // part.num_attention_heads
        for name, left in widths.items():
            if name.startswith("vision_model.") != of_vision or (found := _OUTLET.search(name)) is None:
                continue
            block, inside = int(found[1]), found[2]
            if inside.startswith("crossattention."):
                if cross:  # the second of two images' is called so
                    cross[1 if inside.endswith("1") else 0][block] = left * head
            elif inside.startswith(("attention.", "self_attn.")):
                attention[block] = left * head
            else:
                mlp[block] = left
        return replace(tower, narrow=Narrow(tuple(attention), tuple(mlp), tuple(map(tuple, cross))))

    vision = narrow(shape.vision, config.vision_config, True)
    text, match = (narrow(tower, config.text_config, False) for tower in (shape.text, shape.match))
    assert vision is not None
    return replace(shape, vision=vision, text=text, match=match)
