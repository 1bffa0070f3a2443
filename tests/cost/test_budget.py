"""Finding a strength on curves of every kind, and holding a budget on a moving one."""

import math
from collections.abc import Callable
from dataclasses import asdict

import pytest

from madtp.cost.budget import Controller, OutOfReach, check_reduction, find_from_sample, find_strength
from madtp.errors import InputError

BOUNDS = (0.02, 4096.0)
MIDDLE = math.log(BOUNDS[0] * BOUNDS[1]) / 2


def rising(strength: float) -> float:
    return 0.9 / (1 + math.exp(MIDDLE - math.log(strength)))


def falling(strength: float) -> float:
    return 0.9 - rising(strength)


def humped(strength: float) -> float:
    """Low, high, low: both flanks cross most targets."""
    return 0.8 * math.exp(-((math.log(strength) - 2.0) ** 2) / 5)


def noisy(strength: float) -> float:
    """A rise with ripples much finer than the grid."""
    return rising(strength) + 0.03 * math.sin(37 * math.log(strength))


class Counted:
    """A curve that remembers where it was measured."""

    def __init__(self, curve: Callable[[float], float]) -> None:
        self.curve, self.at = curve, list[float]()

    def __call__(self, strength: float) -> float:
        self.at.append(strength)
        return self.curve(strength)


@pytest.mark.parametrize("curve", [rising, falling, humped, noisy])
@pytest.mark.parametrize("target", [0.1, 0.3, 0.5, 0.7])
def test_meets_the_target(curve: Callable[[float], float], target: float) -> None:
    measure = Counted(curve)
    found = find_strength(measure, target, BOUNDS)
    assert found.reduction == pytest.approx(target, abs=0.003)
    assert curve(found.strength) == pytest.approx(found.reduction, abs=1e-9)
    assert all(BOUNDS[0] * 0.999 <= x <= BOUNDS[1] * 1.001 for x in measure.at)
    assert len(measure.at) <= 7 + 10
    assert len(set(measure.at)) == len(measure.at), "every measurement is a pass over data"
    assert [x for x, _ in found.tried] == pytest.approx(measure.at)
    assert (found.strength, found.reduction) in found.tried


def test_stops_at_the_first_point_that_is_close_enough() -> None:
    measure = Counted(lambda _: 0.5)
    assert find_strength(measure, 0.5, BOUNDS).reduction == 0.5
    assert len(measure.at) == 1


def test_a_bracket_that_is_no_good_end_to_end_is_found_by_the_grid() -> None:
    """Both ends of the range are under the target: bisection of the whole would see nothing."""
    assert humped(BOUNDS[0]) < 0.5 and humped(BOUNDS[1]) < 0.5
    assert find_strength(humped, 0.5, BOUNDS).reduction == pytest.approx(0.5, abs=0.003)


def test_on_steps_the_nearest_one_is_returned() -> None:
    """Token counts are whole numbers: a small model's curve is a staircase, and a target may lie between two stairs."""
    found = find_strength(lambda s: 0.5 if s > 7 else 0.2, 0.45, BOUNDS)
    assert found.reduction == 0.5 and found.strength > 7
    assert find_strength(lambda s: 0.5 if s > 7 else 0.2, 0.25, BOUNDS).reduction == 0.2
    assert len(found.tried) == 7 + 10


def test_a_staircase_with_a_stair_at_the_target() -> None:
    found = find_strength(lambda s: math.floor(10 * rising(s)) / 10, 0.4, BOUNDS)
    assert found.reduction == pytest.approx(0.4)


@pytest.mark.parametrize("curve", [rising, falling, humped])
def test_above_the_most_says_what_can_be_had(curve: Callable[[float], float]) -> None:
    with pytest.raises(InputError, match=r"--reduction: 0\.95 is above the most this model reaches, (0\.\d+)") as error:
        find_strength(curve, 0.95, BOUNDS)
    floor = float(str(error.value).rpartition("ask for at most ")[2])
    assert 0 < floor <= max(x for x in (curve(s) for s in (0.02, 0.15, 1.2, 9.05, 69.5, 533.0, 4096.0)))
    assert find_strength(curve, floor, BOUNDS).reduction == pytest.approx(floor, abs=0.003)


def test_below_the_least_says_so() -> None:
    with pytest.raises(InputError, match=r"0\.1 is below its least, 0\.400; use the dense model"):
        find_strength(lambda s: 0.4 + 0.1 * rising(s), 0.1, BOUNDS)


def test_below_the_least_the_mildest_will_do_if_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    found = find_strength(lambda s: 0.4 + 0.1 * rising(s), 0.1, BOUNDS, mildest=True)
    assert (found.strength, found.reduction) == (pytest.approx(BOUNDS[0]), pytest.approx(0.4, abs=1e-3))
    assert caplog.messages == ["asked to save 0.1, the least this model can: 0.400"]
    with pytest.raises(OutOfReach, match="above the most"):
        find_strength(rising, 0.95, BOUNDS, mildest=True)
    assert find_strength(rising, 0.3, BOUNDS, mildest=True) == find_strength(rising, 0.3, BOUNDS)


@pytest.mark.parametrize("target", [0.0, 1.0, 1.5, -1.0, math.nan, math.inf])
def test_impossible_targets_are_refused_before_any_work(target: float) -> None:
    measure = Counted(rising)
    with pytest.raises(InputError, match=r"--reduction: .* is impossible; use a number above 0 and below 1"):
        find_strength(measure, target, BOUNDS)
    assert measure.at == []
    with pytest.raises(InputError):
        check_reduction(target)


def test_possible_targets_pass() -> None:
    for target in (1e-9, 0.5, 1 - 1e-9):
        check_reduction(target)


def test_tolerance_grid_and_refine_are_obeyed() -> None:
    measure = Counted(rising)
    loose = find_strength(measure, 0.43, BOUNDS, tolerance=0.1, grid=3, refine=2)
    assert abs(loose.reduction - 0.43) <= 0.1
    assert len(measure.at) == 2, "low end, then the middle at 0.45"
    exact = find_strength(rising, 0.43, BOUNDS, tolerance=1e-6, refine=40)
    assert abs(exact.reduction - 0.43) <= 1e-6


def drive(controller: Controller, plant: Callable[[float, int], float], steps: int) -> list[float]:
    measured = []
    for step in range(steps):
        measured.append(plant(controller.strength, step))
        controller.update(measured[-1])
    return measured


@pytest.mark.parametrize("start", [0.02, 3.0, 4096.0])
@pytest.mark.parametrize("target", [0.2, 0.5, 0.8])
def test_controller_converges_from_anywhere(start: float, target: float) -> None:
    measured = drive(Controller(start, target, BOUNDS), lambda s, _: rising(s), 400)
    assert measured[-1] == pytest.approx(target, abs=0.01)
    assert max(abs(x - target) for x in measured[-50:]) < 0.01


def test_controller_follows_a_plant_that_drifts_under_noise() -> None:
    """Weights change while it steers: the curve moves; batches differ: the count is noisy."""

    def plant(strength: float, step: int) -> float:
        return rising(strength * math.exp(-step / 200)) + 0.05 * math.sin(12.9898 * step)

    controller = Controller(1.0, 0.5, BOUNDS)
    measured = drive(controller, plant, 600)
    tail = measured[-200:]
    assert sum(tail) / len(tail) == pytest.approx(0.5, abs=0.02)
    assert controller.smooth == pytest.approx(0.5, abs=0.05)


def test_controller_keeps_within_bounds_and_comes_back_from_them() -> None:
    controller = Controller(1.0, 0.5, (0.5, 2.0))
    drive(controller, lambda *_: 0.0, 50)
    assert controller.strength == 2.0
    drive(controller, lambda *_: 1.0, 100)
    assert controller.strength == 0.5
    assert controller.update(0.0) > 0.5, "no wind-up: the first error the other way is acted upon"


def test_controllers_step_is_limited() -> None:
    controller = Controller(1.0, 0.9, BOUNDS, gain=5.0)
    assert controller.update(0.0) == pytest.approx(math.exp(0.2))
    assert Controller(1.0, 0.1, BOUNDS, gain=5.0).update(0.9) == pytest.approx(math.exp(-0.2))


def test_controller_by_hand() -> None:
    controller = Controller(2.0, 0.5, BOUNDS, gain=0.3)
    assert controller.smooth is None
    assert controller.update(0.3) == pytest.approx(2.0 * math.exp(0.3 * 0.2))
    assert (controller.step, controller.smooth) == (1, 0.3)
    controller.update(0.7)
    assert controller.strength == pytest.approx(2.0) and controller.smooth == pytest.approx(0.95 * 0.3 + 0.05 * 0.7)


def test_goal_ramps_up_and_stays() -> None:
    controller = Controller(1.0, 0.7, BOUNDS, start=0.3, ramp=4)
    goals = []
    for _ in range(7):
        goals.append(controller.goal())
        controller.update(controller.goal())
    assert goals == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7, 0.7, 0.7])
    assert controller.strength == 1.0, "on the goal nothing is changed"
    assert Controller(1.0, 0.7, BOUNDS).goal() == 0.7


def test_a_strength_that_is_known_grows_with_the_goal() -> None:
    controller = Controller(9.0, 0.5, (0.01, 0.99), ramp=4, full=0.6)
    strengths = [controller.strength, *(controller.update(0.123) for _ in range(6))]
    assert strengths == pytest.approx([0.01, 0.15, 0.3, 0.45, 0.6, 0.6, 0.6]), "whatever was measured"
    assert controller.smooth == pytest.approx(0.123)
    again = Controller(**asdict(controller))
    assert again == controller, "as a checkpoint holds it"
    assert Controller(0.2, 0.5, (0.01, 0.99), full=0.7).strength == 0.7, "no ramp"


@pytest.mark.parametrize("curve", [rising, humped, noisy])
@pytest.mark.parametrize("off", [0.0, 0.02, -0.03])
def test_a_sample_finds_the_place_and_the_whole_confirms_it(curve: Callable[[float], float], off: float) -> None:
    whole, sample = Counted(curve), Counted(lambda strength: curve(strength) + off)
    found = find_from_sample(sample, whole, 0.4, BOUNDS)
    assert found is not None and found.reduction == pytest.approx(0.4, abs=0.003)
    assert found.reduction == curve(found.strength) and found.tried[-1] == (found.strength, found.reduction)
    assert len(whole.at) <= (6 if curve is noisy else 3) and len(sample.at) == len(set(sample.at)) > len(whole.at)


def test_a_whole_that_is_steeper_than_its_sample_is_met_between_its_own_points() -> None:
    whole = Counted(lambda strength: 1.3 * rising(strength) - 0.1)
    found = find_from_sample(rising, whole, 0.4, BOUNDS)
    assert found is not None and found.reduction == pytest.approx(0.4, abs=0.003) and 2 <= len(whole.at) <= 3


def test_a_sample_that_says_nothing_about_the_whole_is_given_up() -> None:
    assert find_from_sample(lambda strength: 0.1, rising, 0.4, BOUNDS) is None
    assert find_from_sample(rising, falling, 0.4, BOUNDS) is None
    assert find_from_sample(rising, lambda strength: 0.99, 0.4, BOUNDS) is None
