"""What the pages say is true: their commands and Python run, page by page, on generated data and models that small.

Every block marked bash or python runs, in order, in an empty folder. The exceptions say why in the line above them, in
one of the words of `NEEDS`, or name the test that runs them; of their commands the options are checked.
"""

import csv
import os
import re
import subprocess
import sys
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
from small import NANO, NANO_CLIP, SEED, data_folder, processor
from test_house import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OF_TASKS = [path for path in PAGES if path.parent.name == "tasks"]
VERBS = {"train", "convert", "compress", "calibrate", "evaluate", "predict", "view", "flops"}  # a task's page shows all

# Why a block does not run here; there are no other reasons.
NEEDS = {
    "the network",
    "the network and checkpoints",
    "the data set and a model for it",  # the readers' own tests are in tests/data
    "a GPU",
    "hours",  # benchmarks, from which the figures come
    "the .venv of a checkout",
    "several machines",
    "a running server",
    "minutes of a machine that is left alone",
    "the rights to publish",
}

# A page's command runs as it stands, on the sizes of `tiny_sizes`, with those of these options that its verb knows put
# behind it, where they win over the page's own.
SMALL = {"--epochs": 1, "--tag-epochs": 0, "--limit": 5, "--batch-size": 3, "--pairs": 1, "--seeds": 1, "--tune": 5}
# Beside towers this small the decoder of three beams is most of the work, and cannot be pruned.
OF_PAGE = {"captioning": {"--beams": 1}}
OF_VERB = {"compare": {"--epochs": 0}}  # its trained rows are in tests/cli/test_compare.py
TASK_OF_PAGE = {"captioning": "caption", "data": "caption", "reasoning": "reasoning", "retrieval": "retrieval"}
ROWS = 23  # pictures in a user's own folder
_BLOCK = re.compile(
    r"^(?:<!-- (?:not run: needs (?P<needs>.+?)|run by (?P<test>\S+)) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
_MARK = re.compile(r"^<!-- (?:not run|run by)\b.*$", re.M)
_COMMAND = re.compile(r"^(?:\$ )?(?:madtp|make|pip|python\d?|git|curl|docker|torchrun) (?! )", re.M)
_LINK = re.compile(r"\]\((?!\w+://)([^)#\s]+)")
_TABLE = re.compile(r"^  (\w+\.csv) +([a-z,]+)$", re.M)  # in a page's tree: a table and its columns


def whole(path: Path) -> str:
    """A page's name for pytest; "gpu" alone would look like the mark."""
    return str(path.relative_to(ROOT))


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
    """What a page takes for granted: pictures, the folders of data that it shows, the model that comes with madtp."""
    for name, sample in zip(("picture", "left", "right"), load_scenes("vqa", "val", limit=3), strict=True):
        sample.image.open().save(folder / f"{name}.png")
    if "easy-VQA/easy_vqa/data" in page:
        data_folder(folder / "easy-VQA" / "easy_vqa" / "data")
    trees = _TABLE.findall(page)
    assert len(trees) < 2, "one tree a page"
    for name, columns in trees:
        write_table(folder / "mine" / name, columns.split(","), task)
    torch.manual_seed(1)
    words = processor()
    model = sizes.build_vqa(replace(NANO, mlp=4, vision_layers=5), len(words.tokenizer))
    if not trees:  # of a page that does not train one, the model is pruned, as the real one is
        model.temperature = 8.0
    save_model(model, words, folder / "src" / "madtp" / "assets" / "demo-vqa")


def commands(block: str, before: str, folder: Path, *, real: bool = True) -> list[list[str]]:
    """The commands of a bash block as bash itself takes them apart, in order, none of them run.

    Args:
        block: the text between the fences.
        before: assignments of earlier blocks.
        folder: the current one.
        real: `python` inside `$(...)` runs; else it is a command like the others.
    """
    stubs = folder / ".stubs"
    stubs.mkdir(exist_ok=True)
    if real:
        (stubs / "python").write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
        (stubs / "python").chmod(0o755)
    said = folder / ".said"
    paths = set(re.findall(r"^(?:\./)?[\w.-]+/[\w./-]+", block, re.M))  # bash looks for these itself
    named = "\n".join(f'function {path} {{ command_not_found_handle {path} "$@"; }}' for path in paths)
    script = f"""
        set -euo pipefail
        exec 3>'{said}'
        PATH='{stubs if real else stubs / "none"}'
        command_not_found_handle() {{ printf '%s\\0' "$@" $'\\036' >&3; }}  # one write: sides of a pipe run at once
        source() {{ command_not_found_handle source "$@"; }}
        cd() {{ command_not_found_handle cd "$@"; }}
        {named}
        {before}
    """
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        ["/bin/bash", "-c", "\n".join(line.strip() for line in script.splitlines()) + "\n" + block],
        cwd=folder,
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}: {done.stderr}"
    words = said.read_text(encoding="utf-8").split("\0")
    said.unlink()
    found: list[list[str]] = [[]]
    for word in words[:-1]:
        if word == "\036":  # not a line's end: bash writes out at each
            found.append([])
        else:
            found[-1].append(word)
    return found[:-1]


def test_the_reader_of_commands(tmp_path: Path) -> None:
    block = (
        'X=$(python -c "print(1 + 1)")/a  # why\nmadtp view "$X" \\\n  --text \'a b\' && ls "" | wc --$Y\nsource x/y\n'
    )
    first, *pipe, last = commands(block, "Y=z", tmp_path)
    assert first == ["madtp", "view", "2/a", "--text", "a b"]
    assert sorted(pipe) == [["ls", ""], ["wc", "--z"]]  # either side may be first
    assert last == ["source", "x/y"]
    assert commands("python b.py\na/b.sh c\n", "", tmp_path, real=False) == [["python", "b.py"], ["a/b.sh", "c"]]
    with pytest.raises(AssertionError, match="unbound"):
        commands("madtp $NOT_SET\n", "", tmp_path)


def check_target(words: list[str]) -> None:
    """A target of the Makefile exists; what it runs is run by whoever runs the tests."""
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"make {' '.join(words)}: {done.stderr}"


@pytest.mark.parametrize("path", PAGES, ids=whole)
def test_blocks_say_what_they_are(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"^[ \t]+```", page, re.M), "an indented block is not run: put it at the margin"
    blocks = list(_BLOCK.finditer(page))
    assert 2 * len(blocks) == len(re.findall(r"^```", page, re.M)), "a fence that is not closed, or says too much"
    marked = [block for block in blocks if block["needs"] or block["test"]]
    if path.name != "CONTRIBUTING.md":  # which shows what the marks look like
        assert len(marked) == len(_MARK.findall(page)), "a mark stands right above its block"
    for block in blocks:
        assert block["language"] in {"", "text", "json", "csv", "bash", "python"}
        if block["language"] not in {"bash", "python"}:
            assert not _COMMAND.search(block["text"]), f"commands belong into a block marked bash: {block['text']}"
        assert not block["needs"] or block["needs"] in NEEDS
        if block["test"]:
            assert path.stem in (ROOT / block["test"]).read_text(encoding="utf-8"), "that test does not name this page"


@pytest.mark.parametrize("path", [path for path in PAGES if "```" in path.read_text()], ids=whole)
def test_a_page_works(
    path: Path, tmp_path: Path, tiny_sizes: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = path.read_text(encoding="utf-8")
    furnish(tmp_path, page, TASK_OF_PAGE.get(path.stem, "vqa"))
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "docs" / "images" / "scene.png").write_bytes((ROOT / "docs" / "images" / "scene.png").read_bytes())
    command = typer.main.get_command(main.app)
    assert isinstance(command, TyperGroup)
    known, shown, names, before = command.commands, set(), {}, ""
    monkeypatch.chdir(tmp_path)
    for block in _BLOCK.finditer(page):
        text, apart = block["text"], bool(block["needs"] or block["test"])
        if block["language"] == "python":
            code = compile(text, str(path), "exec")
            if not apart:
                exec(code, names)
            continue
        if block["language"] != "bash":
            continue
        for program, *arguments in commands(text, before, tmp_path, real=not apart):
            for word in [program, *arguments]:
                assert not word.startswith("benchmarks/") or (ROOT / word).is_file(), f"there is no {word}"
            if program == "make":
                check_target(arguments)
            if program != "madtp" or not arguments or arguments[0].startswith("-"):
                assert program in {"make", "madtp"} or apart, f"{program} cannot be run here: say so above the block"
                continue
            verb, *arguments = arguments
            shown.add(verb)
            if apart or verb == "demo":  # test_wheel.py runs the demo
                known[verb].make_context(verb, arguments)  # its options are there, and those it must have are given
                continue
            options = {name for parameter in known[verb].params for name in parameter.opts}
            few = SMALL | OF_PAGE.get(path.stem, {}) | OF_VERB.get(verb, {})
            small = [str(word) for pair in few.items() if pair[0] in options for word in pair]
            with monkeypatch.context() as patch:
                patch.setenv("PATH", str(tmp_path))  # no Java: the same scores on every machine, no wait for METEOR
                code = main._run([verb, *arguments, *small])
            assert code == 0, f"madtp {verb} {' '.join(arguments)}: {capfd.readouterr().err}"
        before += "\n".join(re.findall(r"^\w+=.*$", text, re.M)) + "\n"
    assert shown >= (VERBS if path in OF_TASKS else set())


def test_there_is_a_page_for_every_task() -> None:
    assert [path.stem for path in OF_TASKS] == ["captioning", "reasoning", "retrieval", "vqa"]


@pytest.mark.parametrize("path", PAGES, ids=whole)
def test_links_lead_to_files(path: Path) -> None:
    gone = [link for link in _LINK.findall(path.read_text(encoding="utf-8")) if not (path.parent / link).exists()]
    assert not gone
