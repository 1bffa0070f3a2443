"""Heads and channels behind masks, and cut out: the same outputs, the cost that torch counts, the same file again."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import madtp.model.linear
from cost.test_flops import counted
from madtp.errors import InputError
from madtp.evaluate import time_towers
from madtp.model.config import PruneConfig
from madtp.model.load import load
from madtp.model.narrow import GatedLinear, fit, outlets
from madtp.model.presets import random_inputs
from madtp.model.ragged import Ragged
from madtp.model.save import save_model
from madtp.model.shape import kind_of, shape_of
from madtp.model.stock import stock_of
from madtp.prune import Trace
from madtp.task.base import cost
from madtp.task.contrast import MomentumContrast
from madtp.task.vqa import VqaTask
from model.tiny import tiny_model
from small import KINDS, contents, nano, nano_model, nano_processor, processor, scenes


def gated(kind: str, share: float = 0.4, **madtp: Any) -> Any:
    """A model with learned masks, no two alike."""
    model = nano(kind, method="upop", **madtp)
    for i, module in enumerate(gates(model)):
        generator = torch.Generator().manual_seed(i)
        module.gate.data = 0.03 * torch.randn(len(module.gate), generator=generator)
    model.temperature = share
    return model


def gates(model: Any) -> list[GatedLinear]:
    return [module for module in model.modules() if isinstance(module, GatedLinear)]


@torch.no_grad()
def results(model: Any) -> tuple[list[Tensor], Trace]:
    """All tokens that the towers put out, and the trace."""
    out = model.encode(**random_inputs(kind_of(model), model.config, 3, 7))
    sides = [getattr(out, name, None) for name in ("image", "question", "text")]
    ragged = [getattr(side, "tokens", getattr(side, "states", side)) for side in sides if side is not None]
    assert ragged and all(isinstance(side, Ragged) for side in ragged)
    return [side.values for side in ragged], out.trace


@pytest.mark.parametrize("share", [0.31, 0.83])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_out_or_masked_is_the_same(kind: str, share: float) -> None:
    model = gated(kind, share)
    narrow = copy.deepcopy(model).narrow()
    assert not gates(narrow) and len(gates(model)) == len(outlets(model))
    (masked, trace), (cut, again) = results(model), results(narrow)
    for one, other in zip(masked, cut, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    model.temperature = None
    assert (results(model)[0][0] - masked[0]).abs().max() > 1e-2, "nothing was masked"
    model.temperature = share
    count = sum(p.numel() for p in narrow.parameters())
    assert count < sum(p.numel() for p in nano(kind).parameters())
    for mine, theirs in zip(cost(model, trace), cost(narrow, again), strict=True):
        torch.testing.assert_close(mine.total, theirs.total)
    assert torch.equal(cost(narrow, again)[1].total, cost(nano(kind), results(nano(kind))[1])[1].total)


@pytest.mark.parametrize("kind", KINDS)
def test_the_account_is_what_torch_counts(kind: str) -> None:
    model = gated(kind, 0.6).narrow()
    model.pruning = replace(model.pruning, attention="dense")
    inputs = random_inputs(kind_of(model), model.config, 3, 7)
    whole = nano(kind, attention="dense")
    with torch.no_grad():
        traced = [cost(m, m.encode(**inputs).trace)[0].total.sum() for m in (model, whole)]
        torchs = [counted(lambda m=m: m.encode(**inputs)) for m in (model, whole)]  # type: ignore[misc]
    # what only one of the two counts is the same in both models: heads, and which texts share an image
    assert 1e9 * float(traced[1] - traced[0]) == pytest.approx(torchs[1] - torchs[0], rel=1e-6)


def test_all_of_it_may_go() -> None:
    """Attentions without heads, MLPs without channels: what is left are biases, by every backend."""
    model = gated("vqa")
    for module in gates(model):
        module.open.zero_()
    expected, _ = results(model)
    narrow = copy.deepcopy(model).narrow()
    for backend in ("auto", "dense", "blocked", "sdpa"):
        narrow.pruning = replace(narrow.pruning, attention=backend)
        for one, other in zip(expected, results(narrow.pack_weights())[0], strict=True):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    blocks = shape_of(narrow).vision.narrow
    assert blocks is not None and set(blocks.attention) == set(blocks.mlp) == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_as_it_was_saved(kind: str, tmp_path: Path) -> None:
    """With its masks, and cut: bit for bit, and the second writing is the first."""
    for name, model in (("masked", gated(kind)), ("cut", gated(kind).narrow())):
        save_model(model, nano_processor(kind), tmp_path / name)
        again: Any = load(tmp_path / name).eval()
        assert again.pruning == model.pruning
        state = again.state_dict()
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        for one, other in zip(results(model)[0], results(again)[0], strict=True):
            assert torch.equal(one, other)
        save_model(again, nano_processor(kind), tmp_path / f"{name}-2")
        first, second = (contents(tmp_path / folder)["model.safetensors"] for folder in (name, f"{name}-2"))
        assert first == second
    config = json.loads((tmp_path / "cut" / "config.json").read_text())["madtp"]
    assert config["widths"] == model.pruning.widths and len(config["widths"]) > 0
    cheap = shape_of(type(model).config_class(**json.loads((tmp_path / "cut" / "config.json").read_text())), kind)
    assert cheap == shape_of(model), "the config alone tells the cost"


def test_another_method_gives_the_dense_model_back() -> None:
    model, plain = nano("vqa", method="upop", temperature=0.5), nano("vqa")
    assert gates(model)
    model.pruning = replace(model.pruning, method="madtp", temperature=None)
    assert not gates(model) and model.state_dict().keys() == plain.state_dict().keys()
    for one, other in zip(results(model)[0], results(plain)[0], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("way", ["narrow", "another method"])
def test_packed_weights_are_let_go_of_when_masks_become_weights(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(madtp.model.linear, "SMALL", 1)
    model = gated("vqa", 0.5).pack_weights()
    plain = copy.deepcopy(model)
    results(model)  # maps that read the same tokens are packed together now
    for each in (model, plain):
        if way == "narrow":
            each.narrow()
        else:
            each.pruning = replace(each.pruning, method="madtp", temperature=None)
    for one, other in zip(results(model)[0], results(plain)[0], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_wrapping_a_stock_model() -> None:
    stock, _ = stock_of(nano("clip"))
    model = type(nano("clip")).from_dense(stock, method="upop", temperature=0.4, semantic_tokens=5)
    assert all(not p.is_meta for p in model.parameters()) and any((m.open == 0).any() for m in gates(model))
    before = {name: value.clone() for name, value in stock.state_dict().items()}
    model.narrow()
    assert all(torch.equal(before[name], value) for name, value in stock.state_dict().items()), "left as it is"


def test_blocks_before_the_first_stay_whole() -> None:
    model = nano("vqa", method="upop", temperature=0.9, first_block=1)
    for outlet in outlets(model):
        assert bool((outlet.out.open == 1).all()) == (outlet.block < 1), outlet.name


def test_closed_masks_learn_and_may_open_again() -> None:
    model = gated("vqa", 0.5)
    batch = random_inputs("vqa", model.config, 3, 7)
    model.train()
    model.encode(**batch).question.values.square().sum().backward()
    for module in gates(model):
        assert module.gate.grad is not None
        assert bool((module.gate.grad[module.open == 0] != 0).any()) or not bool((module.open == 0).any())
    victim = next(module for module in gates(model) if (module.open == 0).any())
    place = int((victim.open == 0).nonzero()[0])
    victim.gate.data[place] = 5.0
    model.temperature = 0.5
    assert victim.open[place] == 1


def test_a_mask_outranks_what_it_multiplies() -> None:
    """The ranking is by mask times norms: where the norms are the same, the masks alone decide."""
    model = nano("vqa", method="upop")
    for outlet in outlets(model):
        for feeder in outlet.feeders:
            feeder.weight.data.fill_(0.1)
        outlet.out.weight.data.fill_(0.1)
        outlet.out.gate.data = -0.001 * torch.arange(outlet.count)
    model.temperature = 0.4
    for module in gates(model):
        assert bool((module.open.diff() <= 0).all()), "the higher its number, the smaller the mask, the sooner it goes"


def test_momentum_towers_have_the_same_masks() -> None:
    model = gated("retrieval", 0.5)
    contrast = MomentumContrast(model, queue_size=0).train()
    model.temperature = 0.7
    contrast.follow()
    own = dict(model.named_buffers())
    opened = {name: buffer for name, buffer in contrast.towers.named_buffers() if name.endswith(".open")}
    assert len(opened) > 5 and all(torch.equal(own[name], buffer) for name, buffer in opened.items())


def test_what_is_refused(tmp_path: Path) -> None:
    model = gated("vqa").narrow()
    for change in ({"temperature": None}, {"method": "madtp"}):
        with pytest.raises(InputError, match="have been taken out"):
            model.pruning = replace(model.pruning, **change)
    with pytest.raises(InputError, match="layers of many widths"):
        stock_of(model)
    with pytest.raises(InputError, match="no dense form"):
        time_towers(model, VqaTask(processor()), scenes("val", 2), pairs=1)
    assert time_towers(model, VqaTask(processor()), scenes("val", 2), pairs=1, dense=nano_model()).speedup > 0
    for widths in ([3], {"a": -1}, {"a": True}):
        with pytest.raises(InputError, match="no names with numbers"):
            PruneConfig(method="upop", temperature=0.5, widths=widths)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such part"):
        fit(nano("vqa"), {"text_decoder.x": 3})
    save_model(model, processor(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["madtp"]["widths"]["vision_model.encoder.layers.0.mlp.fc2"] = 41
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="at most 40"):
        load(tmp_path)
    config["madtp"]["widths"]["vision_model.encoder.layers.0.mlp.fc2"] = 39
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="other shapes"):
        load(tmp_path)


def test_two_widths() -> None:
    """Cross-attention whose keys come from tokens of another width."""
    model = tiny_model(stock=False, method="upop")
    model.temperature = 0.5
    narrow = copy.deepcopy(model).narrow()
    for one, other in zip(results(model)[0], results(narrow)[0], strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)
