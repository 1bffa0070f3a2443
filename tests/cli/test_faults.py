"""Pictures that cannot be read, by every verb: stopped at, or skipped, counted, and named in errors.jsonl."""

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cli.conftest import Run
from madtp.files import locked
from madtp.model.save import save_model
from madtp.task.vqa import VqaTask
from small import nano, nano_task

SKIP = ("--on-error", "skip", "--max-skipped", 0.6)


@pytest.fixture
def dirty(data: Path, tmp_path: Path) -> Path:
    """In train 3 of 11 pictures are no use, in val and test one of 2 and 3."""
    folder = Path(shutil.copytree(data, tmp_path / "dirty"))
    images = folder / "train" / "images"
    (images / "1.png").write_bytes((images / "1.png").read_bytes()[:150])
    (images / "4.png").write_bytes(b"")
    Image.new("F", (7, 5)).save(images / "7.png", "TIFF")
    for split in ("val", "test"):
        (folder / split / "images" / "0.png").write_text("no picture")
    return folder


def told(out: Path) -> set[tuple[str, str]]:
    lines = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert all(line["error"] for line in lines)
    return {(line["split"], line["id"]) for line in lines}


TRAIN = {("train", "1"), ("train", "4"), ("train", "7"), ("val", "0")}


@pytest.mark.parametrize("verb", ["evaluate", "calibrate", "train", "compress", "compare", "view"])
def test_broken_pictures_are_skipped_if_asked(
    verb: str, madtp: Run, model: Path, dirty: Path, tmp_path: Path, tiny: None
) -> None:
    out = tmp_path / "out"
    quick = ("--epochs", 1, "--questions", 1, "--batch-size", 2, "--workers", 2)
    more: dict[str, tuple[Any, ...]] = {
        "evaluate": ("--model", model),
        "calibrate": ("--model", model, "--reduction", "0.45"),
        "train": ("--size", "tiny", *quick),
        "compress": ("--model", model, "--reduction", "0.4", *quick),
        "compare": ("--model", model, "--reduction", "0.4", "--methods", "tome", "--pairs", 1, *quick[:-2]),
        "view": ("--model", model, "--reduction", "0.4", "--worst", 3),
    }
    command = (verb, "--data", dirty, "--out", out, *more[verb], "--json")
    assert "image" in madtp(*command).wrong()
    shutil.rmtree(out, ignore_errors=True)
    assert "samples of" in madtp(*command, "--on-error", "skip", "--max-skipped", 0.1).wrong()
    shutil.rmtree(out, ignore_errors=True)
    ended = madtp(*command, *SKIP)
    assert ended.code == 0, ended.err
    test, val = {("test", "0")}, {("val", "0")}
    read = {"evaluate": test, "calibrate": val, "view": test | val, "compare": TRAIN | test}
    expected = read.get(verb, TRAIN)
    assert told(out) == expected
    result = json.loads(ended.out)
    assert sum(result["skipped"].values()) == len(expected)
    if verb != "calibrate":
        page = {"view": "worst.html"}.get(verb, "report.html")
        counts = ", ".join(f"{count} of {split}" for split, count in result["skipped"].items())
        assert f"eft out as faulty: {counts}" in (out / page).read_text()
    if verb == "compare":
        assert all(0 < row["n"] < result["n"] for row in result["rows"]), "its texts were not asked"
        assert json.loads(madtp(*command, *SKIP).out)["skipped"] == result["skipped"], (
            "and they are known when it goes on"
        )


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_picture_that_vanishes_meanwhile(
    policy: str, madtp: Run, data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = Path(shutil.copytree(data, tmp_path / "data")), tmp_path / "out"
    loss = VqaTask.loss

    def vanishing(self: VqaTask, *arguments: Any) -> Any:
        (folder / "val" / "images" / "1.png").unlink(missing_ok=True)
        return loss(self, *arguments)

    monkeypatch.setattr(VqaTask, "loss", vanishing)
    command = ("train", "--model", model, "--data", folder, "--out", out, "--epochs", 1, "--questions", 1, "--json")
    ended = madtp(*command, "--on-error", policy, "--max-skipped", 0.5)
    if policy == "stop":
        assert "val/images/1.png: no such image" in ended.wrong()
        return
    assert ended.code == 0, ended
    assert json.loads(ended.out)["skipped"] == {"val": 1} and told(out) == {("val", "1")}


STRANGE = ("🙂 🙃?", "מה זה?", "ما هذا؟", "word " * 10_000, "a\tb\n c", "e\u0301", "\u202e?ti si")


@pytest.mark.parametrize("kind", ["vqa", "clip"])
def test_strange_texts_are_asked_like_any(kind: str, madtp: Run, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "table"
    shutil.copytree(data / "test" / "images", folder)
    save_model(nano(kind, temperature=3.0), nano_task(kind).processor, tmp_path / "model")
    rows = [{"image": "0.png", "question": text, "answer": "red", "caption": text} for text in STRANGE]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ended = madtp("evaluate", "--model", tmp_path / "model", "--data", folder, "--json")
    assert ended.code == 0, ended
    result = json.loads(ended.out)
    assert result["n"] == len(STRANGE) if kind == "vqa" else result["n"] > 0
    assert all(map(math.isfinite, [*result["metrics"].values(), result["gflops"]["mean"]]))


def test_sigterm_ends_with_a_checkpoint_and_0(
    madtp: Run, data: Path, tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls, loss = tmp_path / "out", [0], VqaTask.loss

    def terminated(self: VqaTask, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            signal.raise_signal(signal.SIGTERM)
        return loss(self, *arguments)

    monkeypatch.setattr(VqaTask, "loss", terminated)
    command = (
        "train",
        "--size",
        "tiny",
        "--data",
        data,
        "--out",
        out,
        "--epochs",
        1,
        "--questions",
        1,
        "--batch-size",
        3,
    )
    ended = madtp(*command)
    assert (ended.code, ended.out) == (0, "")
    assert "madtp: stopped by SIGTERM: the checkpoint of step 2 is written; go on with --resume" in ended.err
    with locked(out):
        assert f"{out}: another run writes there (process " in madtp(*command, "--resume").wrong()
        assert "another run writes there" in madtp(*command, "--overwrite").wrong()
    assert madtp(*command, "--resume").code == 0
    assert not (out / ".lock").exists()


def test_killed_before_its_first_checkpoint_a_run_begins_anew(
    madtp: Run, data: Path, tmp_path: Path, tiny: None, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    command = ("train", "--size", "tiny", "--data", data, "--out", out, "--epochs", 1, "--questions", 1, "--limit", 3)
    out.mkdir()
    (out / "run.json").write_text("{}")
    (out / "log.jsonl").write_text('{"step": 1}\n')
    ended = madtp(*command, "--resume")
    assert ended.code == 0 and "begins anew" in caplog.text
    assert '{"step": 1}' not in (out / "log.jsonl").read_text().splitlines()
