"""Predictions in the files that each benchmark's server or script reads. All are written whole or not at all."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from madtp.errors import InputError
from madtp.files import atomic_write, write_json

_INTEGER = re.compile(r"0|[1-9][0-9]*")


def _number(identifier: str) -> int | str:
    """Servers want the data sets' integer ids as integers; any other id (a leading zero, a name) stays a string."""
    return int(identifier) if _INTEGER.fullmatch(identifier) else identifier


def _unique(identifiers: Iterable[str], where: str | Path) -> None:
    seen: set[str] = set()
    for identifier in identifiers:
        if identifier in seen:
            raise InputError(f"two predictions for {identifier!r}", where, "servers take one an id")
        seen.add(identifier)


def write_vqa(path: str | Path, answers: Sequence[tuple[str, str]]) -> None:
    """VQA v2 (EvalAI): a JSON list of ``{"question_id": 1, "answer": "yes"}``.

    Args:
        path: EvalAI expects every question of the split, test-standard's among them.
        answers: question id and answer.

    Raises:
        InputError: an id twice, or the file cannot be written.
    """
    _unique((identifier for identifier, _ in answers), path)
    _write_list(path, [{"question_id": _number(identifier), "answer": answer} for identifier, answer in answers])


def write_captions(path: str | Path, captions: Sequence[tuple[str, str]]) -> None:
    """COCO captions and NoCaps: a JSON list of ``{"image_id": 1, "caption": "a cat"}``.

    Args:
        path: COCO's server wants ``captions_val2014_NAME_results.json`` and ``captions_test2014_NAME_results.json`` in
            one zip file.
        captions: image id and caption. COCO's ids are the number in the file's name (`coco_image_id`).

    Raises:
        InputError: an id twice, or the file cannot be written.
    """
    _unique((identifier for identifier, _ in captions), path)
    _write_list(path, [{"image_id": _number(identifier), "caption": caption} for identifier, caption in captions])


def coco_image_id(name: str) -> str:
    """COCO's id in a file's name: ``val2014/COCO_val2014_000000000042.jpg`` -> ``42``; else ``name`` itself."""
    found = re.fullmatch(r"(?:.*[/\\_])?([0-9]{12})(?:\.[A-Za-z]+)?", name)
    return str(int(found[1])) if found else name


def write_nlvr2(path: str | Path, judged: Sequence[tuple[str, bool]]) -> None:
    """NLVR2 and NLVR: one line ``dev-850-0-0,True`` a statement, no header.

    Args:
        path: CSV file.
        judged: identifier, and whether the model holds the statement true. NLVR's script wants the picture's name with
            the split and the number of the permutation: ``dev-1572-0-3.png``.

    Raises:
        InputError: an id twice or with a comma or line break in it, or the file cannot be written.
    """
    _unique((identifier for identifier, _ in judged), path)
    for identifier, _ in judged:
        if "," in identifier or len(identifier.splitlines()) != 1:
            raise InputError(f"identifier {identifier!r}", path, "the format allows no comma, line break or empty id")
    atomic_write(path, "".join(f"{identifier},{bool(true)}\n" for identifier, true in judged))


def write_rankings(
    path: str | Path, texts_of_image: Mapping[str, Sequence[str]], images_of_text: Mapping[str, Sequence[str]]
) -> None:
    """Retrieval has no server: ``{"image_to_text": {id: [ids]}, "text_to_image": {id: [ids]}}``, best first.

    Args:
        path: JSON file.
        texts_of_image: the ids of the texts retrieved for each image's id.
        images_of_text: the ids of the images retrieved for each text's id.

    Raises:
        InputError: the file cannot be written.
    """
    write_json(
        path,
        {
            "image_to_text": {key: list(found) for key, found in texts_of_image.items()},
            "text_to_image": {key: list(found) for key, found in images_of_text.items()},
        },
    )


def _write_list(path: str | Path, rows: Iterable[Mapping[str, int | str]]) -> None:
    """One row a line, so that a person can look at it and `diff` can compare two. ASCII, which every server reads."""
    atomic_write(path, "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
