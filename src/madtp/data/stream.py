"""Tar shards read in sequence: shuffled in a buffer, shared out to processes and their loaders, gone on with anywhere.

The package `webdataset` does it too, but cannot go on in mid-shard bit for bit: hence our own. Which sample comes when
follows from the numbers of samples in the shards (`madtp.data.order`).
"""

import hashlib
import io
import json
import logging
import random
from array import array
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from madtp.data.faults import may_skip, read_so_far
from madtp.data.files import read_json
from madtp.data.gather import Request, make_sample, report_missing
from madtp.data.images import decode
from madtp.data.order import Part, Shuffle
from madtp.data.sample import Data
from madtp.data.shards import (
    MAX_MEMBER,
    TarImage,
    opened,
    picture_of,
    read_at,
    report_bare,
    splits_of,
    texts_of,
    walk,
)
from madtp.data.split import held_out, split_source
from madtp.errors import InputError
from madtp.pace import paced

logger = logging.getLogger(__name__)

COUNTS = "madtp-shards.json"
"""Where a run writes what it counted; beside the shards it spares other runs the count."""


KEYS = {"floor", "texts", "samples", "answers"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture whose bytes were read as its shard went by.

    Args:
        place: where they lie.
        data: they; None = too many.
    """

    place: TarImage
    data: bytes | None

    def open(self) -> Image.Image:
        """As `TarImage.open`. Raises InputError."""
        if self.data is None or len(self.data) < self.place.size:
            return self.place.open()  # which says what is wrong
        return decode(io.BytesIO(self.data), f"{self.place.path}, {self.place.member}", self.place.max_pixels)


class Stream:
    """The training split of tar shards as the loops take it; of its samples the numbers are held, and no text.

    Args:
        request: of the split "train".
        buffer: samples that a loader shuffles among.
        places: files of counts; the first that tells of these shards as they are spares the count.

    Attributes:
        told: the counts, for such a file.
        frequency: how often each answer is given.
        hand: the samples that a data set may ask for by their number; whoever reads puts them there.

    Raises:
        InputError: as `load_shards`, and for members of a key that lie apart.
    """

    split = "train"
    hidden = 0  # it is refused where it is counted

    def __init__(self, request: Request, buffer: int, places: Iterable[Path] = ()) -> None:
        self.request, self.buffer = request, buffer
        home, parts = splits_of(request)
        source, held = split_source(parts, "train", request.path)
        self.files = {f.relative_to(home).as_posix(): f for f in parts[source] if f.is_file()}
        skips = request.skip_missing or may_skip()
        self._about: dict[str, Any] = {
            "task": request.task,
            "skip_missing": skips,
            "val_held_out": held,
            "test_held_out": source == "",
        }
        self.told = self._known([*places, home / COUNTS]) or self._counted()
        counts = [self.told["samples"][name] for name in self.files]
        left = request.limit or sum(counts)
        ends = [min(end, left) for end in accumulate(counts)]
        self.starts = [0, *ends[:-1]]
        self.counts = [end - start for start, end in zip(self.starts, ends, strict=True)]
        if not sum(self.counts):
            raise InputError("nothing is left of split 'train'", request.path, "give its pictures")
        self.name, self.n_texts, self.answers = request.name, int(self.told["texts"]), request.answers()
        self.frequency = Counter(self.told["answers"])
        self.hand: dict[int, Any] = {}

    def __len__(self) -> int:
        """Number of samples."""
        return sum(self.counts)

    def __getitem__(self, index: int | slice) -> Any:
        """A sample in `hand`; for a slice, the first of the split as a `Data`."""
        if isinstance(index, int):
            return self.hand[index]
        return Data(tuple(islice(self.samples, index.stop)), self.name, self.split, self.answers)

    @property
    def samples(self) -> Iterator[Any]:
        """All of them in the order of the shards, read as they are asked for; their pictures are not."""
        for name, count in zip(self.files, self.counts, strict=True):
            for sample, _ in islice(self._walk(name), count):
                yield sample

    def settings(self, workers: int) -> dict[str, Any]:
        """What an epoch's order hangs on: a resumed run must have the same."""
        samples = hashlib.sha256(json.dumps([self.told["floor"], self.told["samples"]]).encode()).hexdigest()
        return {"shuffle_buffer": self.buffer, "workers": max(1, workers), "shards": samples[:16]}

    def read(self, part: Part, step: int) -> Iterator[tuple[int, Any]]:
        """Number and sample, from the first of a step on, of the loader that makes it; its later steps follow."""
        lane = step % part.lanes
        start, count = part.piece(lane)
        draw = random.Random(f"{part.seed} {part.epoch} {part.place[0]} {lane}")
        order = Shuffle(count, self.buffer, draw)
        for _ in range(step // part.lanes * part.batch_size):
            next(order)
        lives, entered = frozenset(order.buffer), order.entered  # of those that entered the others are done with
        passing = self._piece(part, start, count, min(lives, default=entered))
        held: dict[int, tuple[int, Any]] = {}
        for wanted in order:
            while wanted not in held:
                place, number, sample, file = next(passing)
                if place >= entered or place in lives:
                    held[place] = number, _fetched(sample, file)
            yield held.pop(wanted)

    def _piece(self, part: Part, start: int, count: int, first: int) -> Iterator[tuple[int, int, Any, BinaryIO]]:
        """From the `first` on: place in the piece, number in the split, sample, the open file of its picture."""
        shards = list(range(len(self.counts)))
        random.Random(f"{part.seed} {part.epoch}").shuffle(shards)
        place, names = -start, list(self.files)
        for shard in shards:
            end = place + self.counts[shard]
            if first < end and place < count:
                k = 0
                with closing(self._walk(names[shard])) as walked:
                    for k, (sample, file) in enumerate(islice(walked, min(count, end) - place), 1):
                        if place + k > first:
                            yield place + k - 1, self.starts[shard] + k - 1, sample, file
                if k < min(count, end) - place:
                    what = f"has {k} samples, fewer than when they were counted"
                    raise InputError(what, self.files[names[shard]], f"give it again, or remove the {COUNTS}")
            place = end

    def _walk(self, name: str) -> Generator[tuple[Any, BinaryIO]]:
        """A shard's samples, each with the open file."""
        for image_id, picture, texts, file in _entries(self.request, self.files[name], name, self.told["floor"]):
            if picture is not None and texts:
                yield make_sample(self.request.task, image_id, [picture], texts), file

    def _known(self, places: Iterable[Path]) -> dict[str, Any] | None:
        """The counts of a file that tells of these shards as they are."""
        wanted = {**self._about, "bytes": {name: file.stat().st_size for name, file in self.files.items()}}
        for place in places:
            told = read_json(place) if place.is_file() else None
            if isinstance(told, dict) and {key: told.get(key) for key in wanted} == wanted and told.keys() >= KEYS:
                return told
            if told is not None:
                logger.warning("%s: tells of other shards; they are counted anew", place)
        return None

    def _counted(self) -> dict[str, Any]:
        """Read all headers and texts once, and check them as `load_shards` does."""
        request, hidden, texts, entries, answers = self.request, 0, 0, 0, Counter[str]()
        missing: list[str] = []
        without: list[str] = []
        floor = _floor(self.files, self._about["test_held_out"]) if self._about["val_held_out"] else 0
        samples, sizes = {}, {}
        for name, file in paced(self.files.items(), len(self.files)):
            seen, samples[name], sizes[name] = set(), 0, file.stat().st_size
            for image_id, picture, some, _ in _entries(request, file, name, floor):
                entries += 1
                if image_id in seen:
                    what = f"members of {image_id.removeprefix(f'{name}/')} lie apart"
                    raise InputError(what, file, "write them side by side, or leave out --stream")
                seen.add(image_id)
                if picture is None or not some:
                    (without if picture else missing).append(image_id)
                    continue
                samples[name] += 1
                texts += len(some)
                if request.task == "vqa":
                    answers.update(answer for question in some for answer in question.answers)
                    hidden += sum(not question.answers for question in some)
        read_so_far(entries)
        report_missing(missing, request.path, request.skip_missing, "put them beside their texts")
        report_bare(without, request)
        if hidden:
            raise InputError(f"{hidden} questions without answers: nothing to train on", request.path)
        told = {"floor": floor, "texts": texts, "samples": samples, "bytes": sizes, "answers": answers}
        return {**self._about, **told}


def _entries(
    request: Request, file: Path, name: str, floor: int
) -> Iterator[tuple[str, TarImage | None, list[Any], BinaryIO]]:
    """Of every key of a shard that is not held out: id, picture, texts, the open file."""
    with opened(file) as stream:
        for key, members in walk(stream, file):
            image_id = f"{name}/{key}"
            if floor and _rank(image_id) < floor:
                continue
            texts = texts_of(request.task, file, key, members, image_id, stream)
            yield image_id, picture_of(file, key, members), texts, stream


def _rank(image_id: str) -> int:
    """Of a picture's name: those of the lowest are held out, as by `val_images`."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")


def _floor(files: dict[str, Path], test: bool) -> int:
    """The rank from which on pictures are trained on, where `choose_split` holds out those below; 8 bytes a picture."""
    ranks = array("Q")
    for name, file in paced(files.items(), len(files)):
        with opened(file) as stream:
            ranks.extend(_rank(f"{name}/{key}") for key, _ in walk(stream, file))
    out = held_out(len(ranks))
    out += held_out(len(ranks) - out) if test else 0
    return int(np.partition(np.array(ranks), out)[out]) if out < len(ranks) else 0


def _fetched(sample: Any, file: BinaryIO) -> Any:
    """The sample with its picture's bytes, read from the shard that is just going by."""
    place = sample.image
    try:
        data = read_at(file, (place.offset, place.size)) if place.size <= MAX_MEMBER else None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", place.path, "go on with --resume") from error
    return replace(sample, image=Fetched(place, data))


def bare(sample: Any) -> Any:
    """The sample without its picture's bytes, which have done their work."""
    return replace(sample, image=sample.image.place)


def number_of(image_id: str) -> int:
    """A number for a name; two names of one are not to be expected."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big") >> 1
