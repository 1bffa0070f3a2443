"""`madtp.load` finds the class by itself, and says in one line what is wrong with a folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as host

import madtp
from madtp.errors import InputError
from madtp.model.blip import MadtpBlipForQuestionAnswering
from madtp.model.load import load, quiet_host
from model.tiny import tiny_model, tiny_stock


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    with quiet_host():
        tiny_model(temperature=1.25).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_ours(folder: Path) -> None:
    model: Any = load(folder)
    assert type(model) is MadtpBlipForQuestionAnswering
    assert model.temperature == 1.25
    assert not model.training
    state, expected = model.state_dict(), tiny_model().state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_stock_loads_as_ours_and_dense(
    folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    with quiet_host():
        tiny_stock().save_pretrained(folder)
    model: Any = load(str(folder))
    assert type(model) is MadtpBlipForQuestionAnswering
    assert model.temperature is None
    assert bool(torch.isfinite(model.madtp_guidance.semantic_tokens).all())
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_arguments_reach_from_pretrained(folder: Path) -> None:
    assert load(folder, dtype=torch.float64).dtype == torch.float64


def test_the_host_is_left_as_found(folder: Path) -> None:
    level, bars = host.get_verbosity(), host.is_progress_bar_enabled()
    load(folder)
    assert (host.get_verbosity(), host.is_progress_bar_enabled()) == (level, bars)


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"model: no config.json"),
    "config cut short": (lambda f: (f / "config.json").write_text('{"a":'), r"config.json: not JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), r"config.json: holds no JSON object"),
    "other model": (
        lambda f: edit(f, model_type="bert"),
        r"config.json: architecture .*model_type bert.* not supported",
    ),
    "other head": (
        lambda f: edit(f, architectures=["BlipForConditionalGeneration"]),
        r"config.json: architecture BlipForConditionalGeneration .*; supported are BlipForQuestionAnswering",
    ),
    "no architecture": (lambda f: edit(f, architectures=None), r"config.json: architecture none "),
    "cut in half": (cut, r"model.safetensors: cut short"),
    "not safetensors": (
        lambda f: (f / "model.safetensors").write_bytes(b"x" * 999),
        r"model.safetensors: cut short or not",
    ),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), r"model.safetensors: cut short or not"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model: no weights can be loaded"),
    "other shape": (
        lambda f: weights(f, lambda s: s.update({"text_decoder.cls.predictions.bias": torch.ones(7)})),
        r"model: the weights have other shapes than config.json says",
    ),
    "a tensor lacks": (
        lambda f: weights(f, lambda s: s.pop("vision_model.post_layernorm.bias")),
        r"model: the weights lack 1 \(vision_model.post_layernorm.bias\)",
    ),
    "no semantic tokens": (
        lambda f: weights(f, lambda s: s.pop("madtp_guidance.semantic_tokens")),
        r"model: the weights lack 1 \(madtp_guidance.semantic_tokens\)",
    ),
    "unknown setting": (
        lambda f: edit(f, madtp={"temprature": 1.0}),
        r"config.json: config.madtp: unknown keys temprature",
    ),
    "impossible setting": (lambda f: edit(f, madtp={"temperature": -1.0}), r"temperature -1.0 is not above 0"),
    "index": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}'),
        r"index.json: names files that are not there: model-1.safetensors",
    ),
    "broken index": (lambda f: (f / "model.safetensors.index.json").write_text("{}"), r"index.json: not an index"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_in_one_line(folder: Path, fault: str, capfd: pytest.CaptureFixture) -> None:
    spoil, says = FAULTS[fault]
    spoil(folder)
    with pytest.raises(InputError, match=says) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_paths_that_are_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "blip.pth"
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"blip.pth: is a file.*convert"):
        load(file)
    for name in (tmp_path / "nowhere", "./nowhere", "a/b/c", "../x"):
        with pytest.raises(InputError, match="no such folder"):
            load(name)


def test_an_unreachable_hub_id_is_the_users_fault() -> None:
    with pytest.raises(InputError, match="nobody/has-this: no such folder, and no model of this name"):
        load("nobody/has-this")


def test_the_package_hands_it_out_on_demand() -> None:
    assert madtp.load is load
    assert madtp.MadtpBlipForQuestionAnswering is MadtpBlipForQuestionAnswering
    assert set(madtp.__all__) <= set(dir(madtp))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        madtp.nonsense  # noqa: B018
    environment = os.environ | {"PYTHONPATH": str(Path(madtp.__file__).parents[1])}
    code = "import sys, madtp, madtp.model.load; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "False"]
