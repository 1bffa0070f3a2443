"""The image tower of any of our models by itself, for the stock image-feature-extraction pipeline."""

import copy
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from madtp.prune import Trace


class ImageFeatures(PreTrainedModel):
    """A pruned image tower that takes pictures alone; it shares the model's parameters.

    Args:
        model: one of ours; its temperature is this one's, too.
    """

    base_model_prefix = "model"
    _supports_sdpa = True  # whatever the model was loaded with is right: its own attention runs

    def __init__(self, model: Any) -> None:
        super().__init__(copy.deepcopy(model.config))  # the host marks a config as used by a class
        self.model = model
        self.eval()

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> BaseModelOutputWithPooling:
        """`last_hidden_state` `[b, patches + 1, c]`: the tokens left, behind them zeros, so that pictures stay apart.

        `pooler_output`: `[b, d]` the contrastive feature of length 1 of a model for retrieval; of others the pooled
        token `[b, c]`.
        """
        if hasattr(self.model, "feature_width"):
            side = self.model.see(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
            tokens, pooled = side.tokens, side.feature
        else:
            pruner = self.model._pruner("vision", Trace(), gather=False, provenance=False)
            backend = self.model.pruning.attention
            tokens = self.model.vision_model(pixel_values, pruner, backend, interpolate_pos_encoding)
            pooled = tokens.first()
        patch = self.config.vision_config.patch_size
        whole = 1 + (pixel_values.shape[-2] // patch) * (pixel_values.shape[-1] // patch)
        states = tokens.padded()[0]
        return BaseModelOutputWithPooling(nn.functional.pad(states, (0, 0, 0, whole - states.shape[1])), pooled)
