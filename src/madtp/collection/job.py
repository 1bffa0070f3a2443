"""What is asked of a collection, where it is written, and what of it is already there."""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from madtp.collection.inputs import Input
from madtp.errors import InputError
from madtp.files import write_json

logger = logging.getLogger(__name__)

TASKS = ("caption", "embed", "vqa", "rank")
JOB, PARTS, ERRORS = "job.json", "parts", "errors"
_PART = re.compile(r"(?P<input>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})\.parquet")


@dataclass(frozen=True)
class Job:
    """What is asked of every picture of a collection.

    Attributes:
        model: folder or hub id; on a cluster every machine must find it under this name.
        task: one of `TASKS`.
        out: folder of the results, which every machine must see.
        batch_size: pictures that pass the model at once.
        part_size: pictures a part: what is written, and lost by a kill, at once.
        text: vqa and rank: asked of every picture, instead of the collection's own questions.
        choices: rank: what to choose from.
        prompt, beams: captioning, as `CaptionTask` takes them; None = its own.
        temperature: instead of the model's own; 0 = dense.
        device: "cpu" or "cuda".
        dtype: "float32", "bfloat16" or "int8".
        threads: of a model on the CPU; None = torch's.
        kind: of the model (`madtp.model.shape.kind_of`).
    """

    model: str
    task: str
    out: Path
    batch_size: int = 32
    part_size: int = 256
    text: str | None = None
    choices: tuple[str, ...] = ()
    prompt: str | None = None
    beams: int | None = None
    temperature: float | None = None
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    kind: str = ""

    def settings(self) -> dict[str, Any]:
        """What a run that goes on must have the same."""
        free = {"out", "batch_size", "device", "threads"}
        return {name: value for name, value in asdict(self).items() if name not in free}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of model that can do it."""
        kinds = {"caption": ("caption",), "embed": ("retrieval", "clip"), "vqa": ("vqa",)}
        return kinds.get(self.task, ("vqa", "retrieval", "clip"))

    @property
    def asks(self) -> bool:
        """Whether the questions are the collection's own."""
        return self.kind == "vqa" and self.text is None


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        inputs: with something missing, each told which of its parts are there.
        parts_before: parts that are there.
        total: all inputs of the collection.
    """

    inputs: tuple[Input, ...]
    parts_before: int
    total: int


def part_name(name: str, number: int, of: int) -> str:
    """`train/00012-00003-of-00040`: names a part of an input for good, whoever writes it."""
    return f"{name}-{number:05d}-of-{of:05d}"


def make_plan(job: Job, inputs: Sequence[Input]) -> Plan:
    """Claim the folder for the job, or go on with it there: find what is missing. Leftovers of a kill are removed.

    Raises:
        InputError: the folder holds something else, another job, or the job's inputs have changed.
    """
    there: dict[str, set[int]] = defaultdict(set)
    parts: dict[str, int] = {}
    home = job.out / PARTS
    for file in home.rglob("*.parquet"):
        if found := _PART.fullmatch(file.relative_to(home).as_posix()):
            there[found["input"]].add(int(found["number"]))
            parts[found["input"]] = int(found["of"])
    _claim(job, {one.name: one.size for one in inputs}, there.keys())
    for left in job.out.rglob(".*.part"):
        left.unlink(missing_ok=True)
    left_over = [
        replace(one, done=frozenset(there.get(one.name, ())))
        for one in inputs
        if len(there.get(one.name, ())) != parts.get(one.name, -1)
    ]
    for one in left_over:  # it is tried again, so what was wrong with it may not be any more
        input_errors(job.out, one.name).unlink(missing_ok=True)
    return Plan(tuple(left_over), sum(map(len, there.values())), len(inputs))


def input_errors(out: Path, name: str) -> Path:
    """Where it is written that a whole input cannot be read."""
    return out / ERRORS / f"{name}.input.parquet"


def _claim(job: Job, sizes: Mapping[str, int], begun: Collection[str]) -> None:
    file = job.out / JOB
    mine = {"settings": json.loads(json.dumps(job.settings())), "inputs": dict(sizes)}
    if not file.is_file():
        if job.out.exists() and (not job.out.is_dir() or any(job.out.iterdir())):
            raise InputError("holds something else", job.out, "choose another --out")
        write_json(file, mine)
        return
    try:
        theirs = json.loads(file.read_text(encoding="utf-8"))
        settings, inputs = theirs["settings"], theirs["inputs"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError("is damaged", file, "choose another --out") from error
    if other := sorted(key for key, value in mine["settings"].items() if settings.get(key) != value):
        said = ", ".join(f"{key} {settings.get(key)!r} -> {mine['settings'][key]!r}" for key in other)
        fix = "go on with the same settings, or choose another --out"
        raise InputError(f"is of a job with other settings: {said}", job.out, fix)
    if changed := sorted(name for name, size in sizes.items() if name in begun and inputs.get(name, size) != size):
        said = f"inputs that have changed since the job began: {len(changed)}, {changed[0]} first"
        raise InputError(said, job.out, "choose another --out")
    if gone := sorted(inputs.keys() - sizes.keys()):
        logger.warning("%s: inputs that are not there any more: %d, %s first", job.out, len(gone), gone[0])
    if inputs | sizes != inputs:  # what a collection gains later is done, too
        write_json(file, {**mine, "inputs": inputs | sizes})
