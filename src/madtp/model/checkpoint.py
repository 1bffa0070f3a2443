"""Reading weight files that others wrote: nothing in them is run, and what is wrong with one is said in one line."""

import errno
import io
import math
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from madtp.errors import InputError
from madtp.model.jit_archive import is_jit_archive, read_jit_archive
from madtp.pace import PacedFile, tell

MAX_SHARED = 8  # times that the numbers in a file may be used: BLIP's are saved with some of them under two names


@dataclass(frozen=True)
class Checkpoint:
    """A state dict in the names of whoever wrote it.

    Attributes:
        state: tensors by name.
        temperature: the pruning temperature stored beside them; None = none was, or the model is dense.
    """

    state: dict[str, Tensor]
    temperature: float | None = None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a `.pth` (`{"model": state, ...}` or a bare state dict), a TorchScript archive or a `.safetensors` file.

    Raises:
        InputError: no such file, cut short, no checkpoint, or a pickle that holds code.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError("is a folder", path, "name the checkpoint file itself (.pth or .safetensors)")
    if not path.is_file():
        raise InputError("no such file", path, "name a checkpoint (.pth or .safetensors)")
    try:
        if path.suffix == ".safetensors":
            content: Any = read_safetensors(path)
        else:
            content = read_jit_archive(path) if is_jit_archive(path) else _read_pickle(path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path) from error
    return _checkpoint(content, path)


def read_safetensors(path: Path, *, tensors: bool = True) -> dict[str, Tensor]:
    """All tensors of a safetensors file; with `tensors=False` only the check that it is whole.

    Raises:
        InputError: the file is cut short or not safetensors.
    """
    try:
        tell(0, path.stat().st_size if tensors else 0)
        with safe_open(path, framework="pt") as file:
            state = {}
            for name in file.keys() if tensors else ():
                state[name] = file.get_tensor(name)
                tell(state[name].nbytes)
            return state
    except SafetensorError as error:
        raise InputError(
            f"cut short or not a safetensors file ({error})", path, "copy or download the file again"
        ) from error


def _check_zip(path: Path) -> None:
    """Refuse what torch would take for its zip but holds compressed members, which could be of any size.

    Raises:
        InputError: it does, or its list of members cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":  # by which torch tells
            return
    try:
        with zipfile.ZipFile(path) as archive:
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    except OSError:
        raise
    except Exception as error:  # damaged lists make the reader stumble in any way
        raise InputError("cut short or not a checkpoint", path, "copy or download the file again") from error
    if not stored:
        raise InputError("holds compressed members, as no checkpoint does", path, "save it anew with torch.save")


def _read_pickle(path: Path) -> Any:
    _check_zip(path)
    try:
        with warnings.catch_warnings(action="ignore"), io.BufferedReader(PacedFile(path)) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a spoilt pickle can make the reader stumble in any way
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch's word for a zip without its end
            raise
        if re.search("GLOBAL|unrecognized function|allowlisted", str(error)) or _calls(path):
            raise InputError(
                "holds more than tensors and numbers, and loading it could run code",
                path,
                "load it where you trust it and save the state dict alone",
            ) from error
        raise InputError("cut short or not a checkpoint", path, "copy or download the file again") from error


def _calls(path: Path) -> bool:
    """Whether a bare pickle names functions to call; nothing of it is run."""
    try:
        with open(path, "rb") as file:
            names = {code.name for code, _, _ in pickletools.genops(file)}  # all of them: any text has an opcode or two
            return not names.isdisjoint({"GLOBAL", "STACK_GLOBAL", "INST"})
    except Exception:  # no pickle, or not whole
        return False


def _checkpoint(content: Any, path: Path) -> Checkpoint:
    state, temperature = content, None
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        state, temperature = content["model"], _temperature(content.get("temperature"), path)
    if not isinstance(state, Mapping) or not state:
        raise InputError("holds no state dict", path, "a checkpoint is {'model': state dict} or a state dict")
    strange = [str(name) for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise InputError(
            f"holds no state dict: {listed(strange)} are no tensors",
            path,
            "a checkpoint is {'model': state dict} or a state dict",
        )
    _check_extent(state, path)
    return Checkpoint(dict(state), temperature)


def _check_extent(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that a small file makes large: stretched, sparse, quantised, or many views of one.

    Raises:
        InputError: a tensor is not plain, or all together are far larger than the file.
    """
    total = 0
    for name, tensor in state.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
        size = tensor.numel() * tensor.element_size()
        if not plain or size > tensor.untyped_storage().nbytes():
            raise InputError(f"{name} is no plain tensor", path, "save the state dict with plain tensors")
        total += size
    if total > MAX_SHARED * path.stat().st_size:
        said = f"its tensors are {total / 1e9:.1f} GB, more than {MAX_SHARED} times the file"
        raise InputError(said, path, "save every tensor once")


def _temperature(value: Any, path: Path) -> float | None:
    if value is None:
        return None
    try:
        temperature = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"its temperature is no number: {value!r}", path) from error
    if not math.isfinite(temperature) or temperature < 0:
        raise InputError(f"its temperature is {temperature}, not 0 (dense) or more", path)
    return temperature or None


def listed(names: list[str] | set[str]) -> str:
    """How many, and the first five: `7 (a, b, c, d, e, ...)`."""
    first = sorted(names)[:5]
    return f"{len(names)} ({', '.join(first)}{', ...' if len(names) > 5 else ''})"
