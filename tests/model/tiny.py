"""Tiny random models and batches. Sizes are distinct primes wherever the architecture lets them be.

A stock BLIP for VQA needs both towers of one width (its decoder is built for image tokens but attends to text states);
`tiny_settings(stock=False)` has two widths, and so a map between them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForQuestionAnswering

from madtp.model.blip import MadtpBlipForQuestionAnswering
from madtp.model.blip_caption import MadtpBlipForConditionalGeneration
from madtp.model.blip_reasoning import MadtpBlipForVisualReasoning
from madtp.model.config import MadtpBlipConfig, PruneConfig
from madtp.model.text_pair import MERGE_FROM

HEADS, PATCH, GRID = 2, 5, 7
IMAGE = PATCH * GRID
VOCABULARY, POSITIONS, SEMANTIC = 101, 43, 17
START, END = 97, 89
VISION_DEPTH, TEXT_DEPTH = 3, 2
WIDTH, OTHER_WIDTH = 2 * 11, 2 * 13


def tiny_settings(stock: bool = True, text_depth: int = TEXT_DEPTH) -> dict[str, Any]:
    """`vision_config` and `text_config`."""
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 31,
        "num_hidden_layers": VISION_DEPTH,
        "num_attention_heads": HEADS,
        "image_size": IMAGE,
        "patch_size": PATCH,
        "layer_norm_eps": 1e-6,
        "initializer_range": 0.02,
    }
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH if stock else OTHER_WIDTH,
        "encoder_hidden_size": WIDTH,
        "intermediate_size": 37,
        "num_hidden_layers": text_depth,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": START,
        "sep_token_id": END,
        "eos_token_id": END,
        "label_smoothing": 0.1,
    }
    return {"vision_config": vision, "text_config": text}


def randomise(model: nn.Module, seed: int = 11, gain: float = 1.3) -> None:
    """Weights large enough that attention, scores and thresholds differ from token to token; `gain` = 1 keeps norms."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.dim() < 2:
                norm = name.endswith(("LayerNorm.weight", "norm1.weight", "norm2.weight", "layernorm.weight"))
                parameter.copy_(float(norm) + 0.1 * noise)
            elif "embedding" in name and "patch" not in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(gain * noise * (parameter[0].numel() ** -0.5))


def tiny_stock(seed: int = 11, gain: float = 1.3) -> BlipForQuestionAnswering:
    """A stock model."""
    model = BlipForQuestionAnswering(BlipConfig(**tiny_settings())).eval()
    randomise(model, seed, gain)
    return model


def tiny_stock_captioner(seed: int = 11, gain: float = 1.3, stock: bool = True) -> BlipForConditionalGeneration:
    """A stock model, which may have two widths."""
    model = BlipForConditionalGeneration(BlipConfig(**tiny_settings(stock))).eval()
    randomise(model, seed, gain)
    return model


def tiny_config(stock: bool = True, text_depth: int = TEXT_DEPTH, **madtp: Any) -> MadtpBlipConfig:
    """A configuration of ours; `madtp` are fields of `PruneConfig`."""
    settings = PruneConfig(**{"semantic_tokens": SEMANTIC, **madtp})
    return MadtpBlipConfig(**tiny_settings(stock, text_depth), madtp=settings.to_dict())


def tiny_model(seed: int = 11, stock: bool = True, **madtp: Any) -> MadtpBlipForQuestionAnswering:
    """A model of ours; `madtp` are fields of `PruneConfig`."""
    model = MadtpBlipForQuestionAnswering(tiny_config(stock, **madtp)).eval()
    randomise(model, seed)
    return model


def tiny_captioner(seed: int = 11, stock: bool = True, **madtp: Any) -> MadtpBlipForConditionalGeneration:
    """A captioning model of ours."""
    model = MadtpBlipForConditionalGeneration(tiny_config(stock, **madtp)).eval()
    randomise(model, seed)
    return model


def tiny_reasoner(seed: int = 11, stock: bool = True, **madtp: Any) -> MadtpBlipForVisualReasoning:
    """A visual reasoning model of ours, deep enough for one merge layer."""
    model = MadtpBlipForVisualReasoning(tiny_config(stock, text_depth=MERGE_FROM + 1, **madtp)).eval()
    randomise(model, seed)
    return model


@dataclass(frozen=True)
class Example:
    """An image, and what is asked about it."""

    image: Tensor
    questions: tuple[Tensor, ...]
    answers: tuple[Tensor, ...]


def tiny_examples(generator: torch.Generator, images: int, most_questions: int = 3, longest: int = 30) -> list[Example]:
    """Random images with 1..most_questions questions of 1..longest tokens and one answer of 2..5 tokens each."""

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def words(n: int) -> Tensor:
        return torch.randint(1, VOCABULARY, (n,), generator=generator)

    examples = []
    for _ in range(images):
        count = number(1, most_questions)
        image = torch.randn(3, IMAGE, IMAGE, generator=generator)
        questions = tuple(words(number(1, longest)) for _ in range(count))
        answers = tuple(torch.cat([torch.tensor([START]), words(number(1, 4))]) for _ in range(count))
        examples.append(Example(image, questions, answers))
    return examples


def batch_of(
    examples: list[Example], generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Arguments of `forward`. With a generator the questions' padding is random ids on a random side, some on both."""
    questions = [q for e in examples for q in e.questions]
    answers = [a for e in examples for a in e.answers]
    extra = 0 if generator is None else int(torch.randint(0, 6, (), generator=generator))
    ids, mask = _padded(questions, max(map(len, questions)) + extra, generator)
    answer_ids, answer_mask = _padded(answers, max(map(len, answers)), None)
    index = [i for i, e in enumerate(examples) for _ in e.questions]
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.stack([e.image for e in examples]).to(dtype),
        "image_index": torch.tensor(index),
        "decoder_input_ids": answer_ids,
        "decoder_attention_mask": answer_mask,
    }


@dataclass(frozen=True)
class Statement:
    """What is said about two images of a batch, by their numbers."""

    words: Tensor
    images: tuple[int, int]


def tiny_statements(generator: torch.Generator, images: int, count: int, longest: int = 30) -> list[Statement]:
    """Random statements of 1..longest tokens about any two of the images, in any order, at times one image twice."""
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    words = [torch.randint(1, VOCABULARY, (n,), generator=generator) for n in lengths]
    pairs = torch.randint(0, images, (count, 2), generator=generator).tolist()
    return [Statement(w, (left, right)) for w, (left, right) in zip(words, pairs, strict=True)]


def statement_batch(
    images: Tensor, statements: list[Statement], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Arguments of the reasoner's `forward`; with a generator padded like `batch_of`."""
    extra = 0 if generator is None else int(torch.randint(0, 6, (), generator=generator))
    ids, mask = _padded([s.words for s in statements], max(len(s.words) for s in statements) + extra, generator)
    index = torch.tensor([s.images for s in statements])
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": images, "image_index": index}


def _padded(rows: list[Tensor], n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    ids, mask = torch.zeros(len(rows), n, dtype=torch.long), torch.zeros(len(rows), n, dtype=torch.long)
    if generator is not None:
        ids = torch.randint(0, VOCABULARY, (len(rows), n), generator=generator)
    for i, row in enumerate(rows):
        left = 0 if generator is None else int(torch.randint(0, n - len(row) + 1, (), generator=generator))
        ids[i, left : left + len(row)] = row
        mask[i, left : left + len(row)] = 1
    return ids, mask
