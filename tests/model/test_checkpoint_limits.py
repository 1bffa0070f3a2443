"""Weight files that would be large once read: refused before they are."""

import zipfile
from pathlib import Path

import pytest
import torch

from madtp.errors import InputError
from madtp.model.checkpoint import read_checkpoint
from madtp.model.load import _folder_config


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
    assert not [file for file in sources if "trust_remote_code" in file.read_text(encoding="utf-8")]
