"""GFLOPs of every model of ours against torch's own counter: to the last multiply-accumulate, dense and pruned."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from madtp.cost.flops import count, count_dense
from madtp.cost.shape import dense_trace
from madtp.model.config import MadtpBlipConfig, MadtpCLIPConfig, PruneConfig
from madtp.model.presets import random_inputs
from madtp.model.shape import CLASSES, class_of, kind_of, shape_of
from madtp.prune import Trace
from model.tiny import END, SEMANTIC, randomise, tiny_settings

LONGEST, FEATURES = 13, 19


def tiny(kind: str, temperature: float | None = None, stock: bool = False) -> Any:
    """A random model of a kind, its two towers of two widths."""
    madtp = PruneConfig(semantic_tokens=SEMANTIC, temperature=temperature, attention="dense").to_dict()
    towers = tiny_settings(stock)
    if kind == "reasoning":
        towers["text_config"]["num_hidden_layers"] = 7  # the last merges
    if kind == "clip":
        towers["text_config"]["max_position_embeddings"] = LONGEST
        model = class_of(kind)(MadtpCLIPConfig(**towers, projection_dim=FEATURES, semantic_width=23, madtp=madtp))
    else:
        model = class_of(kind)(MadtpBlipConfig(**towers, image_text_hidden_size=FEATURES, madtp=madtp))
    randomise(model)
    return model.eval()


def inputs_of(model: Any, examples: int = 3) -> dict[str, Any]:
    """Random examples, the texts of several lengths."""
    kind = kind_of(model)
    inputs = random_inputs(kind, model.config, examples, LONGEST)
    if kind != "caption":
        lengths = LONGEST - 2 * torch.arange(examples)
        inputs["attention_mask"] = (torch.arange(LONGEST) < lengths[:, None]).long()
        if kind == "clip":
            inputs["input_ids"][torch.arange(examples), lengths - 1] = END
    return inputs


def counted(run: Callable[[], Any]) -> tuple[float, Any]:
    """Multiply-accumulates that torch sees, which counts two FLOPs each; and what the run returned."""
    plain = patch(
        "madtp.model.linear.computes", return_value=False
    )  # oneDNN's linear maps take spare rows, which are no tokens
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        out = run()
    return counter.get_total_flops() / 2, out


def unseen(model: Any, trace: Trace) -> float:
    """What torch's counter does not see, the merge, less what it sees too much of: the threshold over padded tokens."""
    shape = shape_of(model)
    total = 0
    for block in trace.blocks:
        tower = shape.tower(block.tower)
        for before, after in zip(block.tokens_in.tolist(), block.tokens_out.tolist(), strict=True):
            padding = int(block.tokens_in.max()) + tower.protected - before
            total += ((before - after + 1) * tower.width if after < before else 0) - padding * shape.semantic
    return total


@pytest.mark.parametrize("temperature", [None, 0.7, 30.0])
@pytest.mark.parametrize("stock", [True, False], ids=["one width", "two widths"])
@pytest.mark.parametrize("kind", CLASSES)
def test_towers(kind: str, stock: bool, temperature: float | None) -> None:
    model = tiny(kind, temperature, stock)
    inputs = inputs_of(model)
    run = model if kind == "reasoning" else model.encode  # its classifier is no part of encode
    seen, output = counted(lambda: run(**inputs))
    trace, shape = output.trace, shape_of(model)
    flops = count(shape, trace)
    assert 1e9 * float(flops.total.sum()) == pytest.approx(seen + unseen(model, trace), rel=1e-9)
    parts = {"vision", *({"match"} if shape.match else ()), *({"text"} if shape.text else ())}
    assert {part for part in ("vision", "text", "match", "decoder") if getattr(flops, part).any()} == parts
    pruned = {block.tower for block in trace.blocks if (block.tokens_out < block.tokens_in).any()}
    assert pruned == (parts if temperature == 30.0 else pruned if temperature else set())
    model.temperature = None
    dense, _ = counted(lambda: run(**inputs))
    assert 1e9 * float(count_dense(shape, trace).total.sum()) == pytest.approx(dense, rel=1e-9)


@pytest.mark.parametrize("kind", CLASSES)
def test_dense_trace(kind: str) -> None:
    """What the verb `flops` counts is what a run of that length records."""
    model = tiny(kind)
    trace = model.encode(**random_inputs(kind, model.config, 1, LONGEST)).trace
    shape = shape_of(model)
    expected = dense_trace(shape, LONGEST)
    expected.decoder_tokens = None
    for part in ("vision", "text", "match"):
        assert torch.equal(getattr(count(shape, expected), part), getattr(count(shape, trace), part))


@pytest.mark.parametrize("temperature", [None, 30.0])
def test_captions_teacher_forced(temperature: float | None) -> None:
    """Two captions of one picture and one of another: each is charged its picture in full."""
    model = tiny("caption", temperature)
    pixels = random_inputs("caption", model.config, 2, LONGEST)["pixel_values"]
    ids, index = torch.randint(3, 97, (3, 5)), torch.tensor([0, 0, 1])
    seen, output = counted(lambda: model(pixel_values=pixels, input_ids=ids, image_index=index))
    flops = count(shape_of(model), output.trace)
    assert len(flops.total) == 3 and float(flops.vision[0]) == float(flops.vision[1])
    once = flops.vision[1:].sum() + flops.decoder.sum()
    padded = int(output.encoded.image.lengths.max()) - output.encoded.image.lengths[index]
    wider = _attended(model, padded, tokens=5, sequences=1)
    assert 1e9 * float(once) == pytest.approx(seen + unseen(model, output.trace) - wider, rel=1e-9)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("temperature", [None, 30.0])
def test_captions_generated(temperature: float | None, beams: int) -> None:
    """A prompt goes in at once, and only its last token is turned into logits; then one token a step and beam."""
    model = tiny("caption", temperature).requires_grad_(False)
    inputs = random_inputs("caption", model.config, 1, LONGEST)
    encoded = model.encode(**inputs)
    prompt = torch.tensor([[5, 7, 11, END]])
    options = {"num_beams": beams, "min_new_tokens": 4, "max_new_tokens": 4, "do_sample": False}
    seen, out = counted(lambda: model.generate(input_ids=prompt, encoded=encoded, **options))
    assert out.shape == (1, 3 + 4)
    trace = encoded.trace
    assert (int(trace.decoder_tokens), int(trace.decoder_logits)) == (6 * beams, 4 * beams)
    assert 1e9 * float(count(shape_of(model), trace).decoder) == pytest.approx(seen, rel=1e-9)


def _attended(model: Any, tokens_more: torch.Tensor, tokens: int, sequences: int) -> float:
    """Multiply-accumulates of a decoder that attends to so many padding tokens more."""
    decoder = shape_of(model).decoder
    assert decoder is not None
    a_token = 2 * decoder.width * tokens + sequences * 2 * decoder.context * decoder.width
    return float(decoder.layers * a_token * tokens_more.sum())


@pytest.mark.parametrize("kind", CLASSES)
def test_kind_and_shape_of_a_model(kind: str) -> None:
    model = tiny(kind, temperature=1.0)
    assert kind_of(model) == kind
    shape = shape_of(model)
    assert shape == shape_of(model.config, kind)
    assert (shape.patches, shape.vision.width, shape.vision.mapped, shape.semantic) == (49, 22, True, SEMANTIC)
    assert shape.semantic_width == (23 if kind == "clip" else 26)
    assert (shape.text is None, shape.match is None) == (kind == "caption", kind != "retrieval")
    assert shape.decoder is None or shape.decoder.context == (22 if kind == "caption" else 26)
    model.temperature = None
    assert shape_of(model) == replace(shape, semantic=0)
