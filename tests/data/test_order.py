"""The order of a stream, on numbers: who gets what, and what comes when, against the plain words for it."""

import random
from itertools import accumulate, islice

from hypothesis import given
from hypothesis import strategies as st

from madtp.data.order import Part, Shuffle
from madtp.task.step import order_of_epoch, steps_of_epoch


@given(st.integers(1, 97), st.integers(1, 11), st.integers(1, 5), st.integers(1, 4))
def test_the_pieces_of_all_loaders_are_the_row_cut_up(images: int, size: int, processes: int, lanes: int) -> None:
    images = max(images, processes)  # a trainer refuses fewer
    steps = steps_of_epoch(images, size, processes)
    parts = [Part(images, size, (rank, processes), steps, lanes, 3, 1) for rank in range(processes)]
    pieces = [part.piece(lane) for part in parts for lane in range(lanes)]
    counts = [count for _, count in pieces]
    assert [start for start, _ in pieces] == [0, *accumulate(counts)][:-1]
    assert sum(counts) == images
    for rank, part in enumerate(parts):
        groups = order_of_epoch(images, size, (rank, processes), 3, 1)
        assert [part.size(step) for step in range(steps)] == [len(group) for group in groups], "as of any data"
        for lane in range(lanes):
            assert part.piece(lane)[1] == sum(part.size(step) for step in range(lane, steps, lanes))


def plainly(count: int, size: int, draw: random.Random) -> list[int]:
    """Fill the buffer, draw one, and so on until nothing is left."""
    rest, buffer, out = list(range(count)), [], []
    while rest or buffer:
        while rest and len(buffer) < size:
            buffer.append(rest.pop(0))
        i = draw.randrange(len(buffer))
        out.append(buffer[i])
        buffer[i] = buffer[-1]
        del buffer[-1]
    return out


@given(st.integers(0, 61), st.integers(1, 67), st.integers(0, 5))
def test_the_shuffle_is_what_its_words_say(count: int, size: int, seed: int) -> None:
    order = list(Shuffle(count, size, random.Random(seed)))
    assert order == plainly(count, size, random.Random(seed))
    assert sorted(order) == list(range(count))
    assert all(place < turn + size for turn, place in enumerate(order)), "none comes before it was read"


@given(st.integers(1, 61), st.integers(1, 13), st.integers(0, 61))
def test_what_is_yet_to_come_is_in_the_buffer_or_behind_what_entered(count: int, size: int, done: int) -> None:
    order = Shuffle(count, size, random.Random(7))
    list(islice(order, done))
    known, entered = set(order.buffer), order.entered
    assert known | set(range(entered, count)) == set(order)
    assert len(known) <= size


def test_orders_do_not_change_from_version_to_version() -> None:
    """A run is resumed with what another version of Python, or of madtp, began."""
    assert list(Shuffle(11, 5, random.Random("7 0 0 0"))) == [1, 2, 6, 4, 8, 3, 7, 9, 0, 5, 10]
