"""Scenes as data sets of every task: made in memory from a seed, or written to a folder that is read back equal."""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from madtp.data.sample import SPLITS, Data
from madtp.data.scene import Scene, SceneSettings
from madtp.data.scene_files import BESIDE, WRITERS, json_list
from madtp.data.scene_questions import ANSWERS
from madtp.data.scene_samples import MAKERS
from madtp.errors import InputError

logger = logging.getLogger(__name__)

N_TRAIN, N_VAL, N_TEST = 8000, 500, 1000
SCHEMA = 1


def parse_scenes(source: str) -> tuple[int, int]:
    """Seed and number of training pictures from ``scenes``, ``scenes:SEED`` or ``scenes:SEED:N_TRAIN``.

    Raises:
        InputError: it is none of these.
    """
    word, *rest = source.split(":")
    if word != "scenes" or len(rest) > 2 or not all(re.fullmatch("[0-9]{1,10}", part) for part in rest):
        raise InputError("is not a scenes source", source, "write scenes, scenes:SEED or scenes:SEED:N_TRAIN")
    seed, n_train = [int(part) for part in rest] + [0, N_TRAIN][len(rest) :]
    _check("vqa", seed, n_train)
    return seed, n_train


def load_scenes(
    task: str,
    split: str = "train",
    *,
    seed: int = 0,
    n_train: int = N_TRAIN,
    limit: int | None = None,
    settings: SceneSettings | None = None,
) -> Data[Any]:
    """One split of the scenes of a seed, in memory; pictures are drawn when opened.

    Val (500) and test (1000) do not depend on ``n_train``, and a smaller train is the beginning of a larger one.
    Questions and captions are about the same pictures, statements about pairs of others.

    Args:
        task: "vqa", "caption" or "retrieval" (captions), "reasoning" (statements about two pictures).
        split: "train", "val" or "test".
        seed: seeds everything.
        n_train: pictures (or pairs) in train.
        limit: only the first this many samples.
        settings: how hard the scenes are.

    Raises:
        InputError: ``task``, ``split``, ``seed`` or ``n_train`` out of range.
    """
    settings = settings or SceneSettings()
    _check(task, seed, n_train)
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}", "split", f"use one of {', '.join(SPLITS)}")
    n = {"train": n_train, "val": N_VAL, "test": N_TEST}[split]
    n = n if limit is None else min(n, limit)
    samples = tuple(MAKERS[task](seed, split, n, settings))
    return Data(samples, f"scenes:{seed}:{n_train}", split, ANSWERS if task == "vqa" else ())


def write_scenes(
    folder: str | Path,
    *,
    task: str = "vqa",
    seed: int = 0,
    n_train: int = N_TRAIN,
    n_val: int = N_VAL,
    n_test: int = N_TEST,
    settings: SceneSettings | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the scenes of a seed as a folder in a form that others use too, which `load_data` reads back.

    Questions go in easy-VQA's form, captions (both tasks of them) in Karpathy's, statements in NLVR2's. Each split also
    gets ``scenes.json``: the symbolic scenes, and the kind of each question. Everything is written
    beside ``folder`` and moved into place when complete, so a killed run leaves no folder that looks whole.

    Args:
        folder: where; it must not hold anything yet.
        task: one of `MAKERS`.
        seed: seeds everything.
        n_train, n_val, n_test: pictures (or pairs) in each split, at least 1.
        settings: how hard the scenes are.
        overwrite: replace a folder that this function wrote before (no other is ever replaced).

    Returns:
        ``folder``.

    Raises:
        InputError: the folder is taken, a number is out of range, or the disk refuses.
    """
    folder, settings = Path(folder), settings or SceneSettings()
    sizes = {"train": n_train, "val": n_val, "test": n_test}
    for n in sizes.values():
        _check(task, seed, n)
    _check_free(folder, overwrite)
    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        part.chmod(0o755)
        splits = {split: MAKERS[task](seed, split, n, settings) for split, n in sizes.items()}
        for split, notes in WRITERS[task](part, splits):
            head = {"schema": SCHEMA, "seed": seed, "split": split, "settings": asdict(settings)}
            _write_notes(part / split / "scenes.json", head, notes)
            logger.info("%s: %d pictures written", split, len(notes))
        _move_into_place(part, folder)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", folder, "free the disk or move") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def read_scenes(folder: str | Path, split: str = "train") -> dict[str, Scene]:
    """Image id -> symbolic scene of one split that `write_scenes` wrote.

    Raises:
        InputError: there is no scenes.json or it is not one of ours.
    """
    path = Path(folder) / split / "scenes.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, expected {SCHEMA}")
        return {str(entry["image"]): Scene.from_dict(entry["scene"]) for entry in content["scenes"]}
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path, "give a folder of written scenes") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"is not a scenes file: {error}", path) from error


def _check(task: str, seed: int, n: int) -> None:
    if task not in MAKERS:
        raise InputError(f"unknown task {task!r}", "scenes", f"use one of {', '.join(MAKERS)}")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed {seed} is out of range", "scenes", "use 0 to 4294967295")
    if not 1 <= n <= 10_000_000:
        raise InputError(f"{n} pictures cannot be made", "scenes", "use 1 to 10 million")


def _write_notes(path: Path, head: Mapping[str, object], notes: Sequence[str]) -> None:
    opening = json.dumps(head)[:-1]
    path.write_text(f'{opening}, "scenes": {json_list(notes)}}}\n', encoding="utf-8")


def _check_free(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder", folder, "choose another")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise InputError("holds something already", folder, "choose another or overwrite")
    names = {entry.name for entry in folder.iterdir()}
    ours = names >= {*SPLITS} and names - {*SPLITS} in BESIDE
    if not ours or not all((folder / split / "scenes.json").is_file() for split in SPLITS):
        raise InputError("is not a folder of scenes, so it is not replaced", folder, "choose another")


def _move_into_place(part: Path, folder: Path) -> None:
    """Rename, the old folder first out of the way: at no moment does ``folder`` hold a mixture."""
    if folder.is_dir() and any(folder.iterdir()):
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
        os.rename(folder, old)
        try:
            os.rename(part, folder)
        except OSError:
            os.rename(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(part, folder)
