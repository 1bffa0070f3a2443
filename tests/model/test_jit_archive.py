"""TorchScript archives: the weights come out equal, and nothing in them is run."""

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from madtp.errors import InputError
from madtp.model.checkpoint import read_checkpoint
from madtp.model.jit_archive import is_jit_archive, read_jit_archive


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(6, 2)
        self.ln_1 = nn.LayerNorm(6)
        self.mlp = nn.Sequential(nn.Linear(6, 11), nn.Linear(11, 6))
        self.attn_mask = torch.ones(5, 5).triu(1)  # no parameter, no buffer
        self.sizes, self.name, self.table = [3, 5], "block", {"a": 1.5}

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln_1(x)
        return self.mlp(self.attn(x, x, x, need_weights=False)[0])


class Clip(nn.Module):
    """The skeleton of OpenAI's CLIP."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(Block(), Block())
        wide = torch.randn(6, 13)
        self.text_projection = nn.Parameter(wide.T)  # strided
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("nothing", torch.empty(0, 3))
        self.register_buffer("part", wide[1:3, 2:5])  # of a storage that another tensor has too
        self.to(dtype)
        self.ln_final = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln_final(self.transformer.resblocks(x).float())


@pytest.fixture(params=[torch.float16, torch.float32], ids=["float16", "float32"])
def model(request: pytest.FixtureRequest) -> Clip:
    torch.manual_seed(3)
    return Clip(request.param).eval()


def archive(model: Clip, path: Path, traced: bool = False) -> Path:
    with warnings.catch_warnings(action="ignore"):  # deprecated, but what OpenAI published stays
        example = torch.randn(5, 2, 6, dtype=model.text_projection.dtype)
        torch.jit.save(torch.jit.trace(model, example) if traced else torch.jit.script(model), path)
    return path


@pytest.mark.parametrize("traced", [False, True])
def test_weights_are_read_equal(model: Clip, tmp_path: Path, traced: bool) -> None:
    path = archive(model, tmp_path / "clip.pt", traced)
    assert is_jit_archive(path)
    state, expected = read_jit_archive(path), model.state_dict()
    masks = {f"transformer.resblocks.{i}.attn_mask" for i in (0, 1)}
    assert state.keys() - expected.keys() <= masks
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name
    assert read_checkpoint(path).state.keys() == state.keys()


def test_what_is_no_archive(tmp_path: Path) -> None:
    plain, text = tmp_path / "plain.pth", tmp_path / "text.pt"
    torch.save({"a": torch.ones(2)}, plain)
    text.write_text("no zip", encoding="utf-8")
    assert not is_jit_archive(plain)
    assert not is_jit_archive(text)


class Hostile:
    """Pickled as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def forged(path: Path, data: bytes, stored: dict[str, bytes] | None = None, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in {"constants.pkl": b"", "data.pkl": data, **(stored or {})}.items():
            file.writestr(f"clip/{name}", content)
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.mkdir, exec, torch.load, getattr], ids=lambda f: f.__name__)
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, function: Any, protocol: int) -> None:
    made = tmp_path / "made"
    data = pickle.dumps({"weight": Hostile(function, str(made))}, protocol)
    path = forged(tmp_path / "clip.pt", data)
    for read in (read_jit_archive, read_checkpoint):
        with pytest.raises(InputError, match="could run code"):
            read(path)
    assert not made.exists()
    if function is os.mkdir:  # it would have
        pickle.loads(data)
        assert made.exists()


class Storages(pickle.Pickler):
    """Writes strings that begin with a colon as storages of float32."""

    def persistent_id(self, obj: Any) -> Any:
        return ("storage", torch.FloatStorage, obj[1:], "cpu", 4) if isinstance(obj, str) and obj[:1] == ":" else None


class Tensors:
    """Pickled as a tensor over a storage."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, (*self.arguments, False, {})


def spoilt(size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    Storages(out, 2).dump(Tensors(":0", 0, size, stride))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "stored", "options"),
    [
        (b"no pickle", {}, {}),
        (pickle.dumps([1, 2]), {}, {}),  # no module
        (spoilt((4,), (1,)), {}, {}),  # no such storage
        (spoilt((4,), (1,)), {"data/0": bytes(15)}, {}),  # cut short
        (spoilt((2, 3), (3, 1)), {"data/0": bytes(16)}, {}),  # larger than its storage
        (spoilt((10**12,), (0,)), {"data/0": bytes(16)}, {}),  # of any size
        (spoilt((4,), (1,)), {"data/0": bytes(16)}, {"compression": zipfile.ZIP_DEFLATED}),
    ],
)
def test_spoilt_archives(tmp_path: Path, data: bytes, stored: dict[str, bytes], options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not a TorchScript archive"):
        read_jit_archive(forged(tmp_path / "clip.pt", data, stored, **options))


def test_an_archive_cut_short(model: Clip, tmp_path: Path) -> None:
    path = archive(model, tmp_path / "clip.pt")
    path.write_bytes(path.read_bytes()[:-100])
    assert not is_jit_archive(path)
    with pytest.raises(InputError, match="cut short"):
        read_checkpoint(path)
