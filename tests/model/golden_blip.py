"""Golden BLIP models by name, with the configuration that their weights tell."""

from typing import Any

from torch import Tensor

from goldens import HEADS, golden
from madtp.model.config import MadtpBlipConfig, PruneConfig
from madtp.model.convert import map_vision_keys, vision_sizes
from madtp.model.convert_names import SEMANTIC_TOKENS


def first_ids(case: str) -> tuple[int, int]:
    """[ENC] and [DEC]: the third and second last of the vocabulary (the README's 201 and 202)."""
    words = next(v for k, v in golden(f"{case}.weights").items() if k.endswith("word_embeddings.weight"))
    return len(words) - 3, len(words) - 2


def golden_model(cls: Any, case: str, tower: str) -> Any:
    """A model of ours with the weights of a case; `tower` is the prefix of its text tower's names."""
    weights = golden(f"{case}.weights")
    state: dict[str, Tensor] = map_vision_keys(weights)
    kept = {k: v for k, v in weights.items() if not k.startswith(("visual_encoder.", "space_dict"))}
    state |= {k: v.float() for k, v in kept.items() if not k.endswith("position_ids")}
    names = [k for k in state if k.startswith(tower)]
    words, positions, inner = (
        next(state[k] for k in names if k.endswith(end))
        for end in ("word_embeddings.weight", "position_embeddings.weight", "intermediate.dense.weight")
    )
    text = {
        "vocab_size": len(words),
        "hidden_size": words.shape[1],
        "intermediate_size": len(inner),
        "num_hidden_layers": len([k for k in names if k.endswith("intermediate.dense.weight")]),
        "num_attention_heads": HEADS,
        "max_position_embeddings": len(positions),
        "bos_token_id": len(words) - 2,
        "label_smoothing": 0.1,
    }
    madtp = PruneConfig(semantic_tokens=len(state[SEMANTIC_TOKENS])).to_dict()
    config = MadtpBlipConfig(vision_config=vision_sizes(state, HEADS), text_config=text, madtp=madtp)
    model = cls(config).eval()
    model.load_state_dict(state)
    return model
