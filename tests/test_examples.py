"""The examples run as they stand, on small models and generated data."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import madtp
from madtp.model import sizes
from pipelines.stock import folder, pictures
from small import NANO
from test_house import ROOT


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """`example("name", "argument", ...)`: what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sizes.SIZES, "tiny", NANO)

    def run(name: str, *arguments: Any) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capfd.readouterr()
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        return capfd.readouterr().out

    return run


def blocks(page: str) -> list[str]:
    """The outputs that a page shows."""
    return re.findall(r"^```text\n(.*?)^```$", page, re.M | re.S)


def shown(name: str) -> list[str]:
    """Lines that docs/examples.md shows as a program's output."""
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    (section,) = [part for part in page.split("\n## ") if f"examples/{name}.py" in part]
    return [line for block in blocks(section) for line in block.splitlines()]


def shape(lines: list[str]) -> list[str]:
    """What stays the same on another machine, model and folder: words and signs; each kind of line once."""
    found = []
    for line in lines:
        plain = re.sub(r"\d+(\.\d+)?(e-\d+)?", "#", re.sub(r"\S*/", "", line))
        plain = " ".join(re.sub("[─│┌┐└┘┬┴]+", " ", plain).split())
        found += [plain] if plain and plain not in found else []
    return found


def test_the_reader_of_shapes() -> None:
    lines = ["│ a  │ 12.5% of 3e-05 │", "┌───┐", "0.1  7.png", "0.2  5.png", "left out: /x/y.png: no"]
    assert shape(lines) == ["a #% of #", "# #.png", "left out: y.png: no"]


def test_every_example_is_run_and_shown() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == {"compare_methods", "prune_blip", "search_photos", "train_on_csv"}
    assert all(shown(name) for name in names)
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/examples.md", "README.md"))
    section = readme.partition("\n## Examples\n")[2].partition("\n## ")[0]
    assert all(f"examples/{name}.py" in section for name in names)
    told = {line for block in blocks(page) for line in block.splitlines()}
    assert len(blocks(section)) == len(names), "README shows what each prints"
    assert {line for block in blocks(section) for line in block.splitlines()} <= told, "one run, told alike"


def test_prune_blip(example: Any, tmp_path: Path) -> None:
    said = example("prune_blip", folder("vqa", tmp_path, temperature=None), "scenes", tmp_path / "pruned")
    assert shape(said.splitlines()) == shape(shown("prune_blip"))
    pruned = madtp.load(tmp_path / "pruned")
    assert pruned.pruning.reduction == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("kind", ["clip", "retrieval"])
def test_search_photos(kind: str, example: Any, tmp_path: Path) -> None:
    model, photos = folder(kind, tmp_path), tmp_path / "photos"
    (photos / "trip").mkdir(parents=True)
    for number in range(5):
        pictures()[number].save(photos / "trip" / f"{number}.png")
    (photos / "broken.png").write_bytes(b"no picture")
    said = example("search_photos", "index", "--model", model, "--photos", photos)
    assert "5 photos, 5 of them new" in said and "left out" in said and "broken.png" in said
    assert shape(said.splitlines()) == shape(shown("search_photos"))[:2]
    (photos / "broken.png").unlink()
    (photos / "trip" / "4.png").unlink()
    pictures()[5].save(photos / "5.png")
    assert "5 photos, 1 of them new" in example("search_photos", "index", "--model", model, "--photos", photos)
    said = example("search_photos", "query", "a red circle", "--count", 3, "--page", "found.html")
    assert shape(said.splitlines()) == shape(shown("search_photos"))[2:]
    stored = np.load("photos.npz")
    pipe = madtp.pipeline("retrieval", model)
    cosines = stored["features"] @ pipe.embed(texts="a red circle")[0].numpy()
    best = [Path(str(stored["names"][i])).name for i in np.argsort(-cosines)[:3]]
    assert [line.split()[1] for line in said.splitlines()[:3]] == best
    page = Path("found.html").read_text()
    assert all(name in page for name in best) and page.count("data:image") == 3


def test_train_on_csv(example: Any) -> None:
    said = example("train_on_csv").splitlines()
    assert shape(said[-len(shown("train_on_csv")) :]) == shape(shown("train_on_csv"))
    assert madtp.load("runs/examples/half").pruning.reduction is not None


def test_compare_methods(example: Any, tmp_path: Path) -> None:
    lines = example("compare_methods", folder("vqa", tmp_path), "scenes").splitlines()
    assert shape(lines) == shape(shown("compare_methods"))
    assert " 0.0%" in lines[1] and "100.0%" in lines[1]
