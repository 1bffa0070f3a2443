"""`madtp.load` finds the class by itself, and says in one line what is wrong with a folder."""

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BertTokenizer,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPProcessor,
    CLIPTokenizer,
)
from transformers.utils import logging as host

import madtp
from madtp.errors import InputError
from madtp.model.blip import MadtpBlipForQuestionAnswering
from madtp.model.blip_caption import MadtpBlipForConditionalGeneration
from madtp.model.blip_retrieval import MadtpBlipForImageTextRetrieval
from madtp.model.clip import MadtpCLIPModel
from madtp.model.load import is_hub_id, load, load_processor, quiet_host
from madtp.task.words import Words
from model import tiny_clip
from model.tiny import tiny_model, tiny_stock, tiny_stock_captioner
from model.tiny_retrieval import tiny_retrieval_stock


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


def edit_part(folder: Path, part: str, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    edit(folder, **{part: config[part] | changes})


class Code:
    """Ends the tests if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("code was run",)


def pickled(folder: Path, content: Any) -> None:
    """The weights as another would hand them out: a pickle."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content))


def test_ours(folder: Path) -> None:
    model: Any = load(folder)
    assert type(model) is MadtpBlipForQuestionAnswering
    assert model.temperature == 1.25
    assert not model.training
    state, expected = model.state_dict(), tiny_model().state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("stock", "ours"),
    [
        (tiny_stock, MadtpBlipForQuestionAnswering),
        (tiny_stock_captioner, MadtpBlipForConditionalGeneration),
        (tiny_retrieval_stock, MadtpBlipForImageTextRetrieval),
        (tiny_clip.tiny_stock, MadtpCLIPModel),
    ],
)
def test_stock_loads_as_ours_and_dense(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture, stock: Any, ours: Any
) -> None:
    with quiet_host():
        stock().save_pretrained(tmp_path)
    model: Any = load(str(tmp_path))
    assert type(model) is ours
    assert model.temperature is None
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in stock().state_dict().items())
    assert bool(torch.isfinite(model.madtp_guidance.semantic_tokens).all())
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("make", [tiny_clip.tiny_stock, tiny_clip.tiny_model])
def test_the_processor_of_a_clip(tmp_path: Path, make: Any, capfd: pytest.CaptureFixture) -> None:
    words = {word: i for i, word in enumerate([*"abc", *(f"{letter}</w>" for letter in "abc")])}
    tokenizer = CLIPTokenizer({**words, "<|startoftext|>": 6, "<|endoftext|>": 7}, [])
    size = {"height": 35, "width": 35}
    with quiet_host():
        make().save_pretrained(tmp_path)
        CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": 35}, crop_size=size), tokenizer).save_pretrained(
            tmp_path
        )
    processor: Any = load_processor(tmp_path)
    assert type(processor) is CLIPProcessor
    assert processor.tokenizer("ab c").input_ids == [6, 0, 4, 5, 7]
    pixels = processor.image_processor(Image.new("RGB", (53, 41)), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 35, 35)
    assert capfd.readouterr() == ("", "")


def bert_words(count: int) -> BertTokenizer:
    """A tokenizer of so many words, without BLIP's own two."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *(f"word{i}" for i in range(count - len(special)))]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


@pytest.mark.parametrize(
    ("words", "start", "first"),
    [(99, 99, (99, 100)), (99, 97, (2, 2)), (101, 99, (2, 2)), (97, 99, (2, 2))],
    ids=["the hub's", "begins otherwise", "has its own", "of another model"],
)
def test_a_stock_tokenizer_gets_the_tokens_that_begin_blips_texts(
    tmp_path: Path, words: int, start: int, first: tuple[int, int]
) -> None:
    """The hub's BLIPs come with BERT's tokenizer, two words short of the model: [DEC] and [ENC]."""
    with quiet_host():
        tiny_stock_captioner().save_pretrained(tmp_path)
        images = BlipImageProcessorPil(size={"height": 35, "width": 35})
        BlipProcessor(images, bert_words(words)).save_pretrained(tmp_path)
    edit_part(tmp_path, "text_config", vocab_size=101, bos_token_id=start)
    texts = Words(load_processor(tmp_path).tokenizer)
    assert (texts.dec, texts.enc) == first
    assert texts.tokens("word1 word3", texts.dec) == [first[0], 6, 8, 3]


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
        lambda f: edit(f, architectures=["BlipModel"]),
        r"config.json: architecture BlipModel .*; supported are BlipForQuestionAnswering",
    ),
    "head of another family": (
        lambda f: edit(f, architectures=["CLIPModel"]),
        r"config.json: architecture CLIPModel is none of model_type madtp_blip",
    ),
    "no architecture": (lambda f: edit(f, architectures=None), r'config.json: says no "architectures".*; add it, e.g.'),
    "an empty architecture": (lambda f: edit(f, architectures=[]), r'config.json: says no "architectures"'),
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
    "fewer layers than weights": (
        lambda f: edit_part(f, "vision_config", num_hidden_layers=1),
        r"config.json knows of no such layers",
    ),
    "a negative weight": (lambda f: edit(f, madtp={"straight_through": -1}), r"madtp.straight_through: -1 is not 0 or"),
    "a setting of the wrong type": (lambda f: edit(f, madtp={"temperature": "8"}), r"madtp.temperature: '8' is of the"),
    "no object": (lambda f: edit(f, madtp=[8]), r"config.madtp: \[8\] is no object"),
    "an endless temperature": (lambda f: edit(f, madtp={"temperature": math.inf}), r"not above 0 and finite"),
    "architecture of the wrong type": (lambda f: edit(f, architectures=5), r"architecture 5 .* is not supported"),
    "part of the wrong type": (lambda f: edit(f, vision_config=5), r"no model can be made of its config.json"),
    "size of the wrong type": (lambda f: edit_part(f, "text_config", hidden_size="64"), r"no model can be made"),
    "unknown activation": (lambda f: edit_part(f, "text_config", hidden_act="foo"), r"no model can be made"),
    "weights that hold code": (lambda f: pickled(f, Code()), r"pytorch_model.bin: holds more than tensors"),
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
    for name in (tmp_path / "nowhere", "./nowhere", "a/b/c", "../x", "nowhere", "x" * 300, f"{'x' * 300}/y"):
        with pytest.raises(InputError, match="no such folder"):
            load(name)


def test_a_name_in_a_folder_that_is_here_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("runs/half") and is_hub_id("owner/half")
    with pytest.raises(InputError, match="runs/half: no such folder; name a model folder"):
        load("runs/half")


def test_a_processor_that_is_broken_is_told_in_one_line(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(InputError, match="no processor beside the model") as caught:
        load_processor(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


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
