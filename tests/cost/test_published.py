"""The paper's dense GFLOPs from our own count: what was run for each, to the digits that were printed.

The public code counts a forward pass on fixed inputs with fvcore: `print_params_and_flops` in its `utils.py`.
fvcore adds 5 for every number that goes through a layer norm, which we leave out; it is added here.
"""

from collections.abc import Callable

import pytest
import torch

from madtp.cost.flops import count
from madtp.cost.shape import Shape, Tower, dense_trace
from madtp.model.presets import PRESETS, config_of
from madtp.model.shape import shape_of
from madtp.prune import Trace

QUEUE = 57600  # features in each of the two queues of momentum training


def shape(name: str) -> Shape:
    return shape_of(config_of(name), PRESETS[name].kind)


def norms(tower: Tower, tokens: int, cross: bool = False, extra: int = 1) -> float:
    """GFLOPs that fvcore gives to layer norms: two a layer, three with cross-attention, and `extra` outside."""
    return 5 * tokens * tower.width * (tower.layers * (3 if cross else 2) + extra) / 1e9


def reasoning() -> float:
    """Two images and a statement of 36 tokens."""
    model = shape("blip-base-nlvr2")
    assert model.text is not None
    total = float(count(model, dense_trace(model, 36)).total)
    return total + 2 * norms(model.vision, 577) + norms(model.text, 36, cross=True)


def caption() -> float:
    """An image and a caption of 15 tokens, all at once: every token is scored against all 15."""
    model = shape("blip-base-caption")
    trace = dense_trace(model, 15)
    trace.decoder_pairs = torch.tensor([15 * 15])
    text = Tower(768, 12, 3072)
    head = 5 * 15 * 768 / 1e9
    return float(count(model, trace).total) + norms(model.vision, 577) + norms(text, 15, cross=True) + head


def vqa() -> float:
    """One image of 480 pixels, 32 questions padded to 14 tokens, 47 answers padded to 5, all to the first question."""
    model = shape("blip-base-vqa")
    assert model.text is not None
    one = dense_trace(model, 14, 5)
    repeated = Trace(one.blocks, one.image_index)
    first = count(model, one)
    questions = 32 * count(model, repeated).text
    keys = 31 * 12 * 2 * 768 * 768 * 901 / 1e9  # those of the image are computed once for all 32
    one.decoder_tokens, one.decoder_pairs = torch.tensor([47 * 5]), torch.tensor([47 * 25])
    answers = count(model, one).decoder
    head = 5 * 47 * 5 * 768 / 1e9
    text = 32 * norms(model.text, 14, cross=True) + 47 * norms(model.text, 5, cross=True) + head
    return float(first.vision + questions + answers) - keys + norms(model.vision, 901) + text


def retrieval() -> float:
    """An image and a caption padded to 35, as in training: momentum towers, and the caption matched three times."""
    model = shape("blip-base-retrieval")
    assert model.text is not None and model.match is not None
    run = count(model, dense_trace(model, 35))
    queues = 4 * 256 * (QUEUE + 1) / 1e9
    towers = norms(model.vision, 577) + norms(model.text, 35)
    return float(2 * run.features + 3 * run.match) + queues + 2 * towers + 3 * norms(model.match, 35, cross=True)


def clip() -> float:
    """An image and a text of 77 tokens, as in training: momentum towers and queues."""
    model = shape("clip-vit-large-336")
    assert model.text is not None
    run = count(model, dense_trace(model, 77))
    queues = 4 * 768 * QUEUE / 1e9
    towers = norms(model.vision, 577) + 5 * 2 * 1024 / 1e9 + norms(model.text, 77)
    return float(2 * run.total) + queues + 2 * towers


@pytest.mark.parametrize(
    ("published", "digits", "count_of"),
    [(132.54, 2, reasoning), (65.7, 1, caption), (186.1, 1, vqa), (153.2, 1, retrieval), (395.7, 1, clip)],
    ids=["reasoning", "caption", "vqa", "retrieval", "clip"],
)
def test_every_published_figure_is_explained(published: float, digits: int, count_of: Callable[[], float]) -> None:
    assert round(count_of(), digits) == published


@pytest.mark.parametrize(
    ("name", "tokens", "gflops"),
    [
        ("blip-base-nlvr2", 30, 132.54),
        ("blip-base-caption", 20, 65.7),
        ("blip-base-caption", 15, 65.7),
    ],
)
def test_presets_cost_what_the_paper_says(name: str, tokens: int, gflops: float) -> None:
    assert float(count(shape(name), dense_trace(shape(name), tokens)).total) == pytest.approx(gflops, rel=0.01)


def test_users_run_no_momentum_towers() -> None:
    """Less than half of what was published for training."""
    model = shape("blip-base-retrieval")
    assert float(count(model, dense_trace(model, 35)).total) == pytest.approx(70.5, abs=0.05)
    model = shape("clip-vit-large-336")
    assert float(count(model, dense_trace(model, 77)).total) == pytest.approx(197.6, abs=0.05)
