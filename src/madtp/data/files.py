"""Annotation files, read with errors that say what is wrong where. Shared by all readers."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp.data.faults import pass_over, read_so_far
from madtp.data.sample import is_text
from madtp.errors import InputError
from madtp.pace import paced

MAX_BYTES = 2**31
"""Files of annotations larger than this are refused (Visual Genome's, the largest known, has 0.8 GB)."""
MAX_TEXT = 100_000
"""Texts of more characters are refused; shorter ones are cut to what a model reads by its tokenizer."""

TRUE, FALSE = {"true", "1", "yes"}, {"false", "0", "no"}


def short(value: object) -> str:
    """Its `repr`, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def first(items: Sequence[str], n: int = 5) -> str:
    """How many there are and the first ``n`` of them: ``"7: a, b, c, d, e, ..."``."""
    shown = [short(item) if len(item) > 80 else item for item in items[:n]]
    return f"{len(items)}: " + ", ".join(shown + ["..."] * (len(items) > n))


def read_text(path: Path, fix: str | None = None) -> str:
    """The text of a UTF-8 file, a byte order mark taken off.

    Raises:
        InputError: it cannot be read; ``fix`` says what would be right where it is not there.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"is of {size / 1e9:.1f} GB, over the limit of {MAX_BYTES / 1e9:.1f}", path)
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError("no such file", path, fix) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", path) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from error


def read_json(path: Path, fix: str | None = None) -> Any:
    """The content of a JSON file. Raises InputError as `read_text` does, and where it is not JSON."""
    return parse_json(read_text(path, fix), path)


def parse_json(text: str | bytes, where: object, line: int | None = None) -> Any:
    """The content of JSON text that stands at ``where``. Raises InputError where it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error.msg} in line {line or error.lineno}", where) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", where) from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError("is not JSON that can be read: a number too long", where) from error
    except RecursionError as error:
        raise InputError("is not JSON that can be read: nested too deep", where) from error


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an annotation file, which knows where it stands.

    Args:
        fields: by name.
        path: of the file.
        place: in the file, e.g. ``"entry 3"`` or ``"line 17"``.
    """

    fields: Mapping[str, Any]
    path: Path
    place: str

    @property
    def where(self) -> str:
        """For error messages."""
        return f"{self.path}, {self.place}"

    def get(self, *names: str) -> Any:
        """The first of these fields that is there and not blank, else None."""
        return self._pick(names)[1]

    def _pick(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for name in names:
            value = self.fields.get(name)
            if value is not None and value != "" and value != []:
                return name, value
        return names[0], None

    def text(self, *names: str) -> str:
        """The first of these fields that is there, as words with single spaces.

        Raises:
            InputError: none is there, or it is no text, blank or has half a character.
        """
        name, value = self._pick(names)
        if value is None:
            blank = next((name for name in names if name in self.fields), None)
            what = f"has no {name!r}" if blank is None else f"{blank!r} is blank"
            raise InputError(what, self.where, f"it has {', '.join(map(str, self.fields)) or 'nothing'}")
        return self.words(value, name)

    def texts(self, *names: str) -> list[str]:
        """The first of these fields, a text or a list of texts; blank ones are left out; none there = empty list."""
        name, value = self._pick(names)
        values = value if isinstance(value, list) else [] if value is None else [value]
        return [self.words(text, name) for text in values if not isinstance(text, str) or text.strip()]

    def words(self, value: object, name: str) -> str:
        """``value`` as words with single spaces; a whole number is written out. Raises InputError."""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{name!r} must be words, not {short(value)}", self.where)
        if not is_text(value):
            raise InputError(f"{name!r} holds half a character", self.where, "write whole ones")
        if len(value) > MAX_TEXT:
            raise InputError(f"{name!r} has {len(value)} characters, more than {MAX_TEXT}", self.where, "shorten it")
        return " ".join(value.split())

    def label(self, name: str = "label") -> bool | None:
        """True or False, None where there is no such field. Raises InputError for anything else."""
        value = self.get(name)
        word = str(value).strip().lower()
        if value is not None and word not in TRUE | FALSE:
            raise InputError(f"{name!r} is {short(value)}", self.where, "use true or false")
        return None if value is None else word in TRUE


def read_entries(path: Path, key: str | None = None, fix: str | None = None) -> list[Entry]:
    """The entries of a JSON file: a list of objects, the whole of it or what stands under ``key``.

    Raises:
        InputError: it cannot be read, or is anything else.
    """
    content = read_json(path, fix)
    listed = content.get(key) if key and isinstance(content, dict) else content
    if not isinstance(listed, list) or not listed:
        raise InputError("holds no list" + (f" {key!r}" if key else ""), path, "expected a JSON list of objects")
    read_so_far(len(listed))
    return [
        e
        for number, value in enumerate(paced(listed, len(listed)))
        if (e := _entry(value, path, f"entry {number}")) is not None
    ]


def read_lines(path: Path, fix: str | None = None) -> list[Entry]:
    """The entries of a file of JSON lines: one object a line, blank lines passed over. Raises InputError."""
    entries: list[Entry] = []
    # Not splitlines: text in a line may hold other separators, which JSON allows.
    lines = [(n, line) for n, line in enumerate(read_text(path, fix).split("\n"), start=1) if line.strip()]
    read_so_far(len(lines))
    for number, line in paced(lines, len(lines)):
        try:
            value = parse_json(line, path, number)
        except InputError as error:
            pass_over(error, f"{path}, line {number}")
        else:
            entries += filter(None, [_entry(value, path, f"line {number}")])
    if not entries:
        raise InputError("is empty", path, "expected one JSON object a line")
    return entries


def read_table(path: Path) -> list[Entry]:
    """The rows of a .csv, .tsv or .jsonl file; column names in small letters. Raises InputError."""
    if path.suffix.lower() == ".jsonl":
        lines = read_lines(path)
        for i, e in enumerate(lines):  # in place, and a column's name is one string for all rows: there may be millions
            lines[i] = Entry({sys.intern(k.strip().lower()): v for k, v in e.fields.items()}, path, e.place)
        return lines
    text = io.StringIO(read_text(path), newline="")
    rows = csv.reader(text, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    entries: list[Entry] = []
    try:
        names = [name.strip().lower() for name in next(rows, [])]
        if not any(names) or len(set(names)) != len(names):
            raise InputError(f"the first line is {short(names)}", path, "it must name the columns, each once")
        count = text.getvalue().count("\n")  # as many rows, or fewer where texts hold some
        for row in paced(rows, count):
            if not any(cell.strip() for cell in row):
                continue
            read_so_far(1)
            if len(row) != len(names):
                what, where = f"has {len(row)} cells, the table {len(names)} columns", f"{path}, line {rows.line_num}"
                pass_over(InputError(what, where, "put texts that hold the separator in quotes"), where)
                continue
            entries.append(Entry(dict(zip(names, row, strict=True)), path, f"line {rows.line_num}"))
    except csv.Error as error:
        raise InputError(f"is not a table: {error}", f"{path}, line {rows.line_num}") from error
    if not entries:
        raise InputError("holds no rows", path, "write one picture and text a row")
    return entries


def _entry(value: object, path: Path, place: str) -> Entry | None:
    """The entry; None if it is none and may be left out."""
    if not isinstance(value, dict):
        where = f"{path}, {place}"
        pass_over(InputError(f"is {short(value)}", where, "expected an object with named fields"), where)
        return None
    return Entry(value, path, place)


def answer_list(*folders: Path) -> tuple[str, ...]:
    """The closed list of answers: ``answer_list.json`` or ``answers.txt`` in one of the folders; else empty.

    Raises:
        InputError: it holds no list of words.
    """
    for folder in folders:
        path = folder / "answer_list.json"
        if path.is_file():
            answers = read_json(path)
            if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
                raise InputError("holds no list of answers", path, 'expected a JSON list: ["yes", "no", ...]')
            return tuple(dict.fromkeys(answers))
        if (folder / "answers.txt").is_file():
            return read_answers(folder / "answers.txt")
    return ()


def read_answers(path: Path, fix: str | None = None) -> tuple[str, ...]:
    """The answers of a file with one a line. Raises InputError where there is none."""
    answers = tuple(dict.fromkeys(line.strip() for line in read_text(path, fix).splitlines() if line.strip()))
    if not answers:
        raise InputError("holds no answers", path, "write one answer a line")
    return answers
