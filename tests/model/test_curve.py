"""The curve that is stored with a model: read by hand, kept where it holds and dropped where it does not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import madtp
from madtp.errors import InputError
from madtp.model.config import PruneConfig
from madtp.model.curve import BudgetCurve
from pipelines.stock import folder
from small import KINDS, nano

POINTS = ((1.0, 0.2), (4.0, 0.4), (16.0, 0.7))
CURVE = BudgetCurve(POINTS, "scenes val", 13)


def test_read_by_hand() -> None:
    assert CURVE.read(0.4) == (4.0, 0.4)
    between, measured = CURVE.read(0.3)
    assert between == pytest.approx(2.0) and measured is None, "half of the way in the logarithm, and not measured"
    assert CURVE.read(0.197) == (1.0, 0.2) and CURVE.read(0.704) == (16.0, 0.7), "within what calibrating may miss by"
    for beyond in (0.19, 0.71):
        with pytest.raises(ValueError, match=r"is outside of the measured range, 0\.200 to 0\.700; ask for one within"):
            CURVE.read(beyond)
    temperatures = [CURVE.read(0.2 + 0.01 * i)[0] for i in range(51)]
    assert temperatures == sorted(temperatures) and len(set(temperatures)) == 51


def test_a_share_is_the_milder_the_smaller() -> None:
    """A knob that turns the other way."""
    assert BudgetCurve(((1.0, 0.7), (4.0, 0.4), (16.0, 0.2)), "x", 1).read(0.3)[0] == pytest.approx(8.0)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"points": [], "data": "x", "n": 1},
        {"points": [[1.0]], "data": "x", "n": 1},
        {"points": [[0.0, 0.5]], "data": "x", "n": 1},
        {"points": [[1.0, 1.5]], "data": "x", "n": 1},
        {"points": [[1.0, float("nan")]], "data": "x", "n": 1},
        {"points": [[1.0, 0.5]], "data": "x"},
        {"points": [[1.0, 0.5]], "data": 3, "n": 1},
        {"points": [[1.0, 0.5]], "data": "x", "n": 1.5},
        {"points": [[1.0, 0.5]] * 1001, "data": "x", "n": 1},
        {"points": 7, "data": "x", "n": 1},
    ],
)
def test_what_is_no_curve_is_told(value: Any) -> None:
    with pytest.raises(InputError, match=r"madtp\.curve"):
        PruneConfig.of({"curve": value})


def test_a_reduction_sets_the_temperature() -> None:
    model = nano("vqa", temperature=4.0, reduction=0.4, curve=CURVE)
    model.set_reduction(0.7)
    assert (model.temperature, model.pruning.reduction) == (16.0, 0.7)
    model.set_reduction(0.3)
    assert model.temperature == pytest.approx(2.0) and model.pruning.reduction is None
    model.set_reduction(0)
    assert model.temperature is None and model.pruning.curve == CURVE
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="is impossible"):
            model.set_reduction(wrong)
    with pytest.raises(ValueError, match=r"0\.9 is outside of the measured range, 0\.200 to 0\.700"):
        model.set_reduction(0.9)
    assert model.temperature is None, "left as it was"


def test_without_a_curve_it_says_what_to_run() -> None:
    model = nano("vqa", temperature=4.0)
    with pytest.raises(ValueError, match=r"measure one: `madtp calibrate .*--reduction 0\.3,0\.5,0\.8"):
        model.set_reduction(0.5)
    assert model.temperature == 4.0
    model.set_reduction(0)
    assert model.temperature is None


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_with_the_model(kind: str, tmp_path: Path) -> None:
    saved = folder(kind, tmp_path, curve=CURVE)
    stored = json.loads((saved / "config.json").read_text())["madtp"]["curve"]
    assert stored == {"points": [list(point) for point in POINTS], "data": "scenes val", "n": 13}
    for loaded in (madtp.load(saved), type(nano(kind)).from_pretrained(saved)):
        assert loaded.pruning.curve == CURVE
        loaded.set_reduction(0.4)
        assert loaded.temperature == 4.0
    loaded.save_pretrained(tmp_path / "again")
    assert madtp.load(tmp_path / "again").pruning == loaded.pruning


def test_it_goes_where_it_does_not_hold_any_more() -> None:
    model = nano("vqa", curve=CURVE)
    model.temperature, model.pruning = 3.0, replace(model.pruning, alpha=0.7)
    assert model.eval().to(torch.float64).pruning.curve == CURVE, "what a temperature saves is still the same"
    kept = model.pruning
    for changed in ({"method": "tome", "temperature": 0.1}, {"first_block": 1}):
        model.pruning = replace(kept, **changed)
        assert model.pruning.curve is None, changed
        model.pruning = kept
        assert model.pruning.curve == CURVE
    model.renew_semantic_tokens(7)
    assert model.pruning.curve is None
    model.pruning = replace(model.pruning, curve=CURVE)
    model.train()
    assert model.pruning.curve is None, "training changes the weights"
