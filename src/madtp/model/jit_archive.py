"""Weights out of a TorchScript archive (OpenAI's CLIP is published as such), without running what it holds.

An archive is a zip of `data.pkl` (the module tree), `data/0`, `data/1`, ... (raw numbers) and code, which is not looked
at. The reader of the pickle knows tensors, containers and numbers; modules become plain tables of attributes, and
whatever else a pickle names is refused before anything is called.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.pace import tell

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# They give a list or dictionary its type, and the value passes through.
_ANNOTATED = ("build_boollist", "build_doublelist", "build_intlist", "build_tensorlist", "restore_type_tag")


class _Forbidden(Exception):
    """The pickle names something that is not data."""


class _Module:
    """Attributes of an archived module."""


def is_jit_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, by the names in its zip; False for what is no zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except OSError:
        raise
    except Exception:  # no zip, or one so damaged that its reader stumbles
        return False


def read_jit_archive(path: Path) -> dict[str, Tensor]:
    """The parameters, buffers and other tensor attributes of the archived module by their dotted names, on the CPU.

    Raises:
        InputError: cut short, or it names anything but tensors, containers and modules.
    """
    try:
        tell(0, path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/constants.pkl"))
            root = root.removesuffix("constants.pkl")
            module = _unpickler(archive, root).load()
            state: dict[str, Tensor] = {}
            _flatten(module, "", state)
    except OSError:
        raise
    except _Forbidden as error:
        raise InputError(
            f"holds more than tensors and numbers ({error}), and loading it could run code",
            path,
            "load it where you trust it and save the state dict alone",
        ) from error
    except Exception as error:  # a spoilt archive can make the reader stumble in any way
        raise InputError("cut short or not a TorchScript archive", path, "copy or download the file again") from error
    return state


def _unpickler(archive: zipfile.ZipFile, root: str) -> pickle.Unpickler:
    """A reader of `data.pkl`. All that its pickle can reach is made anew here, so that nothing outlives it."""

    class Module(_Module):
        pass

    def content(name: str) -> bytes:
        if archive.getinfo(root + name).compress_type != zipfile.ZIP_STORED:  # torch never does: it could be any size
            raise ValueError(f"{name} is compressed")
        raw = archive.read(root + name)
        tell(len(raw))
        return raw

    def numbers(kind: torch.dtype, key: str, count: int) -> Tensor:
        raw = bytearray(content(f"data/{key}"))
        if len(raw) != count * kind.itemsize:
            raise ValueError(f"data/{key} holds {len(raw)} bytes for {count} numbers")
        return torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)

    def tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        if math.prod(size) > len(storage):
            raise ValueError(f"{size} of {len(storage)} numbers")
        return storage.as_strided(size, stride, offset).contiguous()

    def alike(value: Any, *_: Any) -> Any:
        return value

    known: dict[tuple[str, str], Callable[..., Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        **{("torch.jit._pickle", name): alike for name in _ANNOTATED},
    }

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in known:
                return known[module, name]
            if module == "torch" and name in _STORAGES:
                return name
            if module == "__torch__" or module.startswith("__torch__."):
                return Module
            raise _Forbidden(f"{module}.{name}")

        def persistent_load(self, pid: Any) -> Tensor:
            _, storage, key, _, count = pid
            return numbers(_STORAGES[storage], str(key), count)

    return Reader(io.BytesIO(content("data.pkl")))


def _flatten(module: _Module, prefix: str, state: dict[str, Tensor]) -> None:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            state[prefix + name] = value
        elif isinstance(value, _Module):
            _flatten(value, f"{prefix}{name}.", state)
