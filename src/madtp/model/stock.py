"""Transformers' own class for one of our models, over the same parameters, and the work of its towers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.model.checkpoint import listed

_OURS = ("model_type", "architectures", "madtp", "semantic_width")


def stock_of(model: Any) -> tuple[Any, tuple[str, ...]]:
    """The stock model, its parameters shared with ours, and the names of those it has no place for.

    Raises:
        InputError: transformers has no such model, or not one of these sizes.
    """
    if not hasattr(model, "stock_class"):
        raise InputError("transformers has no model of two images a text, as visual reasoning needs")
    if model.pruning.widths is not None:
        raise InputError("weights have been taken out of this model: transformers has none with layers of many widths")
    settings = {key: value for key, value in model.config.to_dict().items() if key not in _OURS}
    with torch.device("meta"):
        plain = model.stock_class(model.stock_class.config_class(**settings))
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("madtp_")}
    wrong = [
        f"{name} {list(state[name].shape)} for {list(tensor.shape)}"
        for name, tensor in plain.state_dict().items()
        if state[name].shape != tensor.shape
    ]
    if wrong:
        raise InputError(
            f"a {type(plain).__name__} has other shapes for {listed(wrong)}",
            fix="its decoder reads what is as wide as the image tower; a model of two widths stays with madtp",
        )
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    ours_by_name = dict(model.named_modules())
    for name, module in plain.named_modules():  # positions and the like, which no state holds
        module._buffers.update(ours_by_name[name]._buffers)
    if getattr(model, "generation_config", None) is not None:
        plain.generation_config = model.generation_config
    ours = tuple(name for name, _ in model.named_parameters() if name.startswith("madtp_"))
    return plain.eval(), ours


def towers_of(kind: str, stock: Any) -> Callable[..., Any]:
    """What `encode` does, by the stock class: a function of the same arguments, one picture a text.

    Args:
        kind: of the model, a key of `madtp.model.shape.CLASSES`.
        stock: from `stock_of`.
    """

    def clip(pixel_values: Tensor, input_ids: Tensor) -> None:
        stock.get_image_features(pixel_values=pixel_values)
        stock.get_text_features(input_ids=input_ids)

    def caption(pixel_values: Tensor) -> None:
        stock.vision_model(pixel_values=pixel_values)

    def look(pixel_values: Tensor, input_ids: Tensor) -> None:
        seen = stock.vision_model(pixel_values=pixel_values).last_hidden_state
        mask, every = torch.ones_like(input_ids), seen.new_ones(seen.shape[:2], dtype=torch.long)
        stock.text_encoder(input_ids, mask, encoder_hidden_states=seen, encoder_attention_mask=every)

    def retrieval(pixel_values: Tensor, input_ids: Tensor, match: bool) -> None:
        stock.text_encoder(input_ids, torch.ones_like(input_ids))
        look(pixel_values, input_ids)

    by_kind: dict[str, Callable[..., Any]] = {"clip": clip, "caption": caption, "vqa": look, "retrieval": retrieval}
    return by_kind[kind]
