"""Tiny random CLIPs and batches for them; every size is another prime, twice it where heads must share it."""

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from madtp.model.clip import MadtpCLIPConfig, MadtpCLIPModel
from madtp.model.config import PruneConfig
from model.tiny import randomise

HEADS, PATCH, GRID = 2, 5, 7
IMAGE = PATCH * GRID
VOCABULARY, POSITIONS, SEMANTIC, FEATURE, SEMANTIC_WIDTH = 101, 43, 17, 19, 29
START, END = VOCABULARY - 2, VOCABULARY - 1
VISION_WIDTH, TEXT_WIDTH = 2 * 11, 2 * 13
VISION_DEPTH, TEXT_DEPTH = 3, 2


def settings(end: int = END) -> dict[str, Any]:
    """Arguments of a `CLIPConfig`."""
    vision = {
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 31,
        "num_hidden_layers": VISION_DEPTH,
        "num_attention_heads": HEADS,
        "image_size": IMAGE,
        "patch_size": PATCH,
        "projection_dim": FEATURE,
    }
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 37,
        "num_hidden_layers": TEXT_DEPTH,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": START,
        "eos_token_id": end,
        "pad_token_id": 0,
        "projection_dim": FEATURE,
    }
    return {"vision_config": vision, "text_config": text, "projection_dim": FEATURE}


def tiny_stock(seed: int = 11, end: int = END, gain: float = 1.0) -> CLIPModel:
    """A stock model."""
    model = CLIPModel(CLIPConfig(**settings(end))).eval()
    randomise(model, seed, gain)
    return model


def tiny_model(seed: int = 11, **madtp: Any) -> MadtpCLIPModel:
    """A model of ours; `madtp` are fields of `PruneConfig`."""
    given = PruneConfig(**{"semantic_tokens": SEMANTIC, **madtp})
    config = MadtpCLIPConfig(**settings(), madtp=given.to_dict(), semantic_width=SEMANTIC_WIDTH)
    model = MadtpCLIPModel(config).eval()
    randomise(model, seed)
    return model


def pictures(count: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 3, IMAGE, IMAGE, generator=generator).to(dtype)


def sentences(lengths: list[int], generator: torch.Generator) -> list[Tensor]:
    """Texts of these many words, between the start and the end token."""

    def words(n: int) -> Tensor:
        return torch.randint(1, START, (n,), generator=generator)

    return [torch.cat([torch.tensor([START]), words(n), torch.tensor([END])]) for n in lengths]


def padded(texts: list[Tensor], n: int = POSITIONS, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Ids and mask `[q, n]`; with a generator the padding is random ids, some on the left, some on the right."""
    ids, mask = torch.zeros(len(texts), n, dtype=torch.long), torch.zeros(len(texts), n, dtype=torch.long)
    if generator is not None:
        ids = torch.randint(0, VOCABULARY, (len(texts), n), generator=generator)
    for i, text in enumerate(texts):
        left = 0 if generator is None else int(torch.randint(0, n - len(text) + 1, (), generator=generator))
        ids[i, left : left + len(text)] = text
        mask[i, left : left + len(text)] = 1
    return ids, mask
