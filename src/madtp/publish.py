"""A model to a hub, or to a local folder as it would stand there: weights, processor, and a card with what it costs."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from madtp.errors import InputError
from madtp.files import atomic_write
from madtp.model.load import is_hub_id, load_processor
from madtp.model.save import save_model
from madtp.report.card import model_card
from madtp.task.registry import task_name

REPORT = "report.json"


def push_to_hub(
    model: Any,
    to: str | Path,
    processor: Any = None,
    report: str | Path | Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload model",
) -> str:
    """Write a model, its processor and a model card with the measured table to a hub or a local folder.

    Args:
        model: one of ours.
        to: ``owner/name`` on the hub; or a folder: a `Path`, or text that begins with "." or "/", or that is a folder.
        processor: of the model; None = the one in the folder that it was loaded from.
        report: what `madtp evaluate --out` wrote (the folder, the file or its contents); None = the ``report.json`` in
            the folder that the model was loaded from, if there is one.
        overwrite: replace what the folder holds of the same names.
        private, token, commit_message: as transformers' `push_to_hub` has them.

    Returns:
        the folder's path, or the address of the commit.

    Raises:
        InputError: no processor, no such report, or a folder that holds something.
    """
    source = str(getattr(model, "name_or_path", "") or "")
    if processor is None:
        if not source:
            raise InputError("is missing", "processor", "give that of the model")
        processor = load_processor(source)
    measured = _report(report, source)
    if isinstance(to, Path) or str(to).startswith((".", "/", "~")) or os.path.isdir(to):
        folder = Path(to).expanduser()
        if folder.is_dir() and any(folder.iterdir()) and not overwrite:
            raise InputError("is not empty", folder, "choose another folder, or overwrite=True")
        _write(model, processor, measured, folder, str(to))
        return str(folder)
    if not is_hub_id(to):
        raise InputError("is neither owner/name nor a folder", to, "a folder that is new begins with ./ or /")
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    name = api.create_repo(str(to), private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder_name:
        _write(model, processor, measured, Path(folder_name), name)
        return str(api.upload_folder(repo_id=name, folder_path=folder_name, commit_message=commit_message))


def _write(model: Any, processor: Any, report: Mapping[str, Any] | None, folder: Path, name: str) -> None:
    settings = model.pruning
    facts = {
        "class": type(model).__name__,
        "task": task_name(model),
        "method": settings.method,
        "temperature": settings.temperature,
        "reduction": settings.reduction,
        "curve": None if settings.curve is None else settings.curve.to_dict(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    text = model_card(name, facts, report)
    save_model(model, processor, folder)
    atomic_write(folder / "README.md", text)


def _report(given: str | Path | Mapping[str, Any] | None, source: str) -> Mapping[str, Any] | None:
    if isinstance(given, Mapping):
        return given
    file = Path(source or ".") / REPORT if given is None else Path(given)
    if file.is_dir():
        file = file / REPORT
    if given is None and (not source or not file.is_file()):
        return None
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(report, dict) and isinstance(report.get("rows"), list):
            return report
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file, "give what `madtp evaluate --out` wrote") from error
    raise InputError("is no report of ours", file, "give what `madtp evaluate --out` wrote")
