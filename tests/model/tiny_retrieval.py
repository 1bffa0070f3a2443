"""Tiny random models for image-text retrieval, see `model.tiny`."""

from typing import Any

from transformers import BlipConfig, BlipForImageTextRetrieval

from madtp.model.blip_retrieval import MadtpBlipForImageTextRetrieval
from madtp.model.config import MadtpBlipConfig, PruneConfig
from model.tiny import SEMANTIC, randomise, tiny_settings

FEATURES = 19


def tiny_retrieval_stock(seed: int = 11, gain: float = 1.3) -> BlipForImageTextRetrieval:
    """A stock model."""
    model = BlipForImageTextRetrieval(BlipConfig(**tiny_settings(), image_text_hidden_size=FEATURES)).eval()
    randomise(model, seed, gain)
    return model


def tiny_retrieval(seed: int = 11, stock: bool = True, **madtp: Any) -> MadtpBlipForImageTextRetrieval:
    """A model of ours; `madtp` are fields of `PruneConfig`."""
    pruning = PruneConfig(**{"semantic_tokens": SEMANTIC, **madtp})
    config = MadtpBlipConfig(**tiny_settings(stock), image_text_hidden_size=FEATURES, madtp=pruning.to_dict())
    model = MadtpBlipForImageTextRetrieval(config).eval()
    randomise(model, seed)
    return model
