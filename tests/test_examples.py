"""The examples run as they stand, on small models and generated data."""

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


def test_every_example_is_run_and_shown() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == {"compare_methods", "prune_blip", "search_photos", "train_on_csv"}
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert all(f"examples/{name}.py" in page for name in names)


def test_prune_blip(example: Any, tmp_path: Path) -> None:
    said = example("prune_blip", folder("vqa", tmp_path, temperature=None), "scenes", tmp_path / "pruned")
    assert "| dense |" in said and "0.5" in said
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
    (photos / "broken.png").unlink()
    (photos / "trip" / "4.png").unlink()
    pictures()[5].save(photos / "5.png")
    assert "5 photos, 1 of them new" in example("search_photos", "index", "--model", model, "--photos", photos)
    said = example("search_photos", "query", "a red circle", "--count", 3, "--page", "found.html")
    stored = np.load("photos.npz")
    pipe = madtp.pipeline("retrieval", model)
    cosines = stored["features"] @ pipe.embed(texts="a red circle")[0].numpy()
    best = [Path(str(stored["names"][i])).name for i in np.argsort(-cosines)[:3]]
    assert [line.split()[1] for line in said.splitlines()[:3]] == best
    page = Path("found.html").read_text()
    assert all(name in page for name in best) and page.count("data:image") == 3


def test_train_on_csv(example: Any) -> None:
    assert "reduction" in example("train_on_csv")
    assert madtp.load("runs/examples/half").pruning.reduction is not None


def test_compare_methods(example: Any, tmp_path: Path) -> None:
    lines = example("compare_methods", folder("vqa", tmp_path), "scenes").splitlines()
    assert [line.split()[0] for line in lines] == ["method", "dense", "madtp", "class_attention", "tome", "random"]
    assert " 0.0%" in lines[1] and "100.0%" in lines[1]
