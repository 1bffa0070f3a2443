"""The stock form of our models computes: nothing of it is left without a value."""

import pytest
import torch

from madtp.model.shape import CLASSES
from madtp.model.stock import stock_of
from small import nano


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind != "reasoning"])
def test_no_tensor_is_left_without_a_value(kind: str) -> None:
    model = nano(kind).eval()
    host, ours = stock_of(model)
    tensors = dict(host.named_parameters()) | dict(host.named_buffers())
    assert [name for name, tensor in tensors.items() if tensor.is_meta] == []
    assert ours and all(name.startswith("madtp_") for name in ours)


def test_its_features_are_ours() -> None:
    model = nano("clip").eval()
    model.temperature = None
    host, _ = stock_of(model)
    end = model.config.text_config.eos_token_id
    ids = torch.tensor([[2, 5, 7, end, end], [2, 3, 7, 5, end]])
    pixels = torch.randn(2, 3, *[model.config.vision_config.image_size] * 2)
    with torch.inference_mode():
        for name, given in (
            ("get_text_features", {"input_ids": ids}),
            ("get_image_features", {"pixel_values": pixels}),
        ):
            a, b = (getattr(form, name)(**given) for form in (model, host))
            a, b = (x if isinstance(x, torch.Tensor) else x.pooler_output for x in (a, b))
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
