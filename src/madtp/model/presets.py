"""The paper's full-size models by name: their configs, and models with random weights. No weights are fetched."""

import difflib
from typing import Any

from madtp.errors import InputError
from madtp.model.config import MadtpBlipConfig, PruneConfig
from madtp.model.shape import class_of

SEMANTIC_TOKENS = 100  # K of the paper
_STD = 0.02  # transformers' default for BLIP's image tower is 1e-10: near zero

# width, layers, heads, mlp of the image tower
_BLIP_TOWERS = {"base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096)}
# what follows the size in the name -> kind of model, image size
_BLIP_TASKS = {
    "nlvr2": ("reasoning", 384),
    "caption": ("caption", 384),
    "vqa": ("vqa", 480),
    "retrieval": ("retrieval", 384),
}
# image tower as above, patch and image size; text tower's width, heads
_CLIP = {
    "clip-vit-base-32": ((768, 12, 12, 3072), 32, 224, (512, 8)),
    "clip-vit-base-16": ((768, 12, 12, 3072), 16, 224, (512, 8)),
    "clip-vit-large-14": ((1024, 24, 16, 4096), 14, 224, (768, 12)),
    "clip-vit-large-336": ((1024, 24, 16, 4096), 14, 336, (768, 12)),
}  # fmt: skip

PRESETS: dict[str, str] = {
    **{f"blip-{size}-{task}": kind for size in _BLIP_TOWERS for task, (kind, _) in _BLIP_TASKS.items()},
    **dict.fromkeys(_CLIP, "clip"),
}
"""Name -> kind, a key of `madtp.model.shape.CLASSES`."""


def check_preset(name: str) -> None:
    """Raises InputError for a name that is not there."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        fix = f"did you mean {near[0]}?" if near else f"one of {', '.join(PRESETS)}"
        raise InputError(f"unknown preset {name!r}", "--preset", fix)


def config_of(name: str) -> Any:
    """The config of a preset, dense: a `MadtpBlipConfig` or `MadtpCLIPConfig`.

    Raises:
        InputError: no such preset.
    """
    check_preset(name)
    madtp = PruneConfig(semantic_tokens=SEMANTIC_TOKENS).to_dict()
    if PRESETS[name] == "clip":
        return _clip_config(name, madtp)
    _, size, task = name.split("-")
    vision = _tower(*_BLIP_TOWERS[size])
    text = _tower(*_BLIP_TOWERS["base"])
    return MadtpBlipConfig(
        vision_config={**vision, "patch_size": 16, "image_size": _BLIP_TASKS[task][1], "layer_norm_eps": 1e-6},
        text_config={
            **text,
            "encoder_hidden_size": vision["hidden_size"],
            "vocab_size": 30524,
            "max_position_embeddings": 512,
            "bos_token_id": 30522,
            "eos_token_id": 102,
            "sep_token_id": 102,
            "pad_token_id": 0,
            "label_smoothing": 0.1,
        },
        image_text_hidden_size=256,
        initializer_range=_STD,
        madtp=madtp,
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
        return class_of(PRESETS[name])(config).eval()


def empty(name: str) -> Any:
    """A model of a preset without any storage, to be looked at.

    Raises:
        InputError: no such preset.
    """
    import torch

    config = config_of(name)
    with torch.device("meta"):
        return class_of(PRESETS[name])(config)


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


def _clip_config(name: str, madtp: dict[str, Any]) -> Any:
    from madtp.model.clip import MadtpCLIPConfig

    vision, patch, image, (width, heads) = _CLIP[name]
    text = {
        **_tower(width, 12, heads, 4 * width),
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
        "projection_dim": width,
    }
    pictures = {**_tower(*vision), "patch_size": patch, "image_size": image, "projection_dim": width}
    return MadtpCLIPConfig(vision_config=pictures, text_config=text, projection_dim=width, madtp=madtp)
