"""The curve of temperature and reduction."""

import math

import pytest

from madtp.cost.curve import Curve, fill, measure_curve, rising


def test_between_points_by_hand() -> None:
    curve = Curve(((0.2, 1.0), (0.4, 4.0), (0.7, 16.0)))
    assert curve.at(0.4) == (4.0, 0.4)
    strength, reduction = curve.at(0.3)
    assert strength == pytest.approx(2.0) and reduction == 0.3  # half of the way in the logarithm
    strength, _ = curve.at(0.6)
    assert strength == pytest.approx(4.0 * 4 ** (2 / 3))


def test_beyond_the_ends_and_dense() -> None:
    curve = Curve(((0.2, 1.0), (0.7, 16.0)))
    assert curve.at(0) == (None, 0.0)
    assert curve.at(0.1) == (1.0, 0.2)
    assert curve.at(0.85) == (16.0, 0.7)
    assert (curve.least, curve.most) == (0.2, 0.7)


def test_what_saves_as_much_as_a_stronger_one_is_left_out_whichever_way_the_knob_turns() -> None:
    up = [(1.0, 0.1), (2.0, 0.3), (3.0, 0.25), (5.0, 0.6)]
    assert rising(up).points == ((0.1, 1.0), (0.25, 3.0), (0.6, 5.0))
    down = [(1.0, 0.6), (2.0, 0.3), (3.0, 0.3), (5.0, 0.1)]
    assert rising(down).points == ((0.1, 5.0), (0.3, 3.0), (0.6, 1.0))
    with pytest.raises(ValueError, match="at least one"):
        rising([])


def test_measured_where_it_is_steep_and_true_between() -> None:
    def saves(strength: float) -> float:
        return 0.9 / (1 + (3 / strength) ** 2)

    tried: list[float] = []

    def measure(strength: float) -> float:
        tried.append(strength)
        return saves(strength)

    curve = measure_curve(measure, (0.02, 4096.0), grid=7, gap=0.06, most=29)
    assert len(tried) == len(set(tried)) <= 29
    assert sum(0.5 < strength < 20 for strength in tried) > len(tried) / 2
    for target in (0.11, 0.31, 0.53, 0.79):
        strength, reduction = curve.at(target)
        assert strength is not None and reduction == target
        assert saves(strength) == pytest.approx(target, abs=0.01)


def test_measuring_ends() -> None:
    count = 0

    def jump(strength: float) -> float:
        nonlocal count
        count += 1
        return 0.8 if strength > math.pi else 0.1

    curve = measure_curve(jump, (0.1, 100.0), grid=5, most=11)
    assert count == 11
    assert len(curve.points) == 2


def test_filled_where_neighbours_differ_and_not_elsewhere() -> None:
    known = {1.0: 0.1, 4.0: 0.5, 16.0: 0.55}
    tried: list[float] = []

    def measure(strength: float) -> float:
        tried.append(strength)
        return 0.1 + 0.2 * math.log2(strength)

    fill(measure, known, gap=0.11, most=7)
    assert tried == pytest.approx([2.0, 2**0.5, 2**1.5]) and known[2.0] == pytest.approx(0.3)
    fill(measure, {1.0: 0.1, 4.0: 0.9}, gap=0.11, most=2)
    assert len(tried) == 5
    fill(measure, {1.0: 0.1}, gap=0.11, most=2)
    assert len(tried) == 5
