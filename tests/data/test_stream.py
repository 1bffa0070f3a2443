"""Shards as a stream: every sample once, mixed, gone on with anywhere; little is held, and faults are told as ever."""

import gc
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from madtp.data import load_data, stream
from madtp.data.faults import Faults
from madtp.data.load import load_stream
from madtp.data.order import Part
from madtp.data.sample import CaptionSample
from madtp.data.stream import COUNTS, Stream, bare, number_of
from madtp.errors import InputError
from madtp.task.step import steps_of_epoch
from tars import pair, png, write_tar

SIZES = (7, 3, 13, 2, 5, 11)  # 41
BUFFER, BATCH = 5, 3


@pytest.fixture
def shards(root: Path) -> Path:
    """Uneven tars; the n-th picture of all has red = n and says so."""
    red = 0
    for k, size in enumerate(SIZES):
        members: dict[str, object] = {}
        for i in range(size):
            members |= pair(f"{i:03d}", red)
            red += 1
        write_tar(root / f"train-{k}.tar", members)
    write_tar(root / "val-0.tar", pair("v", 241))
    return root


def part_of(data: Stream, rank: int = 0, processes: int = 1, lanes: int = 1, seed: int = 3, epoch: int = 0) -> Part:
    steps = steps_of_epoch(len(data), BATCH, processes)
    return Part(len(data), BATCH, (rank, processes), steps, lanes, seed, epoch)


def epoch_of(data: Stream, part: Part) -> list[int]:
    """Numbers of this process's samples, loader by loader."""
    return [number for lane in range(min(part.lanes, part.steps)) for number, _ in data.read(part, lane)]


def test_every_sample_comes_once_with_its_own_picture(shards: Path) -> None:
    data = load_stream("caption", shards, buffer=BUFFER)
    assert (len(data), data.n_texts, data.name, data.split) == (41, 41, "toy", "train")
    seen = list(data.read(part_of(data), 0))
    for number, sample in seen:
        assert sample.captions == (f"no {number}",)
        assert sample.image.open().getpixel((0, 0))[0] == number
        assert bare(sample).image.open().getpixel((0, 0))[0] == number  # at its place
    assert sorted(number for number, _ in seen) == list(range(41))
    assert len({sample.image_id for _, sample in seen}) == 41, "each tar numbers its own anew"


def test_the_order_hangs_on_seed_and_epoch_alone(shards: Path) -> None:
    data = load_stream("caption", shards, buffer=BUFFER)
    first = epoch_of(data, part_of(data))
    assert epoch_of(load_stream("caption", shards, buffer=BUFFER), part_of(data)) == first
    others = [epoch_of(data, part_of(data, **how)) for how in ({"epoch": 1}, {"seed": 5})]
    plain = epoch_of(load_stream("caption", shards, buffer=1), part_of(data))
    assert len({tuple(order) for order in (first, *others, plain)}) == 4
    runs = [number for number, before in zip(plain[1:], plain, strict=False) if number != before + 1]
    assert len(runs) <= len(SIZES), "without a buffer each shard comes in a row"


@pytest.mark.parametrize(("processes", "lanes"), [(1, 3), (2, 1), (3, 2), (7, 1), (11, 1)])
def test_processes_and_loaders_share_the_samples(shards: Path, processes: int, lanes: int) -> None:
    """Of 6 uneven shards: also where there are fewer than processes."""
    data = load_stream("caption", shards, buffer=BUFFER)
    parts = [part_of(data, rank, processes, lanes) for rank in range(processes)]
    seen = [epoch_of(data, part) for part in parts]
    assert sorted(number for some in seen for number in some) == list(range(41))
    assert [len(some) for some in seen] == [sum(map(part.size, range(part.steps))) for part in parts]
    assert max(map(len, seen)) - min(map(len, seen)) <= 1


@pytest.mark.parametrize("lanes", [1, 2])
def test_it_goes_on_from_any_step_and_reads_no_picture_twice(
    shards: Path, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_stream("caption", shards, buffer=BUFFER)
    part = part_of(data, rank=1, processes=2, lanes=lanes)
    fetched: Counter[str] = Counter()
    fetch = stream._fetched

    def counted(sample: Any, file: Any) -> Any:
        fetched[sample.image_id] += 1
        return fetch(sample, file)

    monkeypatch.setattr(stream, "_fetched", counted)
    whole = {lane: list(data.read(part, lane)) for lane in range(lanes)}
    for step in range(part.steps):
        fetched.clear()
        rest = whole[step % lanes][step // lanes * BATCH :]
        assert [(n, bare(s)) for n, s in data.read(part, step)] == [(n, bare(s)) for n, s in rest]
        assert fetched == Counter(sample.image_id for _, sample in rest)


def test_going_on_opens_no_shard_that_is_done_with(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_stream("caption", shards, buffer=2)
    part, walked = part_of(data), []
    walk = data._walk
    monkeypatch.setattr(data, "_walk", lambda name: (walked.append(name), walk(name))[1])
    list(data.read(part, 0))
    assert sorted(walked) == sorted(data.files)
    order = walked.copy()
    walked.clear()
    list(data.read(part, part.steps - 1))
    assert walked == order[-len(walked) :] and len(walked) < 3


def alive() -> int:
    return sum(type(thing) is CaptionSample for thing in gc.get_objects())


def test_no_more_is_held_than_the_buffer(shards: Path, request: pytest.FixtureRequest) -> None:
    gc.collect()
    gc.freeze()  # what is there already is not looked through again and again
    request.addfinalizer(gc.unfreeze)
    data = load_stream("caption", shards, buffer=BUFFER)
    reader = data.read(part_of(data), 0)
    most = 0
    for _ in reader:
        most = max(most, alive())
    assert 2 <= most <= BUFFER + 1
    for _ in range(2):  # nor by who reads all texts
        assert max(alive() for _ in data.samples) <= 2
    assert not any("no 17" in str(value) for value in vars(data).values())


def test_the_first_few_are_looked_at_in_place(shards: Path) -> None:
    some = load_stream("caption", shards)[:11]
    assert [sample.captions for sample in some] == [(f"no {k}",) for k in range(11)]
    assert [sample.image.open().getpixel((0, 0))[0] for sample in some] == list(range(11))


def test_a_limit_takes_the_first(shards: Path) -> None:
    data = load_stream("caption", shards, limit=9, buffer=BUFFER)
    assert len(data) == 9
    assert sorted(epoch_of(data, part_of(data, 0, 1, 2))) == list(range(9))
    assert len(load_stream("caption", shards, limit=43)) == 41


@pytest.mark.parametrize("named", [True, False])
def test_what_is_held_out_is_what_the_index_holds_out(root: Path, named: bool) -> None:
    """Where there is no val, or neither split: by the same names, so no picture is trained on and validated on."""
    for k, size in enumerate((23, 5, 19)):
        members = {name: value for i in range(size) for name, value in ((f"{i}.png", png(i)), (f"{i}.txt", f"{k} {i}"))}
        write_tar(root / f"{'train-' if named else ''}{k}.tar", members)
    wanted = {sample.captions for sample in load_data("caption", root, "train")}
    data = load_stream("caption", root, buffer=BUFFER)
    assert {sample.captions for _, sample in data.read(part_of(data), 0)} == wanted
    assert len(data) == len(wanted) == (42 if named else 38)


def test_counts_are_made_once(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    data = load_stream("caption", shards)
    run = tmp_path / "run" / COUNTS
    run.parent.mkdir()
    run.write_text(json.dumps(data.told))

    def never(*_: Any) -> Iterator[Any]:
        raise AssertionError("counted again")

    with monkeypatch.context() as patch:
        patch.setattr(stream, "_entries", never)
        again = load_stream("caption", shards, counts=[tmp_path / "none.json", run])
        assert (again.counts, again.settings(2)) == (data.counts, data.settings(2))
        (shards / COUNTS).write_text(json.dumps(data.told))
        assert load_stream("caption", shards).counts == data.counts
        with pytest.raises(AssertionError, match="again"):
            load_stream("caption", shards, skip_missing=True)
    (shards / "val-0.tar").rename(shards / "not.tar.here")
    assert len(load_stream("caption", shards)) == 37, "of which val is held out now"
    (shards / "not.tar.here").rename(shards / "val-0.tar")
    write_tar(shards / "train-1.tar", {name: value for k in range(17) for name, value in pair(f"{k}", k).items()})
    assert load_stream("caption", shards).counts == [7, 17, 13, 2, 5, 11]
    assert f"{COUNTS}: tells of other shards; they are counted anew" in caplog.text
    (shards / COUNTS).write_text("[3]")
    assert len(load_stream("caption", shards)) == 55
    (shards / COUNTS).write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_stream("caption", shards)


def test_settings_tell_orders_apart(shards: Path) -> None:
    told = load_stream("caption", shards, buffer=3).settings(0)
    assert told == load_stream("caption", shards, buffer=3).settings(1)
    assert told != load_stream("caption", shards, buffer=3).settings(2)
    assert told != load_stream("caption", shards, buffer=5).settings(0)
    (shards / "train-0.tar").rename(shards / "train-9.tar")
    assert told != load_stream("caption", shards, buffer=3).settings(0)


FAULTY: dict[str, tuple[str, dict[str, object]]] = {
    "no picture": ("caption", {"a.json": {"caption": "a"}, **pair("b", 3)}),
    "no caption": ("retrieval", {"a.jpg": png(2), **pair("b", 3)}),
    "no question": ("vqa", {**pair("a", 2, question="Is it?", answer="yes"), **pair("b", 3)}),
    "no answer": ("vqa", {**pair("a", 2, question="Is it?"), **pair("b", 3, question="Is it?", answer="no")}),
    "no JSON": ("caption", {"a.jpg": png(2), "a.json": "{"}),
    "no text": ("caption", {"a.jpg": png(2), "a.txt": b"\xff"}),
    "no words": ("caption", pair("a", 3, caption=1.5)),
    "nothing": ("caption", {"README": "none"}),
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("how", [{}, {"skip_missing": True}])
def test_faults_are_told_as_by_the_index(root: Path, name: str, how: dict[str, bool], caplog: Any) -> None:
    """And what is left out is the same."""
    task, members = FAULTY[name]
    write_tar(root / "train-0.tar", members)
    write_tar(root / "val-0.tar", pair("v", 2, question="Is it?", answer="yes"))
    ends: list[Any] = []
    for load in (load_data, load_stream):
        caplog.clear()
        try:
            samples = load(task, root, **how).samples  # type: ignore[operator]
            texts = [sample.texts[0] if task != "vqa" else sample.texts[0].text for sample in samples]
            ends.append([texts, caplog.text])
        except InputError as error:
            ends.append(str(error))
    assert ends[0] == ends[1]
    assert isinstance(ends[0], str) != (bool(how) and name in ("no picture", "no caption", "no question"))


def test_missing_pictures_are_skipped_and_counted(root: Path) -> None:
    write_tar(root / "train-0.tar", {"a.json": {"caption": "a"}, **pair("b", 3), **pair("c", 5)})
    write_tar(root / "val-0.tar", pair("v", 2))
    faults = Faults("skip", 0.5)
    data = load_stream("caption", root, faults=faults)
    assert len(data) == 2 and faults.counts() == {"train": 1}
    with pytest.raises(InputError, match="1 of 3 entries of train are faulty"):
        load_stream("caption", root, faults=Faults("skip", 0.1))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("scenes:3", "only tar shards can be streamed, and one source of them; leave out --stream"),
        ("{root},{root}", "only tar shards can be streamed, and one source of them; leave out --stream"),
        ("{root}/mine", "only tar shards can be streamed, this is table; leave out --stream"),
        ("{root}/none", "no such folder or file"),
        ("{root}/none-*.tar", "fits no file"),
        ("{root}/val-0.tar", "no split 'train'; it has val"),
    ],
)
def test_what_cannot_be_streamed(shards: Path, source: str, words: str) -> None:
    (shards / "mine").mkdir()
    (shards / "mine" / "train.csv").write_text("image,caption\na.png,a\n")
    with pytest.raises(InputError) as caught:
        load_stream("caption", source.replace("{root}", str(shards)))
    assert words in str(caught.value)


def test_members_that_lie_apart(root: Path) -> None:
    members = {"a.jpg": png(1), **pair("b", 2), "a.txt": "a"}
    path = write_tar(root / "train-0.tar", members)
    assert len(load_data("caption", path, "train", skip_missing=True)) == 1  # of it val is held out
    with pytest.raises(InputError, match=r"train-0\.tar: members of a lie apart; write them side by side"):
        load_stream("caption", path, skip_missing=True)


def test_shards_that_change_under_a_run(shards: Path) -> None:
    data = load_stream("caption", shards, buffer=BUFFER)
    write_tar(shards / "train-2.tar", pair("a", 1))
    with pytest.raises(InputError, match=r"train-2\.tar: has 1 samples, fewer than when they were counted"):
        list(data.read(part_of(data), 0))
    (shards / "train-2.tar").unlink()
    with pytest.raises(InputError, match=r"train-2\.tar: cannot be read: No such file"):
        list(data.read(part_of(data), 0))


def test_a_picture_that_is_too_large_is_refused_when_it_is_opened(shards: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(stream, "MAX_MEMBER", 17)
    monkeypatch.setattr("madtp.data.shards.MAX_MEMBER", 17)
    write_tar(shards / "train-0.tar", {"a.jpg": png(1), "a.txt": "a"})
    for k in range(1, len(SIZES)):
        (shards / f"train-{k}.tar").unlink()
    data = load_stream("caption", shards)
    ((_, sample),) = islice(data.read(part_of(data), 0), 1)
    with pytest.raises(InputError, match="over the limit"):
        sample.image.open()


def test_numbers_of_names() -> None:
    numbers = {number_of(f"{k}.tar/{i}") for k in range(13) for i in range(101)}
    assert len(numbers) == 13 * 101 and min(numbers) >= 0 and max(numbers) < 2**63
