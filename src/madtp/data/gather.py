"""From annotations to samples: finding the pictures they name, and putting texts to pictures."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from madtp.data.faults import may_skip, pass_over
from madtp.data.files import Entry, answer_list, first, short
from madtp.data.images import ImageFile, ImageSource
from madtp.data.sample import CaptionSample, Data, PairSample, VqaSample
from madtp.errors import InputError
from madtp.pace import paced

logger = logging.getLogger(__name__)

ANNOTATIONS = (".", "data", "annotations", "annotation")
"""Where annotation files may lie, below the folder that is given."""

Names = tuple[str, ...]
"""One picture, or a left and a right one, as annotations name them."""


def list_names(folder: str | Path) -> frozenset[str]:
    """Names of what lies in a folder; empty where there is none."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()


class Images:
    """Finds the pictures that annotations name, below some folders; each folder is listed once, no file is opened.

    Args:
        roots: folders that names may be relative to, the first that has the file counts.
        flat: also look for the bare file name, without the folders in front of it.
        check: False takes every file to be in the first root (for work on texts alone).
    """

    def __init__(self, *roots: Path, flat: bool = False, check: bool = True) -> None:
        self.roots, self.flat, self.check = roots, flat, check
        self.missing: dict[str, None] = {}
        self._found: dict[str, ImageFile | None] = {}
        self._listed: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> ImageFile | None:
        """The file of that name, the very same object each time; None and noted as missing where there is none."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> ImageFile | None:
        if not self.check:
            return ImageFile(self.roots[0] / name)
        for root in self.roots:
            for choice in {name: None, name.rpartition("/")[2]: None} if self.flat else [name]:
                folder, _, file = choice.rpartition("/")
                path = f"{root}/{folder}" if folder else str(root)
                if path not in self._listed:
                    self._listed[path] = list_names(path)
                if file in self._listed[path]:
                    return ImageFile(Path(path, file))
        self.missing[name] = None
        return None


def report_missing(missing: Sequence[str], where: object, skip_missing: bool, fix: str) -> None:
    """Say that pictures are missing: how many and the first five. Raises InputError; with ``skip_missing`` logs it."""
    if missing and may_skip():
        for name in missing:
            pass_over(InputError("no such image", f"{where}: {name}"), f"image {name}")
    elif missing and skip_missing:
        logger.warning("%s: images that are missing, left out with their texts: %s", where, first(missing))
    elif missing:
        raise InputError(f"images that are missing: {first(missing)}", where, f"{fix}, or use --skip-missing")


def inside(name: str, where: object) -> str:
    """``name`` as a clean relative path with forward slashes.

    Raises:
        InputError: it is absolute or climbs with ``..``: annotations must not lead out of the folder of images.
    """
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or re.match("[A-Za-z]:", path) or ".." in parts or "\0" in path:
        raise InputError(f"the image is {short(name)}", where, "give a path inside the folder of images")
    return "/".join(parts)


def group(
    entries: Sequence[Entry], names: Callable[[Entry], Sequence[str]], text: Callable[[Entry], Any]
) -> dict[Names, list[Any]]:
    """Texts by picture(s), in the order in which ``entries`` first name them.

    Args:
        entries: of the annotations.
        names: the picture(s) that an entry is about; checked to stay inside the folder of images.
        text: question or statement of an entry, or a list of captions.

    Raises:
        InputError: of a faulty entry, unless such are left out (`madtp.data.faults`).
    """
    groups: dict[Names, list[Any]] = {}
    for entry in paced(entries, len(entries)):
        try:
            made = text(entry)
            key = tuple(inside(name, entry.where) for name in names(entry))
        except InputError as error:
            pass_over(error, entry.where)
            continue
        groups.setdefault(key, []).extend(made if isinstance(made, list) else [made])
    return groups


def picture_id(names: Names) -> str:
    """The name that a data set itself gives to its picture(s), which all its forms then share.

    COCO's number (``COCO_val2014_000000000042.jpg`` -> ``42``), NLVR2's pair (``dev-850-0-img0.png`` and ``img1`` ->
    ``dev-850-0``), else the file's name without its ending; two of them joined by ``|``.
    """
    stems = [PurePosixPath(name).stem for name in names]
    coco = re.fullmatch(r"COCO_\w+_0*(\d+)", stems[0])
    if coco and len(stems) == 1:
        return coco[1]
    if len(stems) == 2 and stems[0].endswith("-img0") and stems[1] == f"{stems[0][:-1]}1":
        return stems[0].removesuffix("-img0")
    return "|".join(dict.fromkeys(stems))


def full_id(names: Names) -> str:
    """The picture's path below the folder of images; two of them joined by ``|``."""
    return "|".join(names)


@dataclass(frozen=True)
class Request:
    """What `load_data` was asked for, as every reader takes it.

    Args:
        path: the folder or file.
        task, split, limit, skip_missing: as `load_data` takes them.
        check_images: False leaves out the look for pictures (for work on texts alone).
    """

    path: Path
    task: str
    split: str
    limit: int | None = None
    skip_missing: bool = False
    check_images: bool = True

    @property
    def folder(self) -> Path:
        """The folder itself, or that of the file."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def folders(self) -> list[Path]:
        """The folder, and the one above it where it is one for annotations only: pictures lie beside that."""
        return [self.folder, self.folder.parent] if self.folder.name in ANNOTATIONS else [self.folder]

    @property
    def name(self) -> str:
        """What the data set is called in reports."""
        path = self.path.resolve()
        return path.name if path.is_dir() else path.stem

    def annotations(self, *names: str) -> list[Path]:
        """Files of these names: in the folder, in its ``data``, ``annotations`` or ``annotation``; or the one given."""
        if not self.path.is_dir():
            return [self.path] if self.path.name in names else []
        places = [self.path / place for place in ANNOTATIONS]
        return [place / name for place in places for name in names if (place / name).is_file()]

    def split_file(self, *names: str) -> Path:
        """The annotation file of the split, which has one of these names. Raises InputError where there is none."""
        files = self.annotations(*names)
        if not files and self.path.is_dir():
            raise InputError(f"no {names[0]}", self.path, f"split {self.split!r} needs it")
        if not files:
            raise InputError(f"is not the file of split {self.split!r}", self.path, f"give the folder, or {names[0]}")
        return files[0]

    def roots(self, *more: str) -> list[Path]:
        """Folders that names of pictures may be relative to: `folders`, their ``images``, and ``more`` below them."""
        return [folder / name for folder in self.folders for name in (".", "images", *more)]

    def data(
        self,
        groups: Mapping[Names, Sequence[Any]],
        roots: Sequence[Path],
        *,
        flat: bool = False,
        name_of: Callable[[Names], str] = picture_id,
        answers: Sequence[str] | None = None,
    ) -> Data[Any]:
        """The split, from its texts by picture(s); see `Images` for ``roots`` and ``flat``.

        Args:
            groups: questions, statements or captions by picture(s).
            roots: folders that names of pictures may be relative to.
            flat: pictures may also lie there without the folders that their names have.
            name_of: image id from the names; where two would be the same, the full path takes its place.
            answers: the closed list of answers; None looks for one beside the annotations.

        Raises:
            InputError: pictures are missing, or two texts have the same id.
        """
        images = Images(*roots, flat=flat, check=self.check_images)
        found = {names: tuple(images.find(name) for name in names) for names in groups}
        report_missing(list(images.missing), self.path, self.skip_missing, f"put them under {roots[0]}")
        return self.assemble(groups, found, name_of=name_of, answers=answers)

    def answers(self) -> tuple[str, ...]:
        """The closed list of answers that lies beside the annotations; empty where there is none."""
        if self.task != "vqa":
            return ()
        return answer_list(*(folder / place for folder in self.folders for place in ANNOTATIONS))

    def assemble(
        self,
        groups: Mapping[Names, Sequence[Any]],
        found: Mapping[Names, Sequence[ImageSource | None]],
        *,
        name_of: Callable[[Names], str] = picture_id,
        answers: Sequence[str] | None = None,
    ) -> Data[Any]:
        """The split, from its texts and its pictures (None = missing) by name; otherwise as `data`."""
        kept: dict[Names, Sequence[Any]] = {names: texts for names, texts in groups.items() if None not in found[names]}
        if not kept:
            raise InputError(f"nothing is left of split {self.split!r}", self.path, "give its pictures")
        kept = {**without_doubles(kept, self.path)}
        ids = {names: name_of(names) for names in kept}
        taken = Counter(ids.values())
        samples = [
            make_sample(self.task, ids[names] if taken[ids[names]] == 1 else full_id(names), found[names], texts)
            for names, texts in list(kept.items())[: self.limit]
        ]
        if answers is None:
            answers = self.answers()
        return Data(tuple(samples), self.name, self.split, tuple(answers))


def make_sample(task: str, image_id: str, files: Sequence[Any], texts: Sequence[Any]) -> Any:
    """A sample of the task's kind; one picture for two counts as both."""
    if task == "vqa":
        return VqaSample(image_id, files[0], tuple(texts))
    if task == "reasoning":
        left: ImageSource = files[0]
        return PairSample(image_id, (left, files[-1]), tuple(texts))
    return CaptionSample(image_id, files[0], tuple(texts))


def without_doubles(groups: Mapping[Names, Sequence[Any]], where: object) -> dict[Names, list[Any]]:
    """The same groups; where faulty entries are left out, of several texts with one id the first stays.

    Raises:
        InputError: two texts have the same id, and faulty entries are not left out; no text is left.
    """
    if not may_skip():
        check_ids([text for texts in groups.values() for text in texts], where)
        return {names: list(texts) for names, texts in groups.items()}
    seen: set[str] = set()
    out: dict[Names, list[Any]] = {}
    for names, texts in groups.items():
        for text in texts:
            name = text_id(text)
            if name is not None and name in seen:
                said = InputError(f"the id {short(name)} is another text's too", where, "give each its own")
                pass_over(said, f"{'|'.join(names)}: {name}: {getattr(text, 'text', '')}")
                continue
            if name is not None:
                seen.add(name)
            out.setdefault(names, []).append(text)
        if not texts:
            out.setdefault(names, [])
    return out


def text_id(text: Any) -> str | None:
    """The id of a question or a statement; captions have none."""
    name: str | None = getattr(text, "question_id", getattr(text, "statement_id", None))
    return name


def check_ids(texts: Sequence[Any], where: object) -> None:
    """Raise InputError if two questions or two statements have the same id; captions have none."""
    ids = Counter(text_id(text) for text in texts)
    twice = [str(name) for name, count in ids.items() if name is not None and count > 1]
    if twice:
        raise InputError(f"ids that several texts have: {first(twice)}", where, "give each its own")
