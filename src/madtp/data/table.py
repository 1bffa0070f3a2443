"""People's own data: tables (.csv, .tsv, .jsonl) with one picture and text a row, and plain folders of pictures."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from madtp.data.files import Entry, first, read_table
from madtp.data.gather import ANNOTATIONS, Names, Request, full_id, group
from madtp.data.sample import CaptionSample, Data, Question, Statement
from madtp.data.split import choose_split
from madtp.data.vqa import make_question
from madtp.errors import InputError

logger = logging.getLogger(__name__)

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
IMAGE = ("image", "image_path", "file_name", "filename", "file", "path")
LEFT, RIGHT = ("left", "image_left", "left_image"), ("right", "image_right", "right_image")
STATEMENT = ("statement", "sentence", "text")
CAPTIONS = ("captions", "caption", "text")
NAME = ("id", "question_id", "identifier")


def tables(path: Path) -> list[Path]:
    """The table itself, or those in a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() in TABLE_ENDINGS and file.is_file()]


def load_table(request: Request) -> Data[Any]:
    """A table with columns by name (docs/data.md), or a table a split.

    Splits come from the names of several files (``train.csv``, ``val.csv``, ``test.csv``), or from a column ``split``,
    or are held out (see `choose_split`).

    Raises:
        InputError: which table is not clear, a fault in it, no such split, or pictures are missing.
    """

    def grouped(entries: list[Entry]) -> dict[Names, list[Any]]:
        return group(entries, _names(request.task), _text(request.task))

    groups: dict[str, dict[Names, list[Any]]] = {}
    files = tables(request.path)
    named = [file for file in files if file.stem.lower() in SPLIT_WORDS] if request.path.is_dir() else []
    for file in named:
        split = SPLIT_WORDS[file.stem.lower()]
        if split in groups:
            raise InputError(f"several tables of split {split!r}", request.path, "leave one of them there")
        groups[split] = grouped(read_table(file))  # at once: rows take several times as much as what is made of them
    if not named:
        parts: dict[str, list[Entry]] = {}
        if len(files) > 1:
            what = f"several tables: {first([file.name for file in files])}"
            raise InputError(what, request.path, "give the file, or name them train, val and test")
        for entry in read_table(files[0]):
            parts.setdefault(_split(entry), []).append(entry)
        if "" in parts and len(parts) > 1:
            raise InputError("has no 'split'", parts[""][0].where, "other rows have one: give it in all or none")
        groups = {split: grouped(entries) for split, entries in parts.items()}
    return request.data(choose_split(groups, request.split, request.path), request.roots(), name_of=full_id)


def _split(entry: Entry) -> str:
    word = str(entry.get("split") or "").strip().lower()
    if word and word not in SPLIT_WORDS:
        raise InputError(f"the split is {word!r:.60}", entry.where, "use train, val or test")
    return SPLIT_WORDS.get(word, "")


def _names(task: str) -> Any:
    def names(entry: Entry) -> list[str]:
        if task == "reasoning" and entry.get(*LEFT, *RIGHT) is not None:
            return [entry.text(*LEFT), entry.text(*RIGHT)]
        return [entry.text(*IMAGE)]

    return names


def _text(task: str) -> Any:
    return {"vqa": own_question, "reasoning": _statement}.get(task, own_captions)


def own_question(entry: Entry, name: str | None = None) -> Question:
    """A question from the columns ``question``, ``answer`` (``answer2``... or a list ``answers``), ``kind``, ``id``.

    Args:
        entry: the row.
        name: the question's id where there is no such column; None = file and line.
    """
    columns = [name for name in entry.fields if re.fullmatch(r"answers?_?\d*", name)]
    answers = [answer for name in columns for answer in entry.texts(name)]
    return make_question(entry, answers, _name(entry, name))


def own_captions(entry: Entry) -> list[str]:
    """Captions from the column ``caption``, or a list ``captions``. Raises InputError where there is none."""
    return entry.texts(*CAPTIONS) or [entry.text(*CAPTIONS[1:])]


def _statement(entry: Entry) -> Statement:
    group_name = str(entry.get("group") or "")
    return Statement(entry.text(*STATEMENT), entry.label(), _name(entry), group_name, str(entry.get("kind") or ""))


def _name(entry: Entry, default: str | None = None) -> str:
    if entry.get(*NAME) is not None:
        return entry.text(*NAME)
    return default or f"{entry.path.stem}-{entry.place.split()[-1]}"


def pictures(folder: Path) -> Iterable[str]:
    """Paths of the pictures in a folder and below, relative to it, in order."""
    for place, below, files in os.walk(folder):
        below.sort()
        for name in sorted(files):
            if name.lower().endswith(IMAGE_ENDINGS):
                yield Path(place, name).relative_to(folder).as_posix()


def is_images(request: Request) -> bool:
    """A folder with a picture in it or below."""
    return next(iter(pictures(request.path)), None) is not None


def load_images(request: Request) -> Data[CaptionSample]:
    """A plain folder of pictures without captions, whatever the split is called; there is nothing to train on or score.

    Annotations beside them that no form is known for are told of in a warning: captions may have been meant.

    Raises:
        InputError: it is asked for as train.
    """
    places = [request.path / place for place in ANNOTATIONS]
    if unread := sorted({file.name for place in places for file in place.glob("*.json")}):
        logger.warning("%s: files of no known form, not read: %s", request.path, first(unread))
    if request.split == "train":
        raise InputError("holds pictures without captions", request.path, "write captions.csv: image,caption")
    groups: dict[tuple[str, ...], list[str]] = {(name,): [] for name in pictures(request.path)}
    return request.data(groups, [request.path], name_of=full_id)
