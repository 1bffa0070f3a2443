"""Every verb does its work, and `--json` prints one object with the documented keys and nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertTokenizer

from cli.conftest import Run
from madtp.cost.shape import dense_trace
from madtp.data.load import load_data
from madtp.evaluate import evaluate
from madtp.model.load import load
from madtp.model.save import save_model
from madtp.model.shape import shape_of
from madtp.model.sizes import build_vqa
from madtp.task.base import cost
from madtp.task.vqa import VqaTask
from model.public import original, pretrained
from small import NANO, contents, model_folder, processor

VERBS = ["demo", "train", "compress", "calibrate", "evaluate", "predict", "flops", "convert"]
EVALUATION = {"task", "split", "n", "metrics", "scoring", "gflops", "tokens", "seconds"}
RUN = {"out", "temperature", "best_epoch", "bad_steps", "skipped"}
QUICK = ("--epochs", 1, "--batch-size", 4, "--questions", 1, "--limit", 6)


def object_of(ended: Any) -> dict[str, Any]:
    """The one JSON object on stdout."""
    assert ended.code == 0, ended
    assert ended.out.count("\n") == 1 and ended.out.endswith("\n")
    result = json.loads(ended.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(result, dict)
    return result


def check_evaluation(result: dict[str, Any]) -> None:
    assert result.keys() >= EVALUATION
    assert set(result["metrics"]) == {"accuracy"} and 0 <= result["metrics"]["accuracy"] <= 1
    assert set(result["gflops"]) == {"dense", "mean", "p50", "p95", "reduction"}
    assert result["tokens"].keys() >= {"kept_fraction", "per_block"} and len(result["tokens"]["per_block"]) == 3


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb: str, madtp: Run) -> None:
    ended = madtp(verb, "--help")
    assert ended.code == 0 and ended.err == ""
    assert f"madtp {verb}" in ended.out and "--json" in ended.out


def test_help_of_all_and_version(madtp: Run) -> None:
    ended = madtp("--help")
    assert ended.code == 0 and all(verb in ended.out for verb in VERBS)
    assert madtp("--version").out.startswith("madtp ")


def test_options_have_the_same_names_everywhere(madtp: Run) -> None:
    for option, verbs in {
        "--task": set(VERBS) - {"demo"},
        "--data": set(VERBS) - {"convert"},
        "--model": set(VERBS) - {"convert"},
        "--device": {"demo", "train", "compress", "calibrate", "evaluate", "predict"},
        "--overwrite": {"demo", "train", "compress", "calibrate", "evaluate", "convert"},
    }.items():
        assert {verb for verb in VERBS if f"{option} " in madtp(verb, "--help").out} == verbs, option


def test_evaluate(madtp: Run, model: Path, data: Path) -> None:
    result = object_of(madtp("evaluate", "--model", model, "--data", data, "--batch-size", 2, "--json"))
    assert set(result) == EVALUATION | {"skipped"}
    check_evaluation(result)
    expected = evaluate(load(model).eval(), VqaTask(processor()), load_data("vqa", data, "test")).to_dict()
    assert {**result, "seconds": 0} == {**expected, "seconds": 0, "skipped": {}}
    assert result["gflops"]["reduction"] > 0.3


def test_evaluate_dense_and_by_rank(madtp: Run, model: Path, data: Path) -> None:
    common = ("evaluate", "--model", model, "--data", data, "--limit", 2, "--split", "train", "--json")
    dense = object_of(madtp(*common, "--temperature", 0))
    assert dense["gflops"]["reduction"] == 0 and dense["tokens"]["kept_fraction"] == 1 and dense["split"] == "train"
    ranked = object_of(madtp(*common, "--inference", "rank"))
    assert ranked["n"] == dense["n"] and ranked["gflops"]["mean"] > object_of(madtp(*common))["gflops"]["mean"]


def test_evaluate_for_a_reader(madtp: Run, model: Path) -> None:
    ended = madtp("evaluate", "--model", model, "--data", "scenes:3:5", "--limit", 1)
    assert ended.code == 0 and ended.err == ""
    assert "accuracy" in ended.out and "reduction" in ended.out and "{" not in ended.out


def test_evaluate_in_bfloat16(madtp: Run, model: Path) -> None:
    check_evaluation(
        object_of(
            madtp("evaluate", "--model", model, "--data", "scenes", "--limit", 1, "--dtype", "bfloat16", "--json")
        )
    )


def test_evaluate_writes_a_report(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    command = ("evaluate", "--model", model, "--data", data, "--limit", 1, "--out", out, "--json")
    result = object_of(madtp(*command))
    report = json.loads((out / "report.json").read_text())
    assert set(contents(out)) == {"report.json", "report.html"}
    assert (report["schema"], report["task"], report["split"], report["n"]) == (1, "vqa", "test", result["n"])
    assert report["model"] == str(model) and report["batch_size"] == 32 and report["dtype"] == "float32"
    assert {"hardware", "versions", "commit", "device"} <= report.keys()
    (row,) = report["rows"]
    assert (row["temperature"], row["reduction_asked"]) == (8.0, 0.45)
    assert row["gflops"] == result["gflops"] and row["metrics"] == result["metrics"]
    assert madtp(*command).code == 2
    assert object_of(madtp(*command, "--overwrite"))["n"] == result["n"]


def test_predict(madtp: Run, model: Path, data: Path) -> None:
    image = data / "test" / "images" / "0.png"
    command = ("predict", "--model", model, "--image", image, "--text", "how many circles are there?")
    result = object_of(madtp(*command, "--json"))
    assert set(result) == {"task", "image", "text", "answer", "temperature", "gflops", "tokens"}
    assert set(result["gflops"]) == {"dense", "mean", "reduction"} and 0 < result["gflops"]["reduction"] < 1
    assert (len(result["tokens"]["vision"]), len(result["tokens"]["text"])) == (3, 2)
    assert result["temperature"] == 8.0 and result["tokens"]["vision"][-1] < 49
    dense = object_of(madtp(*command, "--temperature", 0, "--json"))
    assert dense["temperature"] is None and dense["tokens"]["vision"] == [49] * 3 and dense["gflops"]["reduction"] == 0
    said = madtp(*command)
    assert said.code == 0 and said.out.startswith(result["answer"]) and "fewer GFLOPs" in said.out


def test_flops(madtp: Run, model: Path, data: Path) -> None:
    command = ("flops", "--model", model, "--text-tokens", 13, "--answer-tokens", 3, "--json")
    result = object_of(madtp(*command))
    keys = {"task", "model", "text_tokens", "answer_tokens", "image_tokens", "images", "parameters", "gflops"}
    assert set(result) == keys | {"temperature"}
    network = load(model)
    _, dense = cost(network, dense_trace(shape_of(network), 13, 3))
    assert result["gflops"]["dense"] == pytest.approx(float(dense.total), rel=1e-12)
    assert sum(result["gflops"]["parts"].values()) == pytest.approx(result["gflops"]["dense"])
    assert result["image_tokens"] == 50 and result["parameters"] == sum(p.numel() for p in network.parameters())
    measured = object_of(madtp(*command, "--data", data, "--limit", 2))
    assert set(measured) == keys | {"temperature", "n"} and 0.3 < measured["gflops"]["reduction"] < 0.6
    assert "total" in madtp(*command[:-1]).out


@pytest.mark.parametrize("method", ["madtp", "class_attention"])
def test_calibrate(method: str, madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("calibrate", "--model", model, "--data", data, "--reduction", 0.47, "--out", out, "--method", method)
    result = object_of(madtp(*command, "--json"))
    assert set(result) == {
        "task", "split", "n", "method", "temperature", "reduction_asked", "reduction", "tried", "curve", "out",
        "skipped",
    }  # fmt: skip
    assert result["curve"] is None
    assert result["reduction"] == pytest.approx(0.47, abs=0.02) and result["method"] == method
    assert [result["temperature"], result["reduction"]] in result["tried"]
    made = load(out)
    assert (made.temperature, made.pruning.reduction) == (result["temperature"], result["reduction"])
    theirs = load(model).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in made.state_dict().items())
    again = object_of(madtp("flops", "--model", out, "--data", data, "--limit", 200, "--json"))
    assert again["gflops"]["reduction"] == pytest.approx(result["reduction"], abs=1e-9)


def test_semantic_tokens_that_may_not_have_learned_are_warned_of(
    madtp: Run, model: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dense = model_folder(tmp_path / "dense")
    merged = model_folder(tmp_path / "merged", method="tome_dynamic", temperature=0.1)
    for name, start, method, warns in [
        ("a", dense, "madtp", True),
        ("b", dense, "tome_dynamic", False),
        ("c", model, "madtp", False),
        ("d", merged, "madtp", True),
    ]:
        command = ("calibrate", "--model", start, "--data", data, "--reduction", 0.45, "--limit", 3, "--method", method)
        caplog.clear()
        assert object_of(madtp(*command, "--out", tmp_path / name, "--json"))["method"] == method
        assert (f"no semantic tokens prune {start} so far" in caplog.text) is warns


def test_calibrating_several_budgets_stores_a_curve(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("calibrate", "--model", model, "--data", data, "--reduction", "0,0.43,0.49", "--out", out)
    result = object_of(madtp(*command, "--json"))
    made = load(out)
    assert made.pruning.curve is not None and made.pruning.curve.to_dict() == result["curve"]
    assert result["curve"]["n"] == result["n"] and result["curve"]["data"].endswith(" val")
    assert result["reduction_asked"] == 0.49 and made.temperature == result["temperature"]
    assert [result["temperature"], result["reduction"]] in result["curve"]["points"]
    made.set_reduction(0.46)
    assert min(result["curve"]["points"])[0] < made.temperature < result["temperature"]
    picture = ("--image", data / "test" / "images" / "0.png", "--text", "how many circles are there?")
    asked = ("--model", out, "--reduction", 0.46, "--json")
    assert object_of(madtp("predict", *asked, *picture))["temperature"] == made.temperature
    dense = object_of(madtp("predict", *asked, *picture, "--reduction", 0))
    assert dense["temperature"] is None and dense["gflops"]["reduction"] == 0
    found = object_of(madtp("evaluate", *asked, "--data", data, "--out", tmp_path / "report"))
    expected = evaluate(made.eval(), VqaTask(processor()), load_data("vqa", data, "test")).to_dict()
    assert found["gflops"] == expected["gflops"] and found["metrics"] == expected["metrics"]
    (row,) = json.loads((tmp_path / "report" / "report.json").read_text())["rows"]
    assert (row["reduction_asked"], row["temperature"]) == (0.46, made.temperature)
    one = ("calibrate", "--model", out, "--data", data, "--reduction", 0.47, "--out", tmp_path / "one", "--json")
    assert object_of(madtp(*one))["curve"] == result["curve"], "another temperature of the same weights"
    other = object_of(madtp(*one, "--method", "class_attention", "--overwrite"))
    assert other["curve"] is None and load(tmp_path / "one").pruning.curve is None


def test_calibrating_in_half_precision_changes_no_weight(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("calibrate", "--model", model, "--data", data, "--reduction", 0.47, "--out", out, "--dtype", "bfloat16")
    assert madtp(*command).code == 0
    theirs = load(model).state_dict()
    made = load(out).state_dict()
    assert all(torch.equal(value, theirs[name]) and value.dtype == theirs[name].dtype for name, value in made.items())


def test_a_folder_named_like_markup_is_printed_as_it_is(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    ended = madtp("calibrate", "--model", model, "--data", data, "--reduction", 0.47, "--out", tmp_path / "x[/b]y")
    assert ended.code == 0 and "x[/b]y" in ended.out.replace("\n", "")


def test_alone_it_shows_the_help(madtp: Run) -> None:
    ended = madtp()
    assert ended.code == 0 and ended.err == "" and "compress" in ended.out and len(ended.out.splitlines()) > 9


def test_train_from_scratch_then_resume_then_compress(madtp: Run, data: Path, tmp_path: Path, tiny: None) -> None:
    dense, pruned = tmp_path / "dense", tmp_path / "pruned"
    command = ("train", "--size", "tiny", "--data", data, "--out", dense, *QUICK, "--seed", 5, "--json")
    result = object_of(madtp(*command))
    assert set(result) == EVALUATION | RUN
    check_evaluation(result)
    assert (result["out"], result["temperature"], result["best_epoch"]) == (str(dense), None, 0)
    expected = {"config.json", "model.safetensors", "run.json", "log.jsonl", "checkpoint.pt", "tokenizer.json"}
    assert expected <= set(contents(dense))
    run = json.loads((dense / "run.json").read_text())
    assert run["config"]["seed"] == 5 and {"hardware", "versions", "commit", "data"} <= run.keys()
    weights = (dense / "model.safetensors").read_bytes()
    resumed = object_of(madtp(*command, "--resume"))
    assert {**resumed, "seconds": 0} == {**result, "seconds": 0}
    assert (dense / "model.safetensors").read_bytes() == weights
    changed = madtp(*command, "--resume", "--lr", 0.5).wrong()
    assert "settings differ from the checkpoint's: lr 0.001 -> 0.5" in changed

    command = ("compress", "--model", dense, "--data", data, "--out", pruned, "--reduction", "0.4", *QUICK)
    result = object_of(madtp(*command, "--method", "random", "--json"))
    assert set(result) == EVALUATION | RUN | {"reduction_asked", "method"}
    assert (result["reduction_asked"], result["method"]) == (0.4, "random")
    assert result["gflops"]["reduction"] == pytest.approx(0.4, abs=0.05)
    made = load(pruned)
    assert made.temperature is not None and made.pruning.method == "random"
    assert (dense / "model.safetensors").read_bytes() == weights, "the source is left as it was"


def test_the_same_seed_trains_the_same_model(madtp: Run, data: Path, tmp_path: Path, tiny: None) -> None:
    made = []
    for i, seed in enumerate((3, 3, 4)):
        torch.manual_seed(i)
        out = tmp_path / str(i)
        common = ("--data", data, "--out", out, "--epochs", 1, "--questions", 1, "--limit", 2, "--json")
        object_of(madtp("train", "--size", "tiny", *common, "--seed", seed))
        made.append((out / "model.safetensors").read_bytes())
    assert made[0] == made[1] != made[2]


def test_convert_round_trip(madtp: Run, data: Path, tmp_path: Path) -> None:
    """A checkpoint under the original names, over a vocabulary of BERT's size: the folder answers as the model does."""
    places = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    known = sorted(set(processor().tokenizer.get_vocab()) - {*places.values(), "[DEC]", "[ENC]"})
    rest = iter([*known, *(f"unused{i}" for i in range(30522))])
    words = {places.get(i) or next(rest): i for i in range(30522)}
    BertTokenizer(vocab=words, do_lower_case=True).save_pretrained(tmp_path / "words")
    torch.manual_seed(1)
    model = build_vqa(replace(NANO, width=20, heads=2), 30524).eval()
    torch.save({"model": original(model), "temperature": 3.5}, tmp_path / "model.pth")
    out = tmp_path / "out"
    command = ("convert", tmp_path / "model.pth", out, "--heads", 2, "--tokenizer", tmp_path / "words", "--json")
    result = object_of(madtp(*command))
    assert set(result) == {"task", "architecture", "source", "out", "temperature", "tensors", "dropped"}
    assert (result["task"], result["architecture"]) == ("vqa", "MadtpBlipForQuestionAnswering")
    assert (result["temperature"], result["source"], result["out"]) == (3.5, str(tmp_path / "model.pth"), str(out))
    made = load(out)
    assert made.temperature == 3.5
    theirs = model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in made.state_dict().items())
    check_evaluation(object_of(madtp("evaluate", "--model", out, "--data", data, "--limit", 1, "--json")))
    assert madtp(*command).code == 2, "taken"
    assert object_of(madtp(*command, "--overwrite"))["tensors"] == result["tensors"]


def test_convert_of_a_pretrained_checkpoint_says_what_it_drops(madtp: Run, tmp_path: Path) -> None:
    torch.save({"model": pretrained()}, tmp_path / "model_base.pth")
    command = ("convert", tmp_path / "model_base.pth", tmp_path / "out", "--heads", 2)
    assert "for vqa, caption or retrieval; choose with --task" in madtp(*command).wrong()
    ended = madtp(*command, "--task", "retrieval")
    assert ended.code == 0
    line = " ".join(ended.out.split())
    assert "MadtpBlipForImageTextRetrieval for retrieval" in line and "text_decoder" in line and "queue" in line


def test_convert_back_to_the_stock_classes(madtp: Run, model: Path, tmp_path: Path) -> None:
    command = ("convert", model, tmp_path / "dense", "--to", "hf-dense", "--json")
    result = object_of(madtp(*command))
    assert set(result) == {"task", "architecture", "source", "out", "temperature", "tensors", "dropped"}
    assert (result["architecture"], result["temperature"], result["dropped"]) == ("BlipForQuestionAnswering", None, 1)
    assert type(load(tmp_path / "dense")) is type(load(model))
    assert madtp(*command).code == 2, "taken"


def test_evaluate_gives_the_answers_of_predict(madtp: Run, model: Path, data: Path) -> None:
    """Question by question with `predict`, against `evaluate` on the same picture."""
    sample = load_data("vqa", data, "test")[0]
    said = [
        object_of(
            madtp("predict", "--model", model, "--image", data / "test/images/0.png", "--text", q.text, "--json")
        )["answer"]
        for q in sample.questions[:3]
    ]
    result = evaluate(load(model).eval(), VqaTask(processor()), load_data("vqa", data, "test", limit=1))
    assert [p.answer for p in result.predictions[:3]] == said


def test_int8(madtp: Run, model: Path, data: Path) -> None:
    found = {
        dtype: madtp("evaluate", "--model", model, "--data", data, "--limit", 7, "--json", "--dtype", dtype)
        for dtype in ("float32", "int8")
    }
    assert all(ended.code == 0 and ended.err == "" for ended in found.values()), found
    plain, whole = (json.loads(ended.out) for ended in found.values())
    assert plain["gflops"]["mean"] != whole["gflops"]["mean"]  # other numbers, of other products
    assert whole["gflops"]["reduction"] == pytest.approx(plain["gflops"]["reduction"], abs=0.05)
    refused = madtp("evaluate", "--model", model, "--data", data, "--dtype", "int4")
    assert refused.code == 2
    assert "unknown type 'int4'" in refused.err


def test_semantic_tokens_and_losses_of_choice(
    madtp: Run, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are in what is saved; a run that goes on must ask for the same."""
    lender = tmp_path / "lender"
    lent = load(model)
    lent.renew_semantic_tokens(11)
    save_model(lent, processor(), lender)
    asked = ("--model", model, "--data", data, "--reduction", 0.45, *QUICK, "--out", tmp_path / "out")
    ended = madtp("compress", *asked, "--guidance-from", lender, "--alignment", "contrastive")
    assert ended.code == 0, ended
    made = load(tmp_path / "out")
    assert (made.pruning.alignment, made.pruning.semantic_tokens) == ("contrastive", 11)
    log = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert "loss_align" in json.loads(log[0])
    other = madtp("compress", *asked, "--guidance-from", lender, "--resume")
    assert other.code == 2
    assert "alignment" in other.err
    for wrong, said in (
        (("--alignment", "cosin"), "unknown 'cosin'"),
        (("--guidance-from", tmp_path / "none"), "no such"),
        (("--guidance-from", lender, "--semantic-tokens", 7), "--semantic-tokens"),
    ):
        refused = madtp("compress", *asked[:-1], tmp_path / "else", *wrong)
        assert refused.code == 2, refused
        assert said in refused.err
        assert not (tmp_path / "else").exists()
