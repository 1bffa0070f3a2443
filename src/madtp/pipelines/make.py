"""`madtp.pipeline(task, model=...)`: the calls that users of transformers' pipelines know, for all of our models.

transformers 5 has no "image-to-text" and no "visual-question-answering" pipeline any more; here they are again.
"""

import os
from pathlib import Path
from typing import Any

import torch

from madtp.data.load import TASKS
from madtp.errors import InputError
from madtp.pipelines.answers import CaptionPipeline, ReasoningPipeline, VqaPipeline
from madtp.pipelines.base import Pipeline
from madtp.pipelines.search import RetrievalPipeline
from madtp.task.registry import make_task, task_name

# The names that transformers 4 gave these tasks.
KNOWN_AS = {
    "visual-question-answering": "vqa",
    "image-to-text": "caption",
    "zero-shot-image-classification": "retrieval",
}
PIPELINES: dict[str, type[Pipeline]] = {
    "vqa": VqaPipeline,
    "caption": CaptionPipeline,
    "reasoning": ReasoningPipeline,
    "retrieval": RetrievalPipeline,
}


def pipeline(
    task: str | None = None,
    model: Any = None,
    processor: Any = None,
    *,
    batch_size: int = 1,
    device: str | int | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Any:
    """A model ready for pictures and texts, as transformers' `pipeline` gives one.

    Args:
        task: vqa, caption, reasoning or retrieval, or transformers' name of it ("image-to-text",
            "visual-question-answering", "zero-shot-image-classification"); None = the model's.
        model: folder, hub id, or a model of ours that is loaded.
        processor: of a loaded model; None = the one in its folder.
        batch_size: pictures a batch; answers do not depend on it.
        device, dtype: where it runs, and in which numbers; None = as it is.
        **options: the task's own, as `madtp predict` has them: `prompt`, `beams`.

    Raises:
        InputError: unknown task, no such model, a model of another task, or no processor.
    """
    from madtp.model.load import load, load_processor

    if model is None:
        raise InputError("is missing", "model", "name a model folder or a hub id, or give a loaded model")
    name = KNOWN_AS.get(task, task) if task is not None else None
    if name is not None and name not in TASKS:
        raise InputError(f"unknown task {task!r}", "task", f"use one of {', '.join((*TASKS, *KNOWN_AS))}")
    if isinstance(model, str | os.PathLike):
        source: str | Path = os.fspath(model)
        model = load(source)
    else:
        source = getattr(model, "name_or_path", "")
    if processor is None:
        if not source:
            raise InputError("is missing", "processor", "give that of the loaded model")
        processor = load_processor(source)
    own = task_name(model)
    if name not in (None, own):
        raise InputError(f"is a model for {own}, not for {name}", str(source or "model"), f"use task {own!r}")
    if device is not None or dtype is not None:
        model = model.to(
            **{key: value for key, value in {"device": device, "dtype": dtype}.items() if value is not None}
        )
    return PIPELINES[own](model, make_task(own, processor, **options), batch_size)
