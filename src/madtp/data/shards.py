"""Big collections in tar files (webdataset's form): ``KEY.jpg`` beside ``KEY.json`` or ``KEY.txt``, many in a tar.

The tars are indexed once, by their headers; a picture is read at its place in the tar when it is opened. Nothing is
unpacked, and order is free, so shards are a data set like any other.
"""

import glob
import io
import logging
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from madtp.data.faults import read_so_far
from madtp.data.files import Entry, first, parse_json
from madtp.data.gather import Names, Request, report_missing
from madtp.data.images import MAX_PIXELS, decode
from madtp.data.sample import Data
from madtp.data.split import choose_split, split_source
from madtp.data.table import CAPTIONS, IMAGE_ENDINGS, SPLIT_WORDS, own_question
from madtp.errors import InputError
from madtp.pace import paced

logger = logging.getLogger(__name__)

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MAX_MEMBER = 2**28
"""Pictures and texts in a tar of more bytes than this are refused."""

Place = tuple[int, int]
"""Offset and length in bytes."""


@dataclass(frozen=True, slots=True)
class TarImage:
    """A picture in a tar file.

    Args:
        path: the tar.
        member: its name in there, for error messages.
        offset, size: where its bytes lie.
        max_pixels: as `ImageFile`.
    """

    path: str | Path
    member: str
    offset: int
    size: int
    max_pixels: int = MAX_PIXELS

    def open(self) -> Image.Image:
        """Read and decode it to RGB, as `ImageFile` does. Raises InputError."""
        where = f"{self.path}, {self.member}"
        try:
            with open(self.path, "rb") as file:
                data = read_at(file, (self.offset, self.size))
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or error
            raise InputError(f"cannot be read: {said}", where, "give the shards again") from error
        if len(data) < self.size:
            raise InputError("the tar is shorter than when it was indexed", where, "give the whole file")
        return decode(io.BytesIO(data), where, self.max_pixels)


def is_pattern(source: str) -> bool:
    """Whether ``source`` names several tars: ``shard-{000..010}.tar``, ``*.tar``."""
    return source.endswith(".tar") and any(sign in source for sign in "{*?")


def is_shards(request: Request) -> bool:
    """A folder with tars, a tar, or a pattern of tars."""
    path = request.path
    return any(file.suffix == ".tar" for file in shard_files(path)) if path.is_dir() else path.suffix == ".tar"


def shard_files(source: Path) -> list[Path]:
    """The tars that a folder holds (also in folders named after splits), that a pattern means, or the one file."""
    if source.is_dir():
        return sorted(source.glob("*.tar")) + sorted(f for word in SPLIT_WORDS for f in source.glob(f"{word}/*.tar"))
    names = [source.as_posix()]
    if span := RANGE.search(names[0]):
        low, high = span.groups()
        numbers = [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
        names = [names[0][: span.start()] + number + names[0][span.end() :] for number in numbers]
    return [Path(file) for name in names for file in (sorted(glob.glob(name)) if "*" in name else [name])]


def load_shards(request: Request) -> Data[Any]:
    """Tars of pictures with captions (``KEY.txt``, or ``caption``/``captions`` in ``KEY.json``) or questions (JSON).

    For VQA ``KEY.json`` holds ``question`` and ``answer`` or ``answers``, or a list ``questions`` of such. Splits come
    from the tars' names (``train-000.tar``) or folders (``train/000.tar``), else val and test are held out.

    Raises:
        InputError: tars or pictures are missing, no tar file, a fault in a text, or no such split.
    """
    home, parts = splits_of(request)
    source = split_source(parts, request.split, request.path)[0]
    lie: dict[Names, tuple[Path, str, str, dict[str, Place]]] = {}
    taken: set[str] = set()  # many number their pictures anew in every tar
    for file in paced(parts[source], len(parts[source])):
        inside = file.relative_to(home).as_posix()  # what is held out must not hang on where the folder lies
        for key, members in index(file).items() if file.is_file() else ():
            lie[(f"{inside}/{key}",)] = (file, key, f"{file.stem}/{key}" if key in taken else key, members)
            taken.add(key)
    chosen = choose_split({split: lie if split == source else {} for split in parts}, request.split, request.path)
    read_so_far(len(chosen))
    groups: dict[Names, list[Any]] = {}
    found: dict[Names, tuple[TarImage | None]] = {}
    for names, (file, key, name, members) in paced(chosen.items(), len(chosen)):
        found[names] = (picture_of(file, key, members),)
        groups[names] = texts_of(request.task, file, key, members, name)
    missing = [name for name in groups if found[name][0] is None]
    report_missing([names[0] for names in missing], request.path, request.skip_missing, "put them beside their texts")
    if request.split == "train":  # in millions of pairs off the web a few have none
        groups = with_texts(groups, request)
    return request.assemble(groups, found)


def splits_of(request: Request) -> tuple[Path, dict[str, list[Path]]]:
    """The folder that the tars' names are told from, and the tars by split; under ``""`` those that tell none.

    Raises:
        InputError: there are none, some are missing, or some tell a split and some do not.
    """
    files = list(dict.fromkeys(shard_files(request.path)))
    if not files:
        fix = "give a folder of .tar files, or a pattern like shard-{000..010}.tar or shard-*.tar"
        raise InputError("fits no file", request.path, fix)
    absent = [file.name for file in files if not file.is_file()]
    if absent and not (request.skip_missing and len(absent) < len(files)):
        raise InputError(f"shards that are missing: {first(absent)}", request.path, "give them, or use --skip-missing")
    home = request.path if request.path.is_dir() else Path(os.path.commonpath([file.parent for file in files]))
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(_split(file, request.path), []).append(file)
    if "" in parts and len(parts) > 1:
        raise InputError("some tars are named after a split and some not", request.path, "name all or none")
    return home, parts


def picture_of(file: Path, key: str, members: Mapping[str, Place]) -> TarImage | None:
    """The picture among the members of a key: of KEY.depth.png and KEY.jpg the second."""
    ending = min(filter(is_image, members), key=lambda name: name.count("."), default=None)
    return None if ending is None else TarImage(file, f"{key}{ending}", *members[ending])


def with_texts(groups: Mapping[Names, list[Any]], request: Request) -> dict[Names, list[Any]]:
    """The pictures that there is something to learn about. Raises InputError for others, unless they may be skipped."""
    bare = [names[0] for names, texts in groups.items() if not texts]
    report_bare(bare, request)
    return {names: texts for names, texts in groups.items() if texts}


def report_bare(bare: Sequence[str], request: Request) -> None:
    """Say that pictures have no texts. Raises InputError; where they may be skipped, logs it."""
    what = f"pictures without {'questions' if request.task == 'vqa' else 'captions'}"
    if bare and not request.skip_missing:
        raise InputError(f"{what}: {first(bare)}", request.path, "nothing to train on; use --skip-missing")
    if bare:
        logger.warning("%s: %s, left out: %s", request.path, what, first(bare))


def index(path: Path) -> dict[str, dict[str, Place]]:
    """What a tar holds, by key: ending (``".jpg"``) -> place. Only headers are read.

    Raises:
        InputError: no tar file, compressed, or cut short.
    """
    members: dict[str, dict[str, Place]] = {}
    with opened(path) as file:
        for key, some in walk(file, path):
            members.setdefault(key, {}).update(some)
    return members


def walk(file: BinaryIO, path: Path) -> Iterator[tuple[str, dict[str, Place]]]:
    """The keys of an open tar in order, each with those of its members that lie together; nothing is kept.

    A key is a member's name up to the first dot of its last part. The file may be read elsewhere in between.

    Raises:
        InputError: as `index`.
    """
    for key, some in groupby(_headers(file, path), key=lambda header: header[0]):
        yield key, {ending: place for _, ending, place in some}


def _headers(file: BinaryIO, path: Path) -> Iterator[tuple[str, str, Place]]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it keeps all that it has seen
                folder, slash, name = member.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                if member.isreg() and not member.issparse() and stem and dot:
                    yield f"{folder}{slash}{stem}", f".{ending.lower()}", (member.offset_data, member.size)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path) from error
    except Exception as error:  # damaged headers make the reader stumble in other ways too
        raise InputError(f"is not a whole tar file ({error})", path, "give plain .tar files, not compressed") from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A shard, to be read. Raises InputError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path) from error
    with file:
        yield file


def is_image(ending: str) -> bool:
    """Whether a member of that ending is a picture."""
    return ending.endswith(IMAGE_ENDINGS)


def _split(file: Path, source: Path) -> str:
    """The split that the tar's name or its folder (below the source) tells, or ``""``."""
    folder = file.parent.name if file.parent != source else ""
    words = (folder, re.split("[-_.0-9]", file.name)[0])
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")


def texts_of(
    task: str, file: Path, key: str, members: Mapping[str, Place], name: str, stream: BinaryIO | None = None
) -> list[Any]:
    """The questions, their ids made of `name` where they have none, or captions beside a picture.

    Read from `stream`, the file where it is open already.
    """
    entry = Entry({}, file, key)
    if ".json" in members:
        content = parse_json(_bytes(file, members[".json"], stream), f"{file}, {key}.json")
        if not isinstance(content, dict):
            raise InputError("is no JSON object", f"{file}, {key}.json", "expected named fields")
        entry = Entry(content, file, f"{key}.json")
    if task == "vqa":
        asked = entry.get("questions")
        several = asked if isinstance(asked, list) else [entry.fields] if entry.get("question") is not None else []
        rows = [Entry(fields if isinstance(fields, dict) else {}, file, entry.place) for fields in several]
        return [own_question(row, f"{name}-{k}") for k, row in enumerate(rows)]
    if entry.get(*CAPTIONS) is None and ".txt" in members:
        try:
            entry = Entry({"caption": _bytes(file, members[".txt"], stream).decode("utf-8-sig")}, file, f"{key}.txt")
        except UnicodeDecodeError as error:
            raise InputError("is not UTF-8 text", f"{file}, {key}.txt") from error
    return list(entry.texts(*CAPTIONS))


def _bytes(file: Path, place: Place, stream: BinaryIO | None) -> bytes:
    with opened(file) if stream is None else nullcontext(stream) as source:
        return read_at(source, place)


def read_at(file: BinaryIO, place: Place) -> bytes:
    """The bytes at a place of an open file, fewer where it ends before."""
    offset, size = place
    if size > MAX_MEMBER:
        raise InputError(f"a member of {size / 1e9:.1f} GB, over the limit of {MAX_MEMBER / 1e9:.1f}", file.name)
    file.seek(offset)
    return file.read(size)
