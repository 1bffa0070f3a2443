"""`madtp bench` and `madtp flops --preset`: every kind of model, without weights or data."""

import re
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Run
from cli.test_verbs import object_of
from madtp.cost.flops import count_dense
from madtp.model.load import load
from madtp.model.presets import PRESETS, Preset, random_inputs
from madtp.model.shape import CLASSES, class_of, shape_of

FIGURES = {"reduction", "dense_ms", "pruned_ms", "speedup", "ideal", "efficiency", "peak_mb_dense", "peak_mb_pruned"}
ROW = {"work", "batch", "dtype", "device", "reduction_asked", "temperature", "gflops", "tokens_per_block"} | FIGURES


@pytest.fixture
def nano(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nano-KIND` is a preset of a few blocks."""
    for kind in CLASSES:
        deep = 7 if kind == "reasoning" else 2  # NLVR2's layers merge from the seventh on
        monkeypatch.setitem(PRESETS, f"nano-{kind}", Preset(kind, 35, 5, (58, 4, 2, 211), (62, deep, 2, 223)))


@pytest.mark.parametrize("kind", CLASSES)
def test_bench_of_every_kind(kind: str, madtp: Run, nano: None) -> None:
    command = ("bench", "--preset", f"nano-{kind}", "--pairs", 1, "--batch-size", 5, "--text-tokens", 7)
    result = object_of(madtp(*command, "--reduction", "0.45", "--json"))
    assert (result["task"], result["model"]) == ("retrieval" if kind == "clip" else kind, f"nano-{kind}")
    assert {"parameters", "threads", "device", "dtype", "seed", "hardware", "versions", "commit"} <= result.keys()
    rows = result["rows"]
    assert [row["work"] for row in rows] == ["towers", *(["generate"] if kind == "caption" else [])]
    for row in rows:
        assert set(row) == ROW and row["dense_ms"] > 0 and row["pruned_ms"] > 0
        assert (row["batch"], row["dtype"], row["device"]) == (5, "float32", result["device"])
        assert min(row["peak_mb_dense"], row["peak_mb_pruned"]) > 0 and len(row["tokens_per_block"]) == 4
        assert 49 > row["tokens_per_block"][0] >= row["tokens_per_block"][-1]
        assert row["ideal"] == pytest.approx(row["gflops"]["dense"] / row["gflops"]["mean"], abs=1e-3)
        assert row["efficiency"] == pytest.approx(row["speedup"] / row["ideal"], abs=2e-3)
    assert rows[0]["reduction"] == pytest.approx(0.45, abs=0.1)  # of other noise than the temperature was found on
    assert kind != "caption" or 0 < rows[1]["reduction"] < rows[0]["reduction"]


def test_bench_of_a_pruned_model_keeps_its_temperature(madtp: Run, model: Path) -> None:
    command = ("bench", "--model", model, "--pairs", 1, "--text-tokens", 7, "--dtype", "bfloat16")
    result = object_of(madtp(*command, "--json"))
    (row,) = result["rows"]
    assert (row["reduction_asked"], row["temperature"], result["dtype"]) == (None, 8.0, "bfloat16")
    network = load(model).eval()
    trace = network.encode(**random_inputs("vqa", network.config, 1, 7)).trace
    assert row["gflops"]["dense"] == pytest.approx(float(count_dense(shape_of(network), trace).total))
    said = madtp(*command)
    assert said.code == 0 and "of ideal" in said.out and "bfloat16" in said.out and "{" not in said.out


def test_bench_of_another_method(madtp: Run, nano: None, model: Path) -> None:
    """It has a knob of its own, so the model's temperature is not kept; what takes weights out is not timed here."""
    command = ("bench", "--pairs", 1, "--text-tokens", 7, "--json", "--method")
    for which in (("--preset", "nano-clip"), ("--model", model)):
        result = object_of(madtp(*command, "class_attention", *which, "--reduction", 0.4))
        (row,) = result["rows"]
        assert result["method"] == "class_attention" and 0 < row["temperature"] < 1
        assert row["reduction"] == pytest.approx(0.4, abs=0.1)
    assert "madtp compare" in madtp(*command, "upop", "--model", model).wrong()
    assert "unknown pruning method 'upo'" in madtp(*command, "upo", "--model", model).wrong()


def test_a_budget_milder_than_can_be_takes_the_mildest_and_says_so(
    madtp: Run, nano: None, caplog: pytest.LogCaptureFixture
) -> None:
    command = ("bench", "--preset", "nano-vqa", "--pairs", 1, "--text-tokens", 7, "--reduction", 0.01, "--json")
    (row,) = object_of(madtp(*command))["rows"]
    assert row["reduction_asked"] == 0.01 and row["reduction"] > 0.2
    (said,) = (record.getMessage() for record in caplog.records)
    found = re.fullmatch(r"asked to save 0.01, the least this model can: (0\.\d+)", said)
    assert found is not None and float(found[1]) == pytest.approx(row["reduction"], abs=0.15)


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind != "reasoning"])
def test_stock_is_timed_too_where_transformers_has_it(
    kind: str, madtp: Run, nano: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "vqa":  # stock has it in one width only
        monkeypatch.setitem(PRESETS, "nano-vqa", Preset(kind, 35, 5, (62, 4, 2, 211), (62, 2, 2, 223)))
    command = ("bench", "--preset", f"nano-{kind}", "--pairs", 1, "--text-tokens", 7, "--reduction", 0.45, "--stock")
    for row in object_of(madtp(*command, "--json"))["rows"]:
        assert set(row) == ROW | {"stock_ms", "dense_over_stock"}
        assert row["stock_ms"] > 0 and row["dense_over_stock"] > 0
    said = madtp(*command)
    assert said.code == 0 and "our dense form is" in " ".join(said.out.split())


def test_stock_is_refused_where_transformers_has_none(madtp: Run, nano: None) -> None:
    said = madtp("bench", "--preset", "nano-reasoning", "--pairs", 1, "--stock")
    assert said.code == 2 and "transformers has no model of two images a text" in said.err
    assert said.err.count("\n") == 1 and "leave out --stock" in said.err


def test_with_more_semantic_tokens_less_must_be_pruned(madtp: Run, nano: None) -> None:
    command = ("bench", "--preset", "nano-vqa", "--pairs", 1, "--text-tokens", 7, "--reduction", 0.01, "--json")
    few, many = (object_of(madtp(*command, "--semantic-tokens", count)) for count in (7, 997))
    assert (few["semantic_tokens"], many["semantic_tokens"]) == (7, 997)
    assert many["rows"][0]["reduction"] < few["rows"][0]["reduction"]


def test_bench_draws_the_same_from_a_seed(madtp: Run, nano: None) -> None:
    command = ("bench", "--preset", "nano-clip", "--pairs", 1, "--text-tokens", 7, "--reduction", 0.3, "--json")
    first, again, other = (object_of(madtp(*command, "--seed", seed))["rows"][0] for seed in (3, 3, 4))
    assert first["gflops"] == again["gflops"] != other["gflops"]


@pytest.mark.parametrize(
    ("preset", "parts"),
    [
        ("blip-base-nlvr2", {"vision", "text"}),
        ("blip-large-caption", {"vision", "decoder"}),
        ("blip-base-vqa", {"vision", "text", "decoder"}),
        ("blip-base-retrieval", {"vision", "text", "match"}),
        ("clip-vit-base-32", {"vision", "text"}),
    ],
)
def test_flops_of_a_preset(preset: str, parts: set[str], madtp: Run) -> None:
    result = object_of(madtp("flops", "--preset", preset, "--text-tokens", 30, "--json"))
    assert result["model"] == preset and result["temperature"] is None
    gflops = result["gflops"]
    assert set(gflops["parts"]) == parts and sum(gflops["parts"].values()) == pytest.approx(gflops["dense"])
    features = gflops["parts"]["vision"] + gflops["parts"].get("text", 0)
    assert gflops.get("features") == (pytest.approx(features) if result["task"] == "retrieval" else None)


def test_flops_of_the_papers_model(madtp: Run) -> None:
    result = object_of(madtp("flops", "--preset", "blip-base-nlvr2", "--text-tokens", 30, "--json"))
    assert result["gflops"]["dense"] == pytest.approx(132.54, rel=0.01)
    assert (result["images"], result["image_tokens"]) == (2, 577)
    assert result["parameters"] == pytest.approx(259e6, rel=0.01)


@pytest.mark.parametrize("verb", ["flops", "bench"])
def test_wrong_names(verb: str, madtp: Run, model: Path) -> None:
    assert "did you mean blip-base-nlvr2?" in madtp(verb, "--preset", "blip-base-nlvr").wrong()
    assert "use one of blip-base-nlvr2" in madtp(verb, "--preset", "x").wrong()
    assert "--preset or --model" in madtp(verb).wrong()
    assert "--preset or --model" in madtp(verb, "--preset", "blip-base-vqa", "--model", model).wrong()


def test_texts_too_long_and_budgets_out_of_reach(madtp: Run, nano: None, model: Path) -> None:
    assert "at most 77" in madtp("flops", "--preset", "clip-vit-base-32", "--text-tokens", 78).wrong()
    assert "at most 77" in madtp("bench", "--preset", "nano-clip", "--text-tokens", 78).wrong()
    assert "impossible" in madtp("bench", "--preset", "nano-clip", "--reduction", 1).wrong()
    assert "above the most" in madtp("bench", "--preset", "nano-clip", "--reduction", 0.99).wrong()
    assert "no weights" in madtp("flops", "--preset", "blip-base-vqa", "--data", "scenes").wrong()
    assert "for vqa" in madtp("flops", "--preset", "blip-base-vqa", "--task", "caption").wrong()


def test_several_sizes_and_budgets_with_commas_or_spaces(madtp: Run, nano: None) -> None:
    command = ("bench", "--preset", "nano-vqa", "--pairs", 1, "--text-tokens", 7, "--json", "--reduction", 0.4, 0.5)
    rows = object_of(madtp(*command, "--batch-size", "2,3"))["rows"]
    assert [(row["batch"], row["reduction_asked"]) for row in rows] == [(2, 0.4), (2, 0.5), (3, 0.4), (3, 0.5)]
    said = madtp(*command, "--batch-size", 0)
    assert said.code == 2 and "'0' is no number of examples" in said.err


def test_every_pair_has_inputs_of_its_own(madtp: Run, nano: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    encode = class_of("vqa").encode

    def noted(self: Any, **inputs: Any) -> Any:
        seen.append(float(inputs["pixel_values"].sum()))
        return encode(self, **inputs)

    monkeypatch.setattr(class_of("vqa"), "encode", noted)
    command = ("bench", "--preset", "nano-vqa", "--pairs", 3, "--batch-size", 16, "--text-tokens", 7)
    assert madtp(*command, "--reduction", 0.45).code == 0
    seen = [pictures for i, pictures in enumerate(seen) if i == 0 or pictures != seen[i - 1]]
    assert len(seen) == len(set(seen)) == 1 + 1 + 3, "to find the temperature, to warm up, and each pair"
