"""The sizes that a model's cost depends on, read from the model or from its config alone."""

from dataclasses import replace
from importlib import import_module
from typing import Any

from madtp.cost.shape import Decoder, Shape, Tower
from madtp.errors import InputError
from madtp.model.config import PruneConfig
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
    if kind is None:
        model, kind = model.config, kind_of(model)
    settings = PruneConfig.of(model.madtp)
    method = METHODS[settings.method]
    guided = method.guided and settings.temperature is not None
    semantic = settings.semantic_tokens if guided else 0
    shape = _clip(model, semantic) if kind == "clip" else _blip(model, kind, semantic)
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
