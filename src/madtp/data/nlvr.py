"""Statements about two pictures: NLVR2 and NLVR in their official files, and NLVR2 in BLIP's.

NLVR2 (https://lil.nlp.cornell.edu/nlvr/): JSON lines; an identifier is ``SPLIT-SET-PAIR-SENTENCE`` and its pictures are
``SPLIT-SET-PAIR-img0.png`` (left) and ``-img1.png``. NLVR, by the same authors: an identifier is ``SENTENCE-PICTURE``;
there is one picture, which counts as both.
"""

import re
from pathlib import Path, PurePosixPath

from madtp.data.files import Entry, read_entries, read_lines
from madtp.data.gather import Request, group, picture_id
from madtp.data.sample import Data, PairSample, Statement
from madtp.errors import InputError

FILES = {"train": ("train.json",), "val": ("dev.json",), "test": ("test1.json", "test2.json")}
NLVR_NAMES = {"train": "train", "val": "dev", "test": "test"}
BLIP_FILES = {"train": "nlvr_train.json", "val": "nlvr_dev.json", "test": "nlvr_test.json"}
NLVR2_ID, NLVR_ID = re.compile(r"(\w+)-(\d+)-(\d+)-(\d+)"), re.compile(r"(\d+)-(\d+)")
BLIP_ROOTS = ("NLVR2", "../NLVR2", "../datasets/vision/NLVR2")


def identifiers_fit(path: Path, pattern: re.Pattern[str]) -> bool:
    """Whether the first identifier in a file of JSON lines is of that form. A file that cannot be read does not fit."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = re.search(r'"identifier":\s*"([^"]*)"', file.readline())
    except OSError:
        return False
    return found is not None and pattern.fullmatch(found[1]) is not None


def is_nlvr2(request: Request) -> bool:
    """A folder with NLVR2's official files, or one of them."""
    files = request.annotations(*(name for names in FILES.values() for name in names))
    return any(identifiers_fit(file, NLVR2_ID) for file in files)


def is_nlvr(request: Request) -> bool:
    """A folder with NLVR's official splits in it, or one of the splits."""
    return any(identifiers_fit(_nlvr_file(request.folder, split), NLVR_ID) for split in NLVR_NAMES)


def load_nlvr2(request: Request) -> Data[PairSample]:
    """NLVR2: ``train.json``, ``dev.json`` (val) and ``test1.json``; consistency groups go over a sentence's pairs.

    Raises:
        InputError: no file of the split, a fault in it, or pictures are missing.
    """
    file = request.split_file(*FILES[request.split])
    # Train's pictures lie in numbered folders, the others' in one folder; its name is that of the file.
    home = file.stem
    roots = [folder / place / home for folder in request.folders for place in ("images", ".")] + request.roots()

    def names(entry: Entry) -> list[str]:
        parts = _parts(entry, NLVR2_ID, "dev-850-0-0")
        folder = entry.get("directory")
        stem = "-".join(parts[:3])
        return [f"{folder}/{stem}-img{k}.png" if folder is not None else f"{stem}-img{k}.png" for k in (0, 1)]

    def statement(entry: Entry) -> Statement:
        split, of_set, _, sentence = _parts(entry, NLVR2_ID, "dev-850-0-0")
        return _statement(entry, entry.text("identifier"), f"{split}-{of_set}-{sentence}")

    return request.data(group(read_lines(file), names, statement), roots, flat=True)


def load_nlvr(request: Request) -> Data[PairSample]:
    """NLVR: ``SPLIT/SPLIT.json`` with ``SPLIT/images``, or the folder of one split; of each picture permutation 0.

    Raises:
        InputError: no file of the split, a fault in it, or pictures are missing.
    """
    name, path = NLVR_NAMES[request.split], _nlvr_file(request.folder, request.split)
    if not path.is_file():
        raise InputError(f"no {name}/{name}.json", request.path, f"NLVR has it for split {request.split!r}")

    def names(entry: Entry) -> list[str]:
        _parts(entry, NLVR_ID, "1572-0")
        return [f"{entry.text('directory')}/{name}-{entry.text('identifier')}-0.png"]

    def statement(entry: Entry) -> Statement:
        return _statement(entry, entry.text("identifier"), _parts(entry, NLVR_ID, "1572-0")[0])

    return request.data(group(read_lines(path), names, statement), [path.parent / "images"])


def load_blip_nlvr2(request: Request) -> Data[PairSample]:
    """NLVR2 in BLIP's files: a JSON list of ``{"sentence", "label", "images": [left, right]}``.

    Raises:
        InputError: no file of the split, a fault in it, or pictures are missing.
    """
    file = request.split_file(BLIP_FILES[request.split])

    def names(entry: Entry) -> list[str]:
        value = entry.get("images")
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(name, str) for name in value):
            raise InputError(f"'images' is {value!r:.60}", entry.where, "expected [left, right]")
        return value

    def statement(entry: Entry) -> Statement:
        # The sentence has no number here, so its words tell the sentences of a set apart.
        pair = picture_id(tuple(PurePosixPath(name).name for name in names(entry)))
        name = entry.get("identifier") or f"{file.stem}-{entry.place.split()[-1]}"
        return _statement(entry, str(name), f"{pair.rpartition('-')[0]}-{entry.text('sentence')}")

    return request.data(group(read_entries(file), names, statement), request.roots("images/images", *BLIP_ROOTS))


def _nlvr_file(folder: Path, split: str) -> Path:
    name = NLVR_NAMES[split]
    below = folder / name / f"{name}.json"
    return below if below.is_file() else folder / f"{name}.json"


def _parts(entry: Entry, pattern: re.Pattern[str], example: str) -> tuple[str, ...]:
    found = pattern.fullmatch(entry.text("identifier"))
    if found is None:
        raise InputError(f"the identifier is {entry.get('identifier')!r}", entry.where, f"expected one like {example}")
    return found.groups()


def _statement(entry: Entry, name: str, of: str) -> Statement:
    return Statement(entry.text("sentence"), entry.label(), name, of)
