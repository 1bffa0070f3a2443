"""The paper's full-size models by name: their configs, and models with random weights. No weights are fetched."""

import difflib
from dataclasses import dataclass
from typing import Any

from madtp.errors import InputError
from madtp.model.config import MadtpBlipConfig, MadtpCLIPConfig, PruneConfig
from madtp.model.shape import class_of

SEMANTIC_TOKENS = 100  # K of the paper
_STD = 0.02  # transformers' default for BLIP's image tower is 1e-10: near zero


@dataclass(frozen=True)
class Preset:
    """A model's sizes.

    Attributes:
        kind: key of `madtp.model.shape.CLASSES`.
        image, patch: sides in pixels.
        vision, text: width, layers, heads and inner width of the MLP of each tower.
    """

    kind: str
    image: int
    patch: int
    vision: tuple[int, int, int, int]
    text: tuple[int, int, int, int] = (768, 12, 12, 3072)


_BASE, _LARGE = (768, 12, 12, 3072), (1024, 24, 16, 4096)
_NARROW = (512, 12, 8, 2048)
_BLIP = {"nlvr2": ("reasoning", 384), "caption": ("caption", 384), "vqa": ("vqa", 480), "retrieval": ("retrieval", 384)}

PRESETS: dict[str, Preset] = {
    **{f"blip-base-{name}": Preset(kind, image, 16, _BASE) for name, (kind, image) in _BLIP.items()},
    **{f"blip-large-{name}": Preset(kind, image, 16, _LARGE) for name, (kind, image) in _BLIP.items()},
    "clip-vit-base-32": Preset("clip", 224, 32, _BASE, _NARROW),
    "clip-vit-base-16": Preset("clip", 224, 16, _BASE, _NARROW),
    "clip-vit-large-14": Preset("clip", 224, 14, _LARGE),
    "clip-vit-large-336": Preset("clip", 336, 14, _LARGE),
}


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        InputError: there is none.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        fix = f"did you mean {near[0]}?" if near else f"use one of {', '.join(PRESETS)}"
        raise InputError(f"unknown preset {name!r}", "--preset", fix)
    return PRESETS[name]


def config_of(name: str) -> MadtpBlipConfig | MadtpCLIPConfig:
    """The config of a preset, dense.

    Raises:
        InputError: no such preset.
    """
    preset = find_preset(name)
    vision = {**_tower(*preset.vision), "image_size": preset.image, "patch_size": preset.patch}
    text = _tower(*preset.text)
    madtp = PruneConfig(semantic_tokens=SEMANTIC_TOKENS).to_dict()
    if preset.kind == "clip":
        feature = {"projection_dim": text["hidden_size"]}
        vocabulary = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
        text |= {"max_position_embeddings": 77, **vocabulary, **feature}
        return MadtpCLIPConfig(vision_config=vision | feature, text_config=text, madtp=madtp, **feature)
    vision["layer_norm_eps"] = 1e-6
    text |= {"encoder_hidden_size": vision["hidden_size"], "max_position_embeddings": 512, "vocab_size": 30524}
    text |= {"bos_token_id": 30522, "eos_token_id": 102, "sep_token_id": 102, "pad_token_id": 0, "label_smoothing": 0.1}
    return MadtpBlipConfig(
        vision_config=vision, text_config=text, image_text_hidden_size=256, initializer_range=_STD, madtp=madtp
    )


def build(name: str, seed: int = 0) -> Any:
    """A model of a preset with random weights, in evaluation mode; torch's random state is left as it was.

    Raises:
        InputError: no such preset.
    """
    import torch

    config = config_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return class_of(PRESETS[name].kind)(config).eval()


def empty(name: str) -> Any:
    """A model of a preset without any storage, to be looked at.

    Raises:
        InputError: no such preset.
    """
    import torch

    config = config_of(name)
    with torch.device("meta"):
        return class_of(PRESETS[name].kind)(config)


def random_inputs(kind: str, config: Any, examples: int, text_tokens: int, seed: int = 0) -> dict[str, Any]:
    """Arguments of `encode` for so many examples: noise for pictures, random words for texts.

    Args:
        kind: of the model, a key of `madtp.model.shape.CLASSES`.
        config: of the model.
        examples: texts, each with its own picture or pictures; in captioning: pictures.
        text_tokens: of every text, first and last included.
        seed: of the draw.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    side, images = config.vision_config.image_size, examples * (2 if kind == "reasoning" else 1)
    inputs: dict[str, Any] = {"pixel_values": torch.randn(images, 3, side, side, generator=draw)}
    if kind == "caption":
        return inputs
    last = config.text_config.vocab_size - 1  # CLIP's end of text, and in old configs the highest id
    inputs["input_ids"] = torch.randint(3, last, (examples, text_tokens), generator=draw)
    if kind == "clip":
        end = config.text_config.eos_token_id
        ids = inputs["input_ids"].masked_fill_(inputs["input_ids"] == end, 3)
        ids[:, -1] = last if end == 2 else end
    return inputs | ({"match": True} if kind == "retrieval" else {})


def _tower(width: int, layers: int, heads: int, mlp: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
        "initializer_range": _STD,
    }
