"""Sizes of CLIP models to train from scratch, and the processor that goes with them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from madtp.model.clip import MadtpCLIPModel
from madtp.model.config import MadtpCLIPConfig, PruneConfig
from madtp.model.init import start_vision_tower

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


@dataclass(frozen=True)
class ClipSize:
    """Width, depth and so on of a CLIP model to train from scratch; both towers are of one width."""

    image: int
    patch: int
    width: int
    heads: int
    vision_layers: int
    text_layers: int
    semantic: int
    longest: int = 77


CLIP_SIZES: dict[str, ClipSize] = {
    "clip-tiny": ClipSize(image=64, patch=4, width=64, heads=2, vision_layers=8, text_layers=4, semantic=32),
    "clip-small": ClipSize(image=128, patch=8, width=256, heads=4, vision_layers=8, text_layers=6, semantic=50),
}


def build_clip_processor(size: ClipSize, texts: Iterable[str], vocabulary: int = 4096) -> CLIPProcessor:
    """A CLIP processor whose byte pairs are learned from `texts`; letters spell any other word."""
    pairs = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    pairs.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        # Letters are named too, also as ends of words: the learner would number them anew in every run.
        special_tokens=[START, END, *letters, *(letter + WORD_END for letter in letters)],
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    pairs.train_from_iterator(texts, trainer)
    learned = json.loads(pairs.to_str())["model"]
    tokenizer = CLIPTokenizer(
        learned["vocab"], [tuple(pair) for pair in learned["merges"]], model_max_length=size.longest
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": size.image}, crop_size={"height": size.image, "width": size.image}
    )
    return CLIPProcessor(images, tokenizer)


def build_clip_config(size: ClipSize, tokenizer: CLIPTokenizer) -> MadtpCLIPConfig:
    """The configuration of a model of that size over the tokenizer's vocabulary."""
    shared = {
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_attention_heads": size.heads,
        "projection_dim": size.width,
    }
    return MadtpCLIPConfig(
        vision_config={
            **shared,
            "num_hidden_layers": size.vision_layers,
            "image_size": size.image,
            "patch_size": size.patch,
        },
        text_config={
            **shared,
            "num_hidden_layers": size.text_layers,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": size.longest,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        projection_dim=size.width,
        madtp=PruneConfig(semantic_tokens=size.semantic).to_dict(),
    )


def build_clip(size: ClipSize, tokenizer: CLIPTokenizer) -> MadtpCLIPModel:
    """A CLIP model of that size with fresh weights, from torch's random state."""
    model = MadtpCLIPModel(build_clip_config(size, tokenizer))
    start_vision_tower(model.vision_model)
    return model
