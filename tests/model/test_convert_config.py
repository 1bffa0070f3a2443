"""Sizes come from the tensors, and the rest is what the public code sets."""

import pytest
import torch

from madtp.model.config import MadtpBlipConfig
from madtp.model.convert_config import blip_config
from madtp.model.convert_names import map_blip_keys
from madtp.model.shape import class_of
from model.public import original


@pytest.mark.parametrize("kind", ["vqa", "reasoning", "caption", "retrieval"])
def test_sizes_of_blip_base(kind: str) -> None:
    """480 pixels in patches of 16, 12 heads and layers in both towers, BERT's vocabulary: nothing need be given."""
    config = MadtpBlipConfig(text_config={"num_attention_heads": 12}, vision_config={"image_size": 480})
    with torch.device("meta"):
        state = original(class_of(kind)(config), madtp=False)
    state = {name: tensor for name, tensor in state.items() if "cls.predictions.decoder" not in name}
    ours = blip_config(*map_blip_keys(state, kind), kind)
    vision, text = ours.vision_config, ours.text_config
    assert (vision.hidden_size, vision.num_attention_heads, vision.num_hidden_layers) == (768, 12, 12)
    assert (vision.image_size, vision.patch_size, vision.intermediate_size) == (480, 16, 3072)
    assert (text.hidden_size, text.num_attention_heads, text.num_hidden_layers) == (768, 12, 12)
    assert (text.vocab_size, text.bos_token_id, text.sep_token_id) == (30524, 30522, 102)
    assert (text.max_position_embeddings, text.intermediate_size) == (512, 3072)
    assert ours.image_text_hidden_size == 256
    assert text.label_smoothing == (0.1 if kind in ("vqa", "caption") else 0.0)
