"""The image tower for programs that know nothing of madtp: dense, as `torch.export` gives it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


class _DenseImages(nn.Module):
    """What `ImageFeatures` does with temperature None, in the host's own code over the same parameters."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        ours = model.vision_model
        host = next(cls for cls in type(ours).__mro__ if not cls.__module__.startswith("madtp."))
        with torch.device("meta"):
            self.tower = host(type(ours.config)(**ours.config.to_dict()))
        self.tower.load_state_dict(ours.state_dict(), assign=True)
        for name, module in self.tower.named_modules():  # positions and the like, which no state holds
            module._buffers.update(ours.get_submodule(name)._buffers)
        # CLIP's states have not been through the norm that its pooled token goes through; BLIP's have
        self.norm = getattr(self.tower, "post_layernorm", None) if hasattr(model, "visual_projection") else None
        self.head = getattr(model, "visual_projection", None) or getattr(model, "vision_proj", None)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        states = self.tower(pixel_values).last_hidden_state
        pooled = states[:, 0]
        if self.norm is not None:
            pooled = self.norm(pooled)
        if self.head is not None:
            pooled = normalize(linear(pooled, self.head.weight, self.head.bias), dim=-1)
        return states, pooled


def export_images(model: Any) -> torch.export.ExportedProgram:
    """The image tower of any of our models, dense, as a program of `torch.export`; ONNX is made of one.

    The program takes `pixel_values [b, 3, s, s]`, any number of pictures of the model's own size, and gives
    `last_hidden_state [b, patches + 1, c]` and `pooler_output [b, d]`: what `ImageFeatures` gives, temperature None.

    What prunes cannot be exported: how many tokens are left is known only once a picture has been looked at, and
    decides the shapes of all that follows.

    Args:
        model: one of ours; its settings and mode are left as they are.
    """
    size, reference = model.config.vision_config.image_size, next(model.vision_model.parameters())
    some = torch.zeros(2, 3, size, size, dtype=reference.dtype, device=reference.device)
    with torch.no_grad():
        return torch.export.export(
            _DenseImages(model).eval(),
            (some,),
            dynamic_shapes=({0: torch.export.Dim("pictures", min=1)},),
            strict=False,
        )
