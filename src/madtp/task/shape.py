"""The sizes that a model's cost depends on."""

from typing import Any

from madtp.cost.flops import BlipShape
from madtp.prune import METHODS


def shape_of(model: Any) -> BlipShape:
    """The sizes that the model's cost depends on; with guidance if its method uses it."""
    vision, text, settings = model.config.vision_config, model.config.text_config, model.pruning
    return BlipShape(
        patches=(vision.image_size // vision.patch_size) ** 2,
        patch_inputs=3 * vision.patch_size**2,
        vision_width=vision.hidden_size,
        vision_layers=vision.num_hidden_layers,
        vision_mlp=vision.intermediate_size,
        text_width=text.hidden_size,
        text_layers=text.num_hidden_layers,
        text_mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        semantic=settings.semantic_tokens if METHODS[settings.method].guided and settings.temperature else 0,
        vision_map=vision.hidden_size != text.hidden_size,
    )
