"""`madtp view`: what it writes, says and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Ended, Run
from madtp.model.curve import BudgetCurve
from madtp.model.save import save_model
from small import contents, model_folder, nano, nano_task, samples


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    samples("vqa", "test", 1)[0].image.open().save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def saved(kind: str, folder: Path, **madtp: Any) -> Path:
    save_model(nano(kind, **madtp), nano_task(kind).processor, folder)
    return folder


def object_of(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended
    (line,) = ended.out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_one_example_at_the_models_own_temperature(madtp: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    question = "is there a red circle?"
    told = object_of(
        madtp("view", "--model", model, "--image", picture, "--text", question, "--out", tmp_path / "v", "--json")
    )
    assert (told["task"], told["text"], told["temperature"], told["temperature_from"]) == (
        "vqa",
        question,
        8.0,
        "model",
    )
    assert told["reduction_asked"] is None
    said = object_of(madtp("predict", "--model", model, "--image", picture, "--text", question, "--json"))
    assert told["answer"]["pruned"] == said["answer"]
    assert told["gflops"] == said["gflops"]
    dense = madtp("predict", "--model", model, "--image", picture, "--text", question, "--temperature", 0, "--json")
    assert told["answer"]["dense"] == object_of(dense)["answer"]
    assert set(told["kept"]) == {"picture", "text"}
    # a merged token counts as one of those left
    assert all(kept <= left for kept, left in zip(told["kept"]["picture"], said["tokens"]["vision"], strict=True))
    assert set(told["files"]) == {file.name for file in (tmp_path / "v").iterdir()}
    assert {"view.html", "kept.png", "kept.svg", "scores.png", "scores-text.svg", "claims.png"} <= set(told["files"])


def test_a_reduction_is_found_for_the_example_or_on_data(
    madtp: Run, model: Path, data: Path, picture: Path, tmp_path: Path
) -> None:
    one = ("view", "--model", model, "--image", picture, "--text", "is there a red circle?", "--reduction", 0.3)
    alone = madtp(*one, "--out", tmp_path / "alone")
    assert alone.code == 0
    assert "on this example alone" in " ".join(alone.out.split())
    told = object_of(madtp(*one, "--data", data, "--out", tmp_path / "data", "--json"))
    assert told["temperature_from"] == "data" and told["reduction_asked"] == 0.3
    found = object_of(
        madtp("calibrate", "--model", model, "--data", data, "--reduction", 0.3, "--out", tmp_path / "model2", "--json")
    )
    assert told["temperature"] == found["temperature"]
    page = (tmp_path / "data" / "view.html").read_text()
    assert f"saves {found['reduction']:.3f} on" in page


def test_a_reduction_is_read_off_the_curve_of_a_model_that_has_one(madtp: Run, picture: Path, tmp_path: Path) -> None:
    curve = BudgetCurve(((1.0, 0.2), (4.0, 0.4)), "scenes val", 13)
    model = model_folder(tmp_path / "model", temperature=8.0, curve=curve)
    one = ("view", "--model", model, "--image", picture, "--text", "is there a red circle?", "--out", tmp_path / "v")
    told = object_of(madtp(*one, "--reduction", 0.3, "--json"))
    assert told["temperature_from"] == "curve" and told["temperature"] == pytest.approx(2.0)
    assert "by the model&#x27;s curve, measured on scenes val" in (tmp_path / "v" / "view.html").read_text()
    assert "outside of the measured range" in madtp(*one, "--reduction", 0.6, "--overwrite").wrong()


def test_where_pruning_costs_an_answer(madtp: Run, tmp_path: Path) -> None:
    model = saved("reasoning", tmp_path / "model", temperature=3.0)
    command = ("view", "--model", model, "--data", "scenes:3", "--limit", 5, "--worst", 2, "--out", tmp_path / "w")
    told = object_of(madtp(*command, "--json"))
    assert told["n"] == 40 and told["lost"] >= 2
    assert len(told["worst"]) == 2
    page = (tmp_path / "w" / "worst.html").read_text()
    for row in told["worst"]:
        assert row["answer"]["dense"] == row["truth"] != row["answer"]["pruned"]
        assert row["marks"] == {"dense": 1.0, "pruned": 0.0}
        assert f"href='{row['page']}'" in page and row["text"] in page
        assert row["text"] in (tmp_path / "w" / row["page"]).read_text()
    metrics = told["metrics"]
    assert metrics["dense"]["accuracy"] - metrics["pruned"]["accuracy"] == pytest.approx(
        (told["lost"] - told["gained"]) / told["n"]
    )


def test_rankings_show_what_is_found_instead(madtp: Run, tmp_path: Path) -> None:
    model = saved("retrieval", tmp_path / "model", temperature=3.0)
    command = ("view", "--model", model, "--data", "scenes:3", "--limit", 7, "--worst", 1, "--out", tmp_path / "w")
    told = object_of(madtp(*command, "--k-test", 0, "--json"))
    (row,) = told["worst"]
    assert row["answer"]["dense"] == row["truth"] == row["image_id"] != row["answer"]["pruned"]
    page = (tmp_path / "w" / row["page"]).read_text()
    assert "dense ranks this first" in page and "pruned ranks this first" in page and "looking at the picture" in page


def test_nothing_lost_is_said(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    command = ("view", "--model", model, "--data", data, "--worst", 3, "--limit", 2, "--out", tmp_path / "w")
    told = object_of(madtp(*command, "--json"))
    assert (told["lost"], told["worst"]) == (0, [])  # a fresh model's answers are never right
    assert [file.name for file in (tmp_path / "w").iterdir()] == ["worst.html"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--text", "x"], "--image: is missing; name a picture, or --data and --worst 20"),
        (["--image", "P"], "--text: is missing; vqa needs a text"),
        (["--image", "P", "--text", " "], "--text: is missing; vqa needs a text"),
        (["--image", "P", "--image", "P", "--text", "x"], "--image: 2 images for one vqa example; give one"),
        (["--image", "none.png", "--text", "x"], "none.png: no such image"),
        (["--worst", "3"], "--data: is missing; --worst finds its examples there"),
        (["--worst", "3", "--data", "scenes", "--text", "x"], "--worst: goes without --image and --text"),
        (["--image", "P", "--text", "x", "--data", "scenes"], "--data: is of no use here"),
        (["--image", "P", "--text", "x", "--temperature", "0"], "--temperature: 0 is dense"),
        (["--image", "P", "--text", "x", "--temperature", "nan"], "--temperature: nan is dense"),
        (["--image", "P", "--text", "x", "--reduction", "1.5"], "--reduction: 1.5 is impossible"),
        (["--image", "P", "--text", "x", "--reduction", "0.99"], "--reduction: 0.99 is above the most"),
        (["--image", "P", "--text", "x", "--reduction", "0.5", "--temperature", "2"], "--reduction: goes without"),
        (["--image", "P", "--text", "x", "--task", "caption"], "is a model for vqa, not for caption"),
        (["--image", "P", "--text", "x", "--dense", "none"], "none"),
        (["--data", "scenes", "--worst", "2", "--split", "dev"], "split: unknown split 'dev'"),
        (["--data", "scenes", "--worst", "2", "--inference", "guess"], "--inference: unknown inference 'guess'"),
    ],
)
def test_wrong_input(options: list[str], line: str, madtp: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    given = [str(picture) if option == "P" else option for option in options]
    before = contents(tmp_path)
    assert line in madtp("view", "--model", model, *given, "--out", tmp_path / "out").wrong()
    assert contents(tmp_path) == before


def test_a_dense_model_shows_nothing(madtp: Run, picture: Path, tmp_path: Path) -> None:
    model = saved("vqa", tmp_path / "model")
    line = madtp("view", "--model", model, "--image", picture, "--text", "x", "--out", tmp_path / "out").wrong()
    assert line == f"{model}: is dense, so nothing is pruned; add --reduction 0.5, or name a pruned model"


def test_a_folder_that_holds_something_is_refused(madtp: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    command = ("view", "--model", model, "--image", picture, "--text", "x", "--out", tmp_path / "out")
    assert "holds another run" in madtp(*command).wrong()
    assert madtp(*command, "--overwrite").code == 0
    assert (tmp_path / "out" / "mine").read_text() == "x"
