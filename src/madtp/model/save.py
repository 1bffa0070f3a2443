"""Saving a model with its processor, each file whole or as it was."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from madtp.errors import InputError
from madtp.files import sync_folder
from madtp.model.load import quiet_host


def disk_says(error: Exception) -> str | None:
    """Why a file could not be written; None if the error is another. Tokenizers raise a bare `Exception` for it."""
    if isinstance(error, OSError | SafetensorError):
        return str(getattr(error, "strerror", None) or error)
    return str(error) if type(error) is Exception and "os error" in str(error) else None


def save_model(model: Any, processor: Any, out: Path) -> None:
    """Weights (safetensors), config and processor into `out`; the config, which makes it a model folder, last.

    Raises:
        InputError: the disk is full or the folder cannot be written; what was there stays.
    """
    temporary = None
    try:
        out.mkdir(parents=True, exist_ok=True)
        for left in out.glob(".saving.*"):  # of a process that was killed while it saved
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=".saving.", dir=out))
        with quiet_host():
            model.save_pretrained(temporary)
            processor.save_pretrained(temporary)
        for file in sorted(temporary.iterdir(), key=lambda f: f.name == "config.json"):
            file.chmod(0o644)
            with open(file, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(file, out / file.name)
        sync_folder(out)
    except Exception as error:
        if (said := disk_says(error)) is None:
            raise
        raise InputError(f"cannot write: {said}", out, "free the disk or choose another --out") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
