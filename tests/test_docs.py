"""The pages of the tasks are true: their commands and Python run, in order, on generated data and models that small."""

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.core import TyperGroup

from madtp.cli import main
from madtp.data.scenes import load_scenes
from madtp.model import clip_sizes, sizes
from madtp.model.save import save_model
from small import NANO, NANO_CLIP, SEED, processor
from test_house import ROOT, shell_commands

PAGES = sorted((ROOT / "docs" / "tasks").glob("*.md"))
VERBS = {
    "train",
    "convert",
    "compress",
    "calibrate",
    "evaluate",
    "predict",
    "view",
    "flops",
}  # each page shows them all

# A page's command runs as it stands, on the sizes of `tiny_sizes`, with those of these options that its verb knows put
# behind it, where they win over the page's own.
SMALL = {"--epochs": 1, "--limit": 5, "--batch-size": 3, "--pairs": 1}
VIEW = ROOT / "docs" / "view.md"
# Beside towers this small the decoder of three beams is most of the work, and cannot be pruned.
OF_PAGE = {"captioning": {"--beams": 1}}
ROWS = 23  # pictures in a user's own folder
_BLOCK = re.compile(
    r"^(?:<!-- not run: needs (?P<needs>.+?) -->\n)?```(?P<language>bash|python)\n(?P<text>.*?)^```", re.M | re.S
)
_LINK = re.compile(r"\]\((?!\w+://)([^)#\s]+)")
_TABLE = re.compile(r"^  (\w+\.csv) +([a-z,]+)$", re.M)  # in a page's tree: a table and its columns


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    if not main.app.registered_commands:
        main._register()


@pytest.fixture
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in sizes.SIZES:  # deep enough to save half; CLIP's image tower may start from BLIP's
        monkeypatch.setitem(sizes.SIZES, name, replace(NANO, mlp=4, vision_layers=5))
    for name in clip_sizes.CLIP_SIZES:
        monkeypatch.setitem(clip_sizes.CLIP_SIZES, name, replace(NANO_CLIP, vision_layers=5))


def rows_of(task: str) -> Iterator[dict[str, Any]]:
    """What a user's table may hold: pictures (to be saved under that name) and texts by column."""
    for i, sample in enumerate(load_scenes(task, "train", seed=SEED, limit=ROWS)):
        for text in sample.texts[:2]:
            if task == "vqa":
                yield {"image": (f"{i}.png", sample.images[0]), "question": text.text, "answer": text.answers[0]}
            elif task == "reasoning":
                left, right = ((f"{i}-{side}.png", image) for side, image in zip("lr", sample.images, strict=True))
                yield {"left": left, "right": right, "statement": text.text, "label": str(text.label).lower()}
            else:
                yield {"image": (f"{i}.png", sample.images[0]), "caption": text}


def write_table(path: Path, columns: list[str], task: str) -> None:
    """A user's own folder in the form that a page shows."""
    (path.parent / "images").mkdir(parents=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for row in rows_of(task):
            for name, image in (value for value in row.values() if isinstance(value, tuple)):
                image.open().save(path.parent / "images" / name)
            table.writerow([value[0] if isinstance(value := row[column], tuple) else value for column in columns])


def furnish(folder: Path, page: str, task: str) -> None:
    """What a page takes for granted: pictures, the folder `mine` as it shows it, the model that comes with madtp."""
    for name, sample in zip(("picture", "left", "right"), load_scenes("vqa", "val", limit=3), strict=True):
        sample.image.open().save(folder / f"{name}.png")
    trees = _TABLE.findall(page)
    assert len(trees) < 2, "one tree a page"
    for name, columns in trees:
        write_table(folder / "mine" / name, columns.split(","), task)
    torch.manual_seed(1)
    words = processor()
    model = sizes.build_vqa(sizes.SIZES["tiny"], len(words.tokenizer))
    if not trees:  # of a page that does not train one, the model is pruned, as the real one is
        model.temperature = 8.0
    save_model(model, words, folder / "src" / "madtp" / "assets" / "demo-vqa")


@pytest.mark.parametrize("path", [*PAGES, VIEW], ids=lambda path: path.stem)
def test_a_page_works(
    path: Path, tmp_path: Path, tiny_sizes: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = path.read_text(encoding="utf-8")
    task = {"captioning": "caption", "view": "vqa"}.get(path.stem, path.stem)
    furnish(tmp_path, page, task)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java: the same scores on every machine, and no wait for METEOR
    command = typer.main.get_command(main.app)
    assert isinstance(command, TyperGroup)
    known, shown = command.commands, set()
    few = SMALL | OF_PAGE.get(path.stem, {})
    for block in _BLOCK.finditer(page):
        if block["language"] == "python":
            exec(compile(block["text"], str(path), "exec"), {})
            continue
        for program, verb, *arguments in shell_commands(block[0][block[0].index("```") :]):
            assert program == "madtp"
            shown.add(verb)
            if block["needs"]:
                known[verb].make_context(verb, arguments)  # its options are there, and those it must have are given
                continue
            options = {name for parameter in known[verb].params for name in parameter.opts}
            small = [str(word) for pair in few.items() if pair[0] in options for word in pair]
            code = main._run([verb, *arguments, *small])
            assert code == 0, f"madtp {verb} {' '.join(arguments)}: {capfd.readouterr().err}"
    assert shown >= (VERBS if path in PAGES else {"view"})


def test_there_is_a_page_for_every_task() -> None:
    assert [path.stem for path in PAGES] == ["captioning", "reasoning", "retrieval", "vqa"]


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name)
def test_links_lead_to_files(path: Path) -> None:
    gone = [link for link in _LINK.findall(path.read_text(encoding="utf-8")) if not (path.parent / link).exists()]
    assert not gone
