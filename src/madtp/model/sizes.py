"""Sizes of models to train from scratch, and the processor that goes with them; CLIP's own are in `clip_sizes`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import BertTokenizer, BlipProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from madtp.errors import InputError
from madtp.model.blip import MadtpBlipForQuestionAnswering
from madtp.model.clip_sizes import CLIP_SIZES, ClipSize, build_clip, build_clip_processor
from madtp.model.config import MadtpBlipConfig, PruneConfig
from madtp.model.init import start_vision_tower
from madtp.model.shape import class_of

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")


@dataclass(frozen=True)
class Size:
    """Width, depth and so on of a model to train from scratch; text and image towers are of one width."""

    image: int
    patch: int
    width: int
    heads: int
    vision_layers: int
    text_layers: int
    semantic: int
    std: float = 0.02
    mlp: int = 4


SIZES: dict[str, Size] = {
    "tiny": Size(image=64, patch=4, width=64, heads=2, vision_layers=8, text_layers=3, semantic=32, std=0.08),
    "small": Size(image=128, patch=8, width=256, heads=4, vision_layers=8, text_layers=6, semantic=50, std=0.04),
    "base": Size(image=384, patch=16, width=768, heads=12, vision_layers=12, text_layers=12, semantic=100),
}


def build_processor(size: Size, texts: Iterable[str]) -> BlipProcessor:
    """A BLIP processor whose vocabulary is the words of `texts`, and letters to spell any other word."""
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
    spell = [*letters, *(f"##{letter}" for letter in letters)]
    vocabulary = list(dict.fromkeys([*SPECIAL, *words, *spell]))
    tokenizer = BertTokenizer(
        vocab={word: i for i, word in enumerate(vocabulary)},
        do_lower_case=True,
        bos_token="[DEC]",
        additional_special_tokens=["[ENC]"],
    )
    return BlipProcessor(BlipImageProcessorPil(size={"height": size.image, "width": size.image}), tokenizer)


def build_config(size: Size, vocabulary: int) -> MadtpBlipConfig:
    """The configuration of a model of that size over a vocabulary that starts with `SPECIAL`."""
    id_of = {word: i for i, word in enumerate(SPECIAL)}
    shared = {
        "hidden_size": size.width,
        "intermediate_size": size.mlp * size.width,
        "num_attention_heads": size.heads,
        "initializer_range": size.std,
    }
    return MadtpBlipConfig(
        vision_config={
            **shared,
            "num_hidden_layers": size.vision_layers,
            "image_size": size.image,
            "patch_size": size.patch,
            "layer_norm_eps": 1e-6,
        },
        text_config={
            **shared,
            "num_hidden_layers": size.text_layers,
            "encoder_hidden_size": size.width,
            "vocab_size": vocabulary,
            "max_position_embeddings": 64,
            "bos_token_id": id_of["[DEC]"],
            "eos_token_id": id_of["[SEP]"],
            "sep_token_id": id_of["[SEP]"],
            "pad_token_id": id_of["[PAD]"],
            "label_smoothing": 0.1,
        },
        initializer_range=size.std,
        madtp=PruneConfig(semantic_tokens=size.semantic).to_dict(),
    )


def find_size(name: str, task: str) -> Size | ClipSize:
    """The size of a name.

    Raises:
        InputError: there is none, or it is not for that task.
    """
    known: dict[str, Size | ClipSize] = {**SIZES, **(CLIP_SIZES if task == "retrieval" else {})}
    if name not in known:
        raise InputError(f"unknown size {name!r} for {task}", "--size", f"one of {', '.join(known)}")
    return known[name]


def build_fresh(task: str, size: Size | ClipSize, texts: Iterable[str]) -> tuple[Any, Any]:
    """A model for a task with fresh weights, from torch's random state, and a processor with the words of `texts`."""
    if isinstance(size, ClipSize):
        processor = build_clip_processor(size, texts)
        return build_clip(size, processor.tokenizer), processor
    processor = build_processor(size, texts)
    return build_blip(task, size, len(processor.tokenizer)), processor


def build_blip(task: str, size: Size, vocabulary: int) -> Any:
    """A BLIP model for a task of that size with fresh weights, from torch's random state."""
    model = class_of(task)(build_config(size, vocabulary))
    start_vision_tower(model.vision_model)
    return model


def build_vqa(size: Size, vocabulary: int) -> MadtpBlipForQuestionAnswering:
    """A VQA model of that size with fresh weights, from torch's random state."""
    model: MadtpBlipForQuestionAnswering = build_blip("vqa", size, vocabulary)
    return model
