"""A model pushed to a local folder: whole, loadable in one line, with a card that says what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import madtp
from madtp.errors import InputError
from madtp.model.curve import BudgetCurve
from pipelines.stock import close, folder, pictures
from small import KINDS, contents, nano, nano_processor

REPORT = {
    "schema": 1, "task": "vqa", "data": "scenes", "split": "test", "n": 61, "hardware": {"cpu": "abacus", "cores": 2},
    "rows": [
        {"name": "dense", "metrics": {"accuracy": 0.83}, "gflops": {"mean": 0.178, "reduction": 0.0}},
        {"name": "0.5", "metrics": {"accuracy": 0.79}, "gflops": {"mean": 0.089, "reduction": 0.503}},
    ],
}  # fmt: skip


def card(out: Path) -> tuple[dict[str, Any], str]:
    _, head, body = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_pushed_loads_in_one_line(kind: str, tmp_path: Path) -> None:
    model = nano(kind, temperature=8.0)
    out = tmp_path / "pushed"
    assert madtp.push_to_hub(model, out, nano_processor(kind)) == str(out)
    loaded = type(model).from_pretrained(out)
    theirs = model.state_dict()
    assert loaded.temperature == 8.0
    assert all(torch.equal(value, theirs[name]) for name, value in loaded.state_dict().items())
    head, body = card(out)
    assert head["library_name"] == "transformers" and "token-pruning" in head["tags"] and head["pipeline_tag"]
    assert "Quality was not measured" in body
    code = body.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert type(names["model"]) is type(model) and names["pipe"].model.temperature == 8.0


def test_the_card_has_the_measured_table(tmp_path: Path) -> None:
    saved = folder("vqa", tmp_path, reduction=0.503)
    (saved / "report.json").write_text(json.dumps(REPORT))
    out = tmp_path / "out"
    madtp.push_to_hub(madtp.load(saved), str(out))
    _, body = card(out)
    assert "saved 50.3% of the GFLOPs" in body
    assert "| dense | 83.0% |" in body and "| 0.5 | 79.0% |" in body.replace("reduction ", "")
    assert "abacus" in body and "split: test" in body and "n: 61" in body
    for given in (REPORT, saved, saved / "report.json"):
        madtp.push_to_hub(madtp.load(saved), out, report=given, overwrite=True)
        assert card(out)[1] == body


def test_the_curve_goes_along_and_stands_on_the_card(tmp_path: Path) -> None:
    curve = BudgetCurve(((1.5, 0.211), (4.0, 0.427)), "scenes val", 13)
    madtp.push_to_hub(madtp.load(folder("vqa", tmp_path, curve=curve)), tmp_path / "out")
    pushed = madtp.load(tmp_path / "out")
    pushed.set_reduction(0.427)
    assert pushed.temperature == 4.0
    _, body = card(tmp_path / "out")
    assert "| 21.1% | 1.5 |\n| 42.7% | 4 |" in body and "Measured on scenes val (13 texts)" in body
    madtp.push_to_hub(madtp.load(folder("clip", tmp_path)), tmp_path / "none")
    assert "set_reduction" not in card(tmp_path / "none")[1]


def test_a_pushed_model_answers_the_same(tmp_path: Path) -> None:
    saved = folder("clip", tmp_path)
    madtp.push_to_hub(madtp.load(saved), tmp_path / "out")
    before, after = (madtp.pipeline(None, where)(pictures()[:2], ["a", "b"]) for where in (saved, tmp_path / "out"))
    assert close(before, after)


def test_wrong_places_and_reports_are_told_and_nothing_is_lost(tmp_path: Path) -> None:
    model = nano("vqa")
    words, full = nano_processor("vqa"), tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    before = contents(full)
    for arguments, said in (
        ((full, words), "is not empty"),
        (("a/b/c", words), "is neither owner/name nor a folder"),
        ((tmp_path / "x",), "processor: is missing"),
        ((tmp_path / "x", words, tmp_path / "none.json"), "cannot be read"),
        ((tmp_path / "x", words, full / "mine.txt"), "cannot be read"),
    ):
        with pytest.raises(InputError, match=said):
            madtp.push_to_hub(model, *arguments)
    assert contents(full) == before and not (tmp_path / "x").exists()
    madtp.push_to_hub(model, full, words, overwrite=True)
    assert contents(full).keys() > before.keys()
