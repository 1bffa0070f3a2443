"""The one way to load a data set: `load_data(task, source, split)`."""

from pathlib import Path
from typing import Any

from madtp.data.sample import SPLITS, Data
from madtp.errors import InputError

TASKS = ("vqa", "reasoning", "caption", "retrieval")


def load_data(
    task: str, source: str | Path, split: str = "train", *, limit: int | None = None, skip_missing: bool = False
) -> Data[Any]:
    """Load one split of a data set; all that can be checked without decoding pictures is checked.

    Args:
        task: one of `TASKS`; says of which kind the samples are (captions serve captioning and retrieval).
        source: ``scenes``, ``scenes:SEED`` or ``scenes:SEED:N_TRAIN`` (pictures generated in memory, see
            `madtp.data.scenes`), or a folder or file in a form that is known for the task (docs/data.md). A folder that
            happens to be called "scenes" is ``./scenes``.
        split: "train", "val" or "test".
        limit: keep only the first this many samples (with all their texts); None keeps all.
        skip_missing: leave out samples whose pictures are not there, instead of stopping.

    Raises:
        InputError: unknown task or split, wrong limit, no such source, or a fault in its files.
    """
    from madtp.data.easy_vqa import load_easy_vqa
    from madtp.data.scenes import load_scenes, parse_scenes

    if task not in TASKS:
        raise InputError(f"unknown task {task!r}", "--task", f"use one of {', '.join(TASKS)}")
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}", "split", f"use one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise InputError(f"{limit} pictures are none", "limit", "use 1 or more")
    if isinstance(source, str) and source.split(":")[0] == "scenes":
        seed, n_train = parse_scenes(source)
        return load_scenes(task, split, seed=seed, n_train=n_train, limit=limit)
    return load_easy_vqa(source, split, limit=limit)
