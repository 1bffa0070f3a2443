"""An example answered at a budget: the numbers are those of the verbs, and what the model had is not lost."""

from pathlib import Path
from typing import Any

import pytest
import torch

from madtp.cost.curve import Curve
from madtp.errors import InputError
from madtp.evaluate import batches, measure_reduction
from madtp.page import fragments
from madtp.page.explore import Explorer
from madtp.page.samples import write_samples
from small import KINDS, nano, nano_task, samples

CURVE = Curve(((0.1, 1.0), (0.5, 8.0)))


def explorer(kind: str, **madtp: Any) -> Explorer:
    task = nano_task(kind)
    made = Explorer(kind, nano(kind, **madtp), task, samples(task.name, "val", 5))
    made.curve = CURVE
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(kind: str, tmp_path: Path) -> None:
    some = explorer(kind)
    rows = write_samples(some.task.name, tmp_path / "s", 2)
    assert len(rows) == 2 and all(Path(file).is_file() for row in rows for file in row[:-1])
    *images, text = rows[0]
    assert len(images) == some.pictures
    dense, pruned = (some.answer(images, text, budget) for budget in (0, 0.5))
    assert dense.temperature is None and dense.reduction == 0
    assert pruned.temperature == pytest.approx(8.0) and 0 < pruned.reduction < 1
    for answer in (dense, pruned):
        assert answer.milliseconds > 0 and 1 <= answer.runs <= 5
        shown = [tower for tower in answer.towers if tower.image is not None]
        assert len(shown) == some.pictures and all(len(tower.steps) == some.blocks for tower in shown)
        assert (answer.confidence is None) == (kind == "clip")
        assert answer.confidence is None or 0 < answer.confidence <= 1
    assert all(step.kept.all() for tower in dense.towers for step in tower.steps)
    assert not all(step.kept.all() for tower in pruned.towers for step in tower.steps)


def test_confidence_is_the_probability_of_what_was_said(tmp_path: Path) -> None:
    some = explorer("vqa")
    image, text = write_samples("vqa", tmp_path, 1)[0]
    answer = some.answer([image], text, 0.5)
    batch = some.task.collate([some.task.example([image], text)])
    words = some.task.texts.said([answer.words])[0]  # type: ignore[attr-defined]
    some.model.temperature = 8.0
    with torch.no_grad():
        logits = some.model(**some.task.inputs(batch), decoder_input_ids=words).logits[0]
    each = [float(logits[i].softmax(-1)[token]) for i, token in enumerate(words[0, 1:].tolist())]
    assert answer.confidence == pytest.approx(torch.tensor(each).prod().item(), rel=1e-4)


def test_the_curve_is_that_of_calibration() -> None:
    some = explorer("vqa")
    told: list[str] = []
    curve = some.measure(lambda n, note: told.append(note))
    assert len(told) >= len(curve.points) >= 2
    reduction, strength = curve.points[1]
    some.model.temperature = strength
    ready = list(batches(some.task, some.data, 5, some.model.device))
    assert measure_reduction(some.model, some.task, ready) == pytest.approx(reduction, abs=1e-6)


def test_wrong_input(tmp_path: Path) -> None:
    some = explorer("vqa")
    image, _ = write_samples("vqa", tmp_path, 1)[0]
    (tmp_path / "notes.png").write_text("no picture")
    for images, text, said in (
        ([image], "  ", "type one"),
        ([], "is there?", "choose a picture"),
        ([str(tmp_path / "notes.png")], "is there?", "is not an image"),
    ):
        with pytest.raises(InputError, match=said):
            some.answer(images, text, 0.5)
    with pytest.raises(InputError, match="smaller pictures"):
        explorer("vqa", method="downsample")


def test_fragments_say_what_was_measured(tmp_path: Path) -> None:
    some = explorer("vqa")
    image, _ = write_samples("vqa", tmp_path, 1)[0]
    nasty = "<script>alert(1)</script> red?"
    answer = some.answer([image], nasty, 0.5)
    told = fragments.numbers(answer, CURVE)
    assert "Asked 50% on average" in told and f"{answer.milliseconds:.3g}"[:3] in told
    assert "the least this model can save is 10%" in fragments.numbers(some.answer([image], "red?", 0.05), CURVE)
    assert "the most this model can save is 50%" in fragments.numbers(some.answer([image], "red?", 0.8), CURVE)
    assert "nothing is pruned" in fragments.numbers(some.answer([image], "red?", 0), CURVE)
    first, last = fragments.pictures(answer, 1), fragments.pictures(answer, 99)
    assert first != last and "after block 3" in last and "<script>" not in first + last + told
    picture = answer.towers[0]
    assert f"{int(picture.steps[0].kept.sum())} of {len(picture.steps[0].kept)} patches kept" in first
    assert fragments.problem("<b>") == "<p class='problem' role='alert'>&lt;b&gt;</p>" and fragments.problem("") == ""
