"""int8 on the CPU: near the model in float32, every row by itself, and only where it can be."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from madtp.errors import InputError
from madtp.model import precision
from madtp.model.linear import FastLinear, hasten, pack_weights
from madtp.model.precision import DTYPES, number_type, quantize, ready
from madtp.prune import Trace
from small import KINDS, nano, nano_model


def test_types() -> None:
    assert [number_type(dtype) for dtype in DTYPES] == [torch.float32, torch.bfloat16, torch.float32]
    with pytest.raises(InputError, match=r"unknown type 'float16'.*int8"):
        number_type("float16")


def test_ready() -> None:
    model = ready(nano_model().train(), "cpu", "bfloat16")
    assert model.dtype == torch.bfloat16
    assert not model.training
    large = nn.Sequential(nn.Linear(521, 509))
    hasten(large)
    network = nano_model()
    network.large = large  # its own maps are too small
    assert ready(network, "cpu").large[0].packed is not None


def test_what_was_laid_out_in_float32_is_let_go() -> None:
    model = nano_model()
    large = nn.Sequential(nn.Linear(521, 509))
    hasten(large)
    model.large = large
    pack_weights(model)
    assert model.large[0].packed is not None
    assert quantize(model).large[0].packed is None


def test_a_map_takes_every_row_by_itself() -> None:
    model = quantize(nano_model())
    layer = next(m for m in model.modules() if isinstance(m, FastLinear) and type(m.weight) is not nn.Parameter)
    rows = (
        torch.randn(23, layer.in_features) * torch.logspace(-3, 3, 23)[:, None]
    )  # a common scale would lose the small
    with torch.inference_mode():
        together = layer(rows)
        for place, row in enumerate(rows):
            assert torch.equal(layer(row[None])[0], together[place])
            assert torch.equal(layer(rows[place:])[0], together[place])


@pytest.mark.parametrize("kind", KINDS)
def test_near_float32_and_nearly_as_with_others(kind: str) -> None:
    exact, model = nano(kind), quantize(nano(kind))
    changed = [name for name, p in model.named_parameters() if type(p) is not nn.Parameter]
    assert changed
    whole = ("predictions.decoder", "embed", "madtp_guidance")  # tied; and what decides
    assert not any(part in name for name in changed for part in whole)
    pictures = torch.randn(5, 3, 21, 21, generator=torch.Generator().manual_seed(7))

    def image_tokens(network: Any, pixels: Tensor, temperature: float | None) -> tuple[Tensor, Tensor]:
        network.temperature = temperature
        pruner = network._pruner("vision", Trace(), gather=False, provenance=False)
        tokens = network.vision_model(pixels, pruner)
        return tokens.values, tokens.lengths

    with torch.inference_mode():
        (near, _), (true, _) = (image_tokens(network, pictures, None) for network in (model, exact))
        assert 0 < float((near - true).norm() / true.norm()) < 0.05
        _, together = image_tokens(model, pictures, 8.0)
        assert 0 < int(together.sum()) < len(near)
        for picture, count in zip(pictures, together.tolist(), strict=True):
            _, alone = image_tokens(model, picture[None], 8.0)
            assert abs(int(alone) - count) <= 1  # rounding elsewhere may tip a step of int8


def test_without_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(InputError, match=r"needs torchao.*madtp\[quant\]"):
        quantize(nano_model())


def test_not_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        device = torch.device("meta")

    with pytest.raises(InputError, match="int8 is for the CPU"):
        precision.quantize(Elsewhere())
