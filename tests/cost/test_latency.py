"""Paired timing on a clock of our own: what is run, in which order, what is counted."""

from types import SimpleNamespace

import pytest

from madtp.cost import latency
from madtp.cost.latency import Paired, time_once, time_pairs


class Clock:
    """Stands still but for the work, which moves it."""

    def __init__(self) -> None:
        self.now, self.log = 100.0, list[str]()

    def perf_counter(self) -> float:
        self.log.append("clock")
        return self.now

    def work(self, name: str, *seconds: float) -> None:
        self.log.append(name)
        self.now += seconds[min(self.log.count(name), len(seconds)) - 1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    monkeypatch.setattr(latency, "_synchronise", lambda: clock.log.append("synchronise"))
    return clock


def test_once_is_synchronised_at_both_ends(clock: Clock) -> None:
    assert time_once(lambda: clock.work("a", 3.0)) == 3.0
    assert clock.log == ["synchronise", "clock", "a", "synchronise", "clock"]


def test_pairs_alternate_and_warm_up_is_thrown_away(clock: Clock) -> None:
    result = time_pairs(
        lambda: clock.work("dense", 100.0, 100.0, 8.0, 12.0, 5.0),
        lambda: clock.work("pruned", 100.0, 100.0, 4.0, 3.0, 5.0),
        pairs=3,
        warmup=2,
        advance=lambda: clock.log.append("advance"),
    )
    assert result == Paired((8.0, 12.0, 5.0), (4.0, 3.0, 5.0))
    assert [entry for entry in clock.log if entry not in ("clock", "synchronise")] == ["dense", "pruned", "advance"] * 5


def test_by_default_one_warm_up_and_seven_pairs(clock: Clock) -> None:
    result = time_pairs(lambda: clock.work("dense", 2.0), lambda: clock.work("pruned", 1.0))
    assert (clock.log.count("dense"), clock.log.count("pruned"), len(result.baseline)) == (8, 8, 7)


def test_speedup_is_the_median_of_the_pairs_ratios() -> None:
    """Not the ratio of medians (4 / 2 here), nor of sums: a slow minute of the machine falls on both of a pair."""
    assert Paired((2.0, 4.0, 30.0), (1.0, 4.0, 2.0)).speedup == 2.0
    assert Paired((2.0, 4.0, 40.0), (4.0, 2.0, 10.0)).speedup == 2.0
    assert Paired((1.0, 10.0, 100.0), (2.0, 20.0, 10.0)).speedup == 0.5


def test_every_pair_may_have_other_work() -> None:
    seen: list[tuple[str, int]] = []
    now = 0

    def renew() -> None:
        nonlocal now
        now += 1

    time_pairs(lambda: seen.append(("a", now)), lambda: seen.append(("b", now)), pairs=3, warmup=2, before=renew)
    assert seen == [(name, i) for i in range(1, 6) for name in "ab"]
