"""Files of models that would be large once read, or have code run: refused before they are, and do."""

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from madtp.errors import InputError
from madtp.model.checkpoint import read_checkpoint
from madtp.model.convert import convert
from madtp.model.load import _folder_config, load, load_processor
from model.public import GIVEN, made
from small import model_folder


def test_tensors_stretched_over_one_number(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10_007, 10_009)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="a is no plain tensor"):
        read_checkpoint(tmp_path / "a.pth")


def test_many_views_of_one_tensor(tmp_path: Path) -> None:
    one = torch.zeros(20_011)
    torch.save({str(i): one for i in range(7)}, tmp_path / "few.pth")
    assert len(read_checkpoint(tmp_path / "few.pth").state) == 7
    torch.save({str(i): one for i in range(23)}, tmp_path / "many.pth")
    with pytest.raises(InputError, match="more than 8 times the file"):
        read_checkpoint(tmp_path / "many.pth")


def test_sparse_tensors(tmp_path: Path) -> None:
    sparse = torch.sparse_coo_tensor([[0]], [1.0], (10_007,), check_invariants=True)
    torch.save({"a": sparse}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a is no plain tensor|could run code|not a checkpoint"):
        read_checkpoint(tmp_path / "a.pth")


def test_compressed_members(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(100_003)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    with pytest.raises(InputError, match="holds compressed members"):
        read_checkpoint(tmp_path / "small.pth")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"text_config": {"vocab_size": 1048577}}', r"text_config\.vocab_size is 1048577, more than 1048576"),
        ('{"vision_config": {"num_hidden_layers": 257}}', "num_hidden_layers is 257, more than 256"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 30 + "1" + "}" * 30, "nested too deep"),
    ],
)
def test_configs_of_models_that_no_machine_holds(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=said):
        _folder_config(tmp_path)


def test_no_code_of_a_model_is_ever_trusted() -> None:
    import madtp

    sources = list(Path(madtp.__file__).parent.rglob("*.py"))
    assert len(sources) > 100
    for file in sources:
        text = file.read_text(encoding="utf-8")
        assert text.count("trust_remote_code") == text.count("trust_remote_code=False"), file


def test_code_beside_a_model_is_not_run_whoever_says_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked at a terminal, the host would run it after a "y"; a pipe may say that too."""
    folder, proof = model_folder(tmp_path / "model"), tmp_path / "was-run"
    code = (
        f"from transformers import BlipImageProcessor as Img, PreTrainedTokenizerFast as Tok\nopen({str(proof)!r}, 'w')"
    )
    (folder / "evil.py").write_text(code)

    def edit(name: str, change: Callable[[Any], None]) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    edit("config.json", lambda c: c.update(auto_map={"AutoConfig": "evil.Img", "AutoModel": "evil.Img"}))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    load(folder)
    load_processor(folder)
    edit(
        "tokenizer_config.json", lambda c: c.update(auto_map={"AutoTokenizer": ["evil.Tok"] * 2}, tokenizer_class="Tok")
    )
    said = "asks for code of its own, which is never run"
    with pytest.raises(InputError, match=said):
        load_processor(folder)
    torch.save(made(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=said):
        convert(tmp_path / "a.pth", tmp_path / "out", tokenizer=str(folder), **GIVEN)
    edit("tokenizer_config.json", lambda c: [c.pop("auto_map"), c.pop("tokenizer_class")])
    load_processor(folder)
    own = {"auto_map": {"AutoImageProcessor": "evil.Img"}, "image_processor_type": "Img"}
    edit("processor_config.json", lambda c: c["image_processor"].update(own))
    with pytest.raises(InputError, match=said):
        load_processor(folder)
    assert not proof.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 3}', '{"model": {"type": "BPE", "vocab": {"a": -1}}}'])
def test_a_tokenizer_that_is_damaged(content: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "tokenizer.json").write_text(content)
    torch.save(made(), tmp_path / "a.pth")
    with pytest.raises(InputError, match="no tokenizer can be loaded from there"):
        convert(tmp_path / "a.pth", tmp_path / "out", tokenizer=str(folder), **GIVEN)
    with pytest.raises(InputError, match="no processor beside the model"):
        load_processor(folder)


@pytest.mark.parametrize("length", [2**63 - 1, 200_000_001, 2**20])
def test_a_header_longer_than_its_file_or_than_any(length: int, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + b"{" + b" " * 1000 + b"}")
    with pytest.raises(InputError, match=r"a\.safetensors: cut short or not a safetensors file"):
        read_checkpoint(file)
