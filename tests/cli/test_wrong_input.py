"""Whatever is wrong with the user's input: exit code 2, one line that names what and where, nothing written."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.conftest import Run
from madtp.cli import common
from small import contents


@pytest.fixture
def broken_data(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "broken"))


@pytest.fixture
def broken_model(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "broken-model"))


def edit_questions(folder: Path, place: int, value: Any, split: str = "test") -> None:
    """Change one field of question 2 of a split."""
    file = folder / split / "questions.json"
    questions = json.loads(file.read_text())
    questions[2][place] = value
    file.write_text(json.dumps(questions))
    (folder / split / "scenes.json").unlink()


def test_missing_data_folder(madtp: Run, model: Path, tmp_path: Path) -> None:
    line = madtp("evaluate", "--model", model, "--data", tmp_path / "none").wrong()
    assert line == f"{tmp_path / 'none'}: no such folder or file; give a data folder or 'scenes'"


def test_missing_questions(madtp: Run, model: Path, broken_data: Path) -> None:
    (broken_data / "test" / "questions.json").unlink()
    line = madtp("evaluate", "--model", model, "--data", broken_data).wrong()
    assert line.startswith(f"{broken_data / 'test' / 'questions.json'}: no such file;")


def test_missing_split(madtp: Run, model: Path, broken_data: Path) -> None:
    shutil.rmtree(broken_data / "test")
    assert f"{broken_data}: no folder 'test'" in madtp("evaluate", "--model", model, "--data", broken_data).wrong()


def test_a_question_about_no_image(madtp: Run, model: Path, broken_data: Path) -> None:
    edit_questions(broken_data, 2, 71)
    line = madtp("evaluate", "--model", model, "--data", broken_data).wrong()
    assert line.startswith(f"{broken_data / 'test' / 'images'}: images that are missing: 1: 71;")


def test_an_answer_that_is_not_in_the_list(madtp: Run, model: Path, broken_data: Path) -> None:
    edit_questions(broken_data, 1, "mauve")
    line = madtp("evaluate", "--model", model, "--data", broken_data).wrong()
    assert "questions.json: answers that answers.txt lacks: 1: 'mauve' (question 2)" in line


@pytest.mark.parametrize("verb", ["evaluate", "calibrate", "train"])
def test_an_image_cut_short(verb: str, madtp: Run, model: Path, broken_data: Path, tmp_path: Path, tiny: None) -> None:
    """Found only when it is its turn; the loader hands it on from wherever it was read."""
    split = {"evaluate": "test", "calibrate": "val", "train": "train"}[verb]
    file = broken_data / split / "images" / "1.png"
    file.write_bytes(file.read_bytes()[:150])
    out = tmp_path / "out"
    more = {
        "evaluate": ("--model", model, "--out", out),
        "calibrate": ("--model", model, "--out", out, "--reduction", "0.45"),
        "train": ("--size", "tiny", "--epochs", 1, "--out", out),
    }
    line = madtp(verb, "--data", broken_data, *more[verb]).wrong()
    assert line.startswith(f"{file}: is a broken or cut short image") and line.endswith("; replace the file")
    written = set(contents(out)) if out.exists() else set()
    assert written <= {"run.json"}, "no report, no model"


@pytest.mark.parametrize(
    ("reduction", "said"),
    [
        ("0", "--reduction: 0 is impossible; use a number above 0 and below 1"),
        ("1", "--reduction: 1 is impossible"),
        ("1.5", "--reduction: 1.5 is impossible"),
        ("-1", "--reduction: -1 is impossible"),
        ("nan", "--reduction: nan is impossible"),
        ("abc", "number"),
    ],
)
@pytest.mark.parametrize("verb", ["calibrate", "compress"])
def test_impossible_reductions(
    verb: str, reduction: str, said: str, madtp: Run, model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = madtp(verb, "--model", model, "--data", data, "--out", out, "--reduction", reduction).wrong()
    assert said in line and "--reduction" in line
    assert not out.exists()


def test_several_reductions_must_end_with_one_to_meet(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    for several in ("0.5,0", "0,1", "0.5,,0.8", "0.5;0.8"):
        arguments = ("--model", model, "--data", data, "--out", tmp_path / "out", "--reduction", several)
        assert madtp("compress", *arguments).wrong().startswith("--reduction: ")
    assert not (tmp_path / "out").exists()


def test_a_reduction_out_of_reach_says_what_can_be_had(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--model", model, "--data", data, "--out", out, "--reduction")
    line = madtp("calibrate", *arguments, "0.97").wrong()
    assert line.startswith("--reduction: 0.97 is above the most this model reaches, 0.")
    floor = float(line.rpartition("ask for at most ")[2])
    assert not out.exists() or not contents(out)
    ended = madtp("calibrate", *arguments, floor, "--json")
    assert ended.code == 0 and json.loads(ended.out)["reduction"] == pytest.approx(floor, abs=0.01)


def test_compression_out_of_reach_says_so_too(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    arguments = ("--model", model, "--data", data, "--out", tmp_path / "out", "--reduction", "0.97")
    line = madtp("compress", *arguments, "--epochs", 1, "--limit", 2, "--questions", 1).wrong()
    assert "--reduction: 0.97 is impossible: two tokens" in line and "ask for less than 0." in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_model(madtp: Run, data: Path, tmp_path: Path) -> None:
    assert madtp("flops", "--model", tmp_path).wrong().startswith(f"{tmp_path}: no config.json in this folder")
    missing = tmp_path / "none"
    assert madtp("evaluate", "--model", missing, "--data", data).wrong().startswith(f"{missing}: no such folder")


def test_weights_cut_in_half(madtp: Run, broken_model: Path, data: Path) -> None:
    file = broken_model / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    line = madtp("evaluate", "--model", broken_model, "--data", data).wrong()
    assert line.startswith(f"{file}: cut short or not a safetensors file")


def test_a_model_without_its_processor(madtp: Run, broken_model: Path, data: Path) -> None:
    for file in broken_model.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    line = madtp("evaluate", "--model", broken_model, "--data", data).wrong()
    assert line.startswith(f"{broken_model}: no processor beside the model")


class Code:
    """What a checkpoint must not hold."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)

    path: Path


def test_a_checkpoint_that_holds_code_is_not_run(madtp: Run, tmp_path: Path) -> None:
    code = Code()
    code.path = tmp_path / "was-run"
    torch.save({"model": {"a": code}}, tmp_path / "evil.pth")
    line = madtp("convert", tmp_path / "evil.pth", tmp_path / "out").wrong()
    assert line.startswith(
        f"{tmp_path / 'evil.pth'}: holds more than tensors and numbers, and loading it could run code"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.pth"]


def test_a_checkpoint_that_is_none(madtp: Run, tmp_path: Path) -> None:
    assert "no such file" in madtp("convert", tmp_path / "none.pth", tmp_path / "out").wrong()
    (tmp_path / "text.pth").write_text("weights")
    assert (
        "text.pth: cut short or not a checkpoint" in madtp("convert", tmp_path / "text.pth", tmp_path / "out").wrong()
    )
    torch.save({"model": {"a": torch.zeros(2)}}, tmp_path / "other.pth")
    assert madtp("convert", tmp_path / "other.pth", tmp_path / "out").wrong().startswith(str(tmp_path / "other.pth"))
    assert not (tmp_path / "out").exists()


def test_a_conversion_that_cannot_be(madtp: Run, model: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "some.pth"
    torch.save({"model": {"visual.proj": torch.zeros(2)}}, file)
    assert madtp("convert", file, out, "--task", "vqa").wrong() == (
        f"{file}: is a checkpoint for retrieval, not for vqa; name its own --task or another checkpoint"
    )
    assert "--task: unknown task 'vqaa'; use one of" in madtp("convert", file, out, "--task", "vqaa").wrong()
    assert madtp("convert", file, out, "--to", "onnx").wrong() == "--to: unknown form 'onnx'; use madtp or hf-dense"
    assert f"{model}: is a folder" in madtp("convert", model, out).wrong()
    assert f"{file}: is a file, not a model folder" in madtp("convert", file, out, "--to", "hf-dense").wrong()
    assert f"{model}: is a model for vqa, not for caption" in (
        madtp("convert", model, out, "--to", "hf-dense", "--task", "caption").wrong()
    )
    line = madtp("convert", model, out, "--to", "hf-dense", "--heads", 2, "--tokenizer", "words").wrong()
    assert line == "--heads, --tokenizer: is nothing for --to hf-dense; leave it out"
    assert not out.exists()


@pytest.mark.parametrize("verb", ["demo", "train", "compress", "calibrate", "evaluate", "convert"])
def test_a_folder_that_holds_another_run_is_left_alone(
    verb: str, madtp: Run, model: Path, data: Path, tmp_path: Path, tiny: None
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("report.json", "checkpoint.pt", "log.jsonl", "run.json"):
        (out / name).write_text("another's")
    before = contents(out)
    torch.save({"model": {"a": torch.zeros(2)}}, tmp_path / "some.pth")
    common = ("--data", data, "--out", out)
    more = {
        "demo": ("--out", out),
        "train": (*common, "--size", "tiny"),
        "compress": (*common, "--model", model, "--reduction", "0.5"),
        "calibrate": (*common, "--model", model, "--reduction", "0.5"),
        "evaluate": (*common, "--model", model),
        "convert": (tmp_path / "some.pth", out),
    }
    line = madtp(verb, *more[verb]).wrong()
    assert line.startswith(f"{out}: ") and "--overwrite" in line
    assert contents(out) == before


def test_a_wrong_option_does_not_cost_the_old_run(madtp: Run, data: Path, tmp_path: Path, tiny: None) -> None:
    """--overwrite and a mistake elsewhere on the line: what was there is there still."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint.pt").write_text("days of work")
    before = contents(out)
    line = madtp("train", "--size", "tiny", "--data", data, "--out", out, "--overwrite", "--device", "gpu").wrong()
    assert line == "--device: unknown device 'gpu'; use auto, cpu or cuda"
    assert contents(out) == before


def test_out_that_is_a_file(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    line = madtp("evaluate", "--model", model, "--data", data, "--out", tmp_path / "file").wrong()
    assert line.startswith(f"{tmp_path / 'file'}: is a file, not a folder")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("verb", ["train", "calibrate", "evaluate"])
def test_a_full_disk(verb: str, madtp: Run, model: Path, data: Path, tmp_path: Path, tiny: None) -> None:
    """Nothing that is read back later is left in half: neither a model nor a checkpoint nor a report."""
    out = tmp_path / "out"
    more = {
        "train": (
            "--size",
            "tiny",
            "--epochs",
            1,
            "--save-every",
            1,
            "--questions",
            1,
            "--limit",
            3,
            "--batch-size",
            2,
        ),
        "calibrate": ("--model", model, "--reduction", "0.45"),
        "evaluate": ("--model", model),
    }
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        ended = madtp(verb, "--data", data, "--out", out, *more[verb])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    line = ended.wrong()
    assert line.startswith(str(out)) and "cannot write" in line
    assert set(contents(out)) <= {"run.json", "log.jsonl", "report.json"}
    for name, content in contents(out).items():
        assert name == "log.jsonl" or json.loads(content), "what is there is whole"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "--colour", "red"), "No such option: --colour"),
        (("paint",), "No such command 'paint'"),
        (("evaluate",), "Missing option '--model'"),
        (("train", "--out", "OUT", "--data", "scenes"), "train: give one of --size and --model"),
        (
            ("train", "--out", "OUT", "--data", "scenes", "--size", "huge"),
            "--size: unknown size 'huge' for vqa; one of tiny",
        ),
        (("compress", "--method", "magic", "--reduction", "0.5", "--out", "OUT"), "method 'magic'"),
        (("calibrate", "--method", "magic", "--reduction", "0.5", "--out", "OUT"), "method 'magic'"),
        (("evaluate", "--device", "tpu"), "--device: unknown device 'tpu'; use auto, cpu or cuda"),
        (("evaluate", "--dtype", "int4"), "--dtype: unknown type 'int4'; use float32, bfloat16, int8"),
        (("evaluate", "--inference", "guess"), "--inference: unknown inference 'guess'; use generate or rank"),
        (("evaluate", "--split", "dev"), "split: unknown split 'dev'; use one of train, val, test"),
        (("evaluate", "--task", "dance"), "--task: unknown task 'dance'; use one of vqa, reasoning"),
        (("evaluate", "--limit", "0"), "--limit"),
        (("evaluate", "--batch-size", "0"), "--batch-size"),
        (("evaluate", "--temperature", "-1"), "--temperature: -1 is not above 0 and finite; use 0 for dense"),
        (("evaluate", "--temperature", "nan"), "--temperature: nan is not above 0"),
        (
            ("calibrate", "--split", "test", "--reduction", "0.5", "--out", "OUT"),
            "--split: is 'test'; use train or val",
        ),
        (
            ("compress", "--method", "tome", "--straight-through", "1", "--reduction", "0.5", "--out", "OUT"),
            "--straight-through: is nothing for tome",
        ),
        (("evaluate", "--reduction", "nan"), "reduction: nan is impossible"),
        (("evaluate", "--reduction", "0.5"), "reduction: no curve is stored with this model"),
        (("evaluate", "--reduction", "0.5", "--temperature", "1"), "--reduction: goes without --temperature"),
        (("evaluate", "--data", "scenes:x"), "scenes:x: is not a scenes source"),
        (("predict", "--image", "none.png", "--text", "how many?"), "none.png: no such image"),
        (("predict", "--image", "https://a.org/b.png", "--text", "c"), "b.png: no such image; download it first"),
        (("predict", "--image", "a.png", "--text", "b", "--out", "OUT"), "--out: goes with --data; leave it out"),
        (("predict", "--image", "a.png", "--text", "b", "--choices", "c"), "--choices: goes with --data"),
        (("predict", "--image", "a.png", "--text", "b", "--engine", "ray"), "--engine: goes with --data"),
        (("flops", "--text-tokens", "1"), "--text-tokens"),
        (("train", "--size", "tiny", "--out", "OUT", "--lr", "0"), "--lr: 0 is not above 0"),
        (("train", "--size", "tiny", "--out", "OUT", "--precision", "fp8"), "--precision: unknown precision 'fp8'"),
        (("train", "--size", "tiny", "--out", "OUT", "--epochs", "2", "--tag-epochs", "2"), "--tag-epochs: 2 of 2"),
        (("train", "--size", "tiny", "--out", "OUT", "--resume"), "checkpoint.pt: nothing to resume"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_words_on_the_line(
    arguments: tuple[str, ...], said: str, madtp: Run, model: Path, data: Path, tmp_path: Path, tiny: None
) -> None:
    line = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    verb = line[0]
    if len(line) > 1 and line[1] != "--colour":
        if verb in ("evaluate", "compress", "calibrate", "predict", "flops"):
            line += ["--model", str(model)]
        if verb in ("evaluate", "compress", "calibrate", "train") and "--data" not in line:
            line += ["--data", str(data)]
    assert said in madtp(*line).wrong()
    assert not (tmp_path / "out").exists() or not contents(tmp_path / "out")


def test_an_interrupt_is_neither_fault(madtp: Run, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(common, "load_model", interrupted)
    ended = madtp("evaluate", "--model", model, "--data", data)
    assert (ended.code, ended.out) == (130, "")
    assert "interrupted" in ended.err and "Traceback" not in ended.err


def test_our_own_faults_are_not_hidden(madtp: Run, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep their traceback; Python then ends with exit code 1."""

    def fault(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(common, "load_model", fault)
    with pytest.raises(ZeroDivisionError):
        madtp("evaluate", "--model", model, "--data", data)


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m madtp ARGUMENTS`."""
    path = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, "-m", "madtp", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)


def test_as_a_process() -> None:
    ended = process("paint")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("madtp: No such command 'paint'.")


@pytest.mark.slow
def test_as_a_process_with_the_libraries_and_what_they_print(model: Path, data: Path, tmp_path: Path) -> None:
    ended = process("evaluate", "--model", str(tmp_path), "--data", str(data))
    line = f"madtp: {tmp_path}: no config.json in this folder; name a model folder (see `madtp convert`)\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line)
    out = str(tmp_path / "out")
    ended = process(
        "calibrate", "--model", str(model), "--data", str(data), "--reduction", "0.45", "--out", out, "--json"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("\n") == 1 and json.loads(ended.stdout)["out"] == out


def test_smaller_pictures_have_no_dense_teacher(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    command = ("compress", "--model", model, "--data", data, "--reduction", 0.5, "--out", tmp_path / "out")
    assert "--distill" in madtp(*command, "--method", "downsample", "--distill", 1).wrong()
