"""The dense image tower as a program of torch.export; what cannot be exported says so."""

import io
from dataclasses import replace

import pytest
import torch

import madtp
from madtp.errors import InputError
from madtp.model.features import ImageFeatures
from small import KINDS, nano


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_gives_what_the_dense_tower_gives(kind: str) -> None:
    model = nano(kind, temperature=8.0)
    before = model.config.to_dict()
    file = io.BytesIO()
    torch.export.save(madtp.export_images(model), file)
    assert model.config.to_dict() == before and not model.training
    file.seek(0)
    program = torch.export.load(file).module()
    model.temperature = None
    torch.manual_seed(5)
    for count in (1, 7):
        pixels = torch.randn(count, 3, 21, 21)
        with torch.no_grad():
            expected, (states, pooled) = ImageFeatures(model)(pixels), program(pixels)
        torch.testing.assert_close(states, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pooled, expected.pooler_output, atol=1e-5, rtol=1e-5)
        assert states.shape == (count, 50, 20) and states.std() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"temperature": 8.0}, {"method": "class_attention", "temperature": 0.3}])
def test_what_cannot_be_exported_says_so(kind: str, how: dict[str, object]) -> None:
    model = nano(kind)
    model.pruning = replace(model.pruning, **how)
    with pytest.raises(InputError, match=r"torch\.export cannot follow it.*use madtp\.export_images"):
        torch.export.export(ImageFeatures(model), (torch.zeros(1, 3, 21, 21),), strict=False)
