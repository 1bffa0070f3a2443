"""The evaluation loop and calibration: every figure equals what is worked out from the traces by hand."""

import json
from itertools import pairwise
from typing import Any

import pytest
import torch

from madtp.calibration import GAP, calibrate, calibrate_all
from madtp.cost.flops import reduction
from madtp.data.sample import Question
from madtp.errors import InputError
from madtp.evaluate import (
    Evaluation,
    batches,
    detail_of,
    evaluate,
    evaluating,
    kept_share,
    measure_reduction,
)
from madtp.prune import BlockTrace, Trace
from madtp.task.base import Prediction, Scored, cost
from madtp.task.vqa import VqaTask
from small import PATCHES, nano_model, processor, scenes

CPU = torch.device("cpu")
TEMPERATURE = 2.0


@pytest.fixture(scope="module")
def data() -> Any:
    return scenes("test", 5)


@pytest.fixture(scope="module")
def task() -> VqaTask:
    return VqaTask(processor())


@pytest.fixture(scope="module")
def model() -> Any:
    return nano_model(temperature=TEMPERATURE)


@pytest.fixture
def fresh(model: Any) -> Any:
    """The same model with its settings put back afterwards."""
    before, training = model.pruning, model.training
    yield model
    model.pruning = before
    model.train(training)


@pytest.fixture(scope="module")
def result(model: Any, task: VqaTask, data: Any) -> Evaluation:
    return evaluate(model, task, data, batch_size=3)


def test_figures_equal_those_of_every_question_alone(result: Evaluation, model: Any, task: VqaTask, data: Any) -> None:
    dataset = task.dataset(data)
    i = 0
    per_block = torch.zeros(3, dtype=torch.float64)
    for image in range(len(data)):
        pixels, sample, questions = dataset[image]
        for question in questions:
            with evaluating(model):
                (prediction,), encoded = task.predict(model, task.collate([(pixels, sample, [question])]))
            run, full = cost(model, encoded.trace)
            out = [int(b.tokens_out) for b in encoded.trace.tower("vision")]
            assert result.predictions[i] == prediction
            assert float(result.gflops[i]) == float(run.total)
            assert float(result.dense[i]) == float(full.total)
            assert float(result.kept[i]) == pytest.approx(sum(n / PATCHES for n in out) / 3, rel=1e-12)
            i += 1
        per_block += torch.tensor(out, dtype=torch.float64) / len(data)
    assert i == len(result.predictions) == 10
    assert result.per_block == pytest.approx(per_block.tolist(), rel=1e-12)
    assert len(set(result.kept.tolist())) > 2, "pictures all alike would show nothing"
    assert (result.gflops < result.dense).all()


def test_means_by_hand(result: Evaluation) -> None:
    gflops, dense = result.gflops.tolist(), result.dense.tolist()
    assert result.reduction == pytest.approx(1 - sum(gflops) / sum(dense), rel=1e-12)
    groups: dict[str, list[float]] = {}
    for prediction, kept in zip(result.predictions, result.kept.tolist(), strict=True):
        groups.setdefault(str(prediction.objects), []).append(kept)
    assert len(groups) > 1
    assert result.by_objects() == pytest.approx({n: sum(some) / len(some) for n, some in groups.items()})
    assert list(result.by_objects()) == sorted(groups, key=int)


def test_to_dict_holds_the_documented_keys(result: Evaluation) -> None:
    table = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(table) == {"task", "split", "n", "metrics", "scoring", "gflops", "tokens", "seconds"}
    assert (table["task"], table["split"], table["n"]) == ("vqa", "test", 10)
    assert set(table["gflops"]) == {"dense", "mean", "p50", "p95", "reduction"}
    blocks = {"per_block", "per_block_p5", "per_block_p95"}
    assert set(table["tokens"]) == {"kept_fraction", *blocks, "by_objects", "by_detail"}
    for low, mean, high in zip(
        *(table["tokens"][key] for key in ("per_block_p5", "per_block", "per_block_p95")), strict=True
    ):
        assert low <= mean <= high
    assert 2 <= len(table["tokens"]["by_detail"]) <= 4
    ordered = sorted(result.gflops.tolist())
    assert table["gflops"]["p50"] == pytest.approx((ordered[4] + ordered[5]) / 2)
    assert table["gflops"]["p95"] == pytest.approx(ordered[8] + 0.55 * (ordered[9] - ordered[8]))
    assert table["gflops"]["mean"] == pytest.approx(sum(ordered) / 10)
    assert table["tokens"]["kept_fraction"] == pytest.approx(sum(result.kept.tolist()) / 10)
    assert table["gflops"]["reduction"] == result.reduction
    assert table["seconds"] > 0


def test_objects_that_nobody_counted_are_left_out() -> None:
    truth = Question("how many?", ("2",), (1.0,), "0")
    predictions = [Prediction("0", "how many?", "2", truth, "a", objects) for objects in (None, 11, 3, 3)]
    one = torch.ones(4)
    made = Evaluation("vqa", "val", Scored(predictions), one, one, torch.tensor([0.1, 0.2, 0.3, 0.5]), [])
    assert made.by_objects() == pytest.approx({"3": 0.4, "11": 0.2})
    assert list(made.by_objects()) == ["3", "11"], "by number, not by letter"


def test_detail_by_hand() -> None:
    picture = torch.zeros(2, 3, 2, 3)
    picture[1, :, :, 1] = 6.0  # a line down the middle: two steps of 6 to the right a row, none down
    assert detail_of(picture).tolist() == [0.0, 6.0]
    kept, detail = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]), torch.tensor([5.0, 1.0, 2.0, 4.0, 3.0])
    one = torch.ones(5)
    made = Evaluation("vqa", "val", Scored([]), one, one, kept, [], detail=detail)
    assert made.by_detail() == pytest.approx({"1": 0.25, "2": 0.5, "3": 0.4, "4": 0.1})
    alike = Evaluation("vqa", "val", Scored([]), one, one, kept, [], detail=one)
    assert alike.by_detail() == pytest.approx({"1": 0.3})
    assert Evaluation("vqa", "val", Scored([]), one, one, kept, []).by_detail() == {}


def test_the_batch_does_not_matter(result: Evaluation, model: Any, task: VqaTask, data: Any) -> None:
    told: list[int] = []
    other = evaluate(model, task, data, batch_size=5, advance=told.append)
    assert other.predictions == result.predictions
    assert torch.equal(other.gflops, result.gflops) and torch.equal(other.kept, result.kept)
    assert other.per_block == pytest.approx(result.per_block) and other.metrics == result.metrics
    assert told == [5]


def test_dense_keeps_everything(fresh: Any, task: VqaTask) -> None:
    fresh.temperature = None
    some = evaluate(fresh, task, scenes("val", 2))
    assert some.reduction == 0 and some.kept.tolist() == [1.0] * 4 and some.per_block == [PATCHES] * 3


def test_accuracy_is_the_share_of_right_answers(monkeypatch: pytest.MonkeyPatch, model: Any, data: Any) -> None:
    task = VqaTask(processor())
    predict = task.predict

    def oracle(model: Any, batch: Any, answers: Any = (), provenance: bool = False) -> Any:
        predictions, encoded = predict(model, batch, answers, provenance)
        said = [p.truth.answers[0] if int(p.id.rpartition("-")[2]) % 2 else "wrong" for p in predictions]
        return [
            Prediction(p.id, p.text, answer, p.truth, p.image_id, p.objects)
            for p, answer in zip(predictions, said, strict=True)
        ], encoded

    monkeypatch.setattr(task, "predict", oracle)
    right = sum(int(q.question_id.rpartition("-")[2]) % 2 for sample in data for q in sample.questions)
    assert evaluate(model, task, data).metrics["accuracy"] == pytest.approx(right / 10)


def test_kept_share_by_hand() -> None:
    blocks = [
        BlockTrace("vision", 0, torch.tensor([8, 10]), torch.tensor([8, 5])),
        BlockTrace("text", 0, torch.tensor([3, 3]), torch.tensor([1, 1])),
        BlockTrace("vision", 1, torch.tensor([8, 5]), torch.tensor([4, 2])),
    ]
    share, out = kept_share(Trace(blocks))
    assert share.tolist() == pytest.approx([(1 + 0.5) / 2, (0.5 + 0.2) / 2])
    assert out.tolist() == [[8, 4], [5, 2]]


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_gives_back_the_mode(fresh: Any, training: bool) -> None:
    fresh.train(training)
    with evaluating(fresh):
        assert not fresh.training and torch.is_inference_mode_enabled()
    assert fresh.training is training and not torch.is_inference_mode_enabled()
    with pytest.raises(KeyboardInterrupt), evaluating(fresh):
        raise KeyboardInterrupt
    assert fresh.training is training


@pytest.fixture(scope="module")
def ready(task: VqaTask, data: Any) -> list[Any]:
    return list(batches(task, data, 2, CPU))


def test_batches_come_in_order(ready: list[Any], data: Any) -> None:
    assert [len(batch["samples"]) for batch in ready] == [2, 2, 1]
    assert [s.image_id for batch in ready for s in batch["samples"]] == [s.image_id for s in data]


def test_measured_reduction_by_hand(fresh: Any, task: VqaTask, ready: list[Any]) -> None:
    fresh.train()
    run, full = [], []
    for batch in ready:
        fresh.eval()
        with torch.no_grad():
            trace = task.expect(fresh.encode(**task.inputs(batch)).trace, batch)
        pruned, dense = cost(fresh, trace)
        run += pruned.total.tolist()
        full += dense.total.tolist()
    fresh.train()
    assert measure_reduction(fresh, task, ready) == pytest.approx(1 - sum(run) / sum(full), rel=1e-12)
    assert fresh.training
    assert reduction(torch.tensor(run), torch.tensor(full)) > 0.1


@pytest.mark.parametrize(("method", "near"), [("madtp", None), ("madtp", 8.0), ("class_attention", None)])
def test_calibration_meets_the_target_and_remembers_it(
    fresh: Any, task: VqaTask, ready: list[Any], method: str, near: float | None
) -> None:
    fresh.pruning = type(fresh.pruning)(method=method, semantic_tokens=5, alpha=0.7)
    weights = {name: value.clone() for name, value in fresh.state_dict().items()}
    tried: list[tuple[float, float]] = []
    found = calibrate(fresh, task, ready, 0.48, near=near, tolerance=0.01, tried=lambda *pair: tried.append(pair))
    assert found.reduction == pytest.approx(0.48, abs=0.01)
    assert (fresh.temperature, fresh.pruning.reduction) == (found.strength, found.reduction)
    assert measure_reduction(fresh, task, ready) == pytest.approx(found.reduction, abs=1e-12)
    assert (fresh.pruning.method, fresh.pruning.alpha, fresh.pruning.semantic_tokens) == (method, 0.7, 5)
    assert (found.strength, found.reduction) in [(pytest.approx(s), r) for s, r in tried]
    assert all(torch.equal(weights[name], value) for name, value in fresh.state_dict().items())
    if near is not None:
        assert all(near / 3.001 <= strength <= near * 3.001 for strength, _ in tried)


@pytest.mark.parametrize("near", [None, 8.0])
def test_many_batches_are_measured_in_full_a_few_times_only(
    fresh: Any, task: VqaTask, ready: list[Any], near: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(model: Any, task: Any, some: Any) -> float:
        sizes.append(len(some))
        return measure_reduction(model, task, some)

    monkeypatch.setattr("madtp.calibration.measure_reduction", counted)
    many = ready * 8
    found = calibrate(fresh, task, many, 0.48, near=near, tolerance=0.01)
    assert found.reduction == pytest.approx(0.48, abs=0.01)
    assert found.reduction == pytest.approx(measure_reduction(fresh, task, many), abs=1e-12)
    assert 1 <= sizes.count(len(many)) <= 3 and sizes.count(len(ready)) > 2


def test_calibration_near_a_wrong_place_looks_everywhere(fresh: Any, task: VqaTask, ready: list[Any]) -> None:
    tried: list[float] = []
    found = calibrate(fresh, task, ready, 0.48, near=0.03, tolerance=0.01, tried=lambda s, _: tried.append(s))
    assert found.reduction == pytest.approx(0.48, abs=0.01)
    assert max(tried[:3]) <= 0.0901 and max(tried) > 0.0901


@pytest.mark.parametrize("near", [None, 2.0])
def test_out_of_reach_leaves_the_model_as_it_was(
    fresh: Any, task: VqaTask, ready: list[Any], near: float | None
) -> None:
    fresh.temperature = 3.0
    before = fresh.pruning
    with pytest.raises(InputError, match=r"0\.98 is above the most this model reaches, 0\.\d\d\d; ask for at most 0\."):
        calibrate(fresh, task, ready, 0.98, near=near)
    assert fresh.pruning == before
    with pytest.raises(InputError, match="impossible"):
        calibrate(fresh, task, ready, 1.5)
    assert fresh.pruning == before


def test_interrupted_calibration_leaves_the_model_as_it_was(fresh: Any, task: VqaTask, ready: list[Any]) -> None:
    before = fresh.pruning

    def interrupt(*_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(fresh, task, ready, 0.3, tried=interrupt)
    assert fresh.pruning == before


def test_the_mildest_is_within_a_budget_that_the_model_cannot_fill(fresh: Any, task: VqaTask, ready: list[Any]) -> None:
    """A hundredth is less than this model saves at any temperature: it is refused, or more is saved."""
    with pytest.raises(InputError, match="below its least"):
        calibrate(fresh, task, ready, 0.01)
    found = calibrate(fresh, task, ready, 0.01, mildest=True)
    assert fresh.temperature == found.strength and fresh.pruning.reduction == found.reduction > 0.01
    assert measure_reduction(fresh, task, ready) == pytest.approx(found.reduction)
    with pytest.raises(InputError, match="above the most"):
        calibrate(fresh, task, ready, 0.99, mildest=True)


@pytest.mark.parametrize("many", [1, 8])
def test_several_budgets_are_measured_once_and_stored(
    fresh: Any, task: VqaTask, ready: list[Any], data: Any, many: int
) -> None:
    """Temperatures in between save what the curve says, within what a nano model's few tokens allow."""
    tried: list[float] = []
    found = calibrate_all(fresh, task, ready * many, (0.41, 0.51), data, tried=lambda s, _: tried.append(s))
    curve = fresh.pruning.curve
    assert curve is not None and (curve.data, curve.n) == (f"{data.name} {data.split}", data.n_texts)
    assert (fresh.temperature, fresh.pruning.reduction) == (found.strength, found.reduction)
    assert found.reduction == pytest.approx(0.51, abs=0.01) and (found.strength, found.reduction) in curve.points
    assert len(set(tried)) == len(tried) if many == 1 else len(curve.points) < len(tried)
    inside = [saved for _, saved in curve.points if 0.4 < saved < 0.52]
    assert len(inside) >= 3 and max(b - a for a, b in pairwise(sorted(inside))) < GAP
    for asked in (0.41, 0.51):
        fresh.set_reduction(asked)
        assert measure_reduction(fresh, task, ready) == pytest.approx(asked, abs=0.01)
    for temperature, saved in curve.points:
        fresh.temperature = temperature
        assert measure_reduction(fresh, task, ready * many) == pytest.approx(saved, abs=1e-9)
    for between in (0.43, 0.46):
        fresh.set_reduction(between)
        assert measure_reduction(fresh, task, ready) == pytest.approx(between, abs=0.02)


def test_one_of_several_budgets_out_of_reach(
    fresh: Any, task: VqaTask, ready: list[Any], data: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = fresh.pruning
    with pytest.raises(InputError, match="above the most"):
        calibrate_all(fresh, task, ready, (0.98, 0.5), data)
    assert fresh.pruning == before
    found = calibrate_all(fresh, task, ready, (0.98, 0.5), data, lenient=True)
    assert found.reduction == pytest.approx(0.5, abs=0.01) and "left out of the curve: --reduction: 0.98" in caplog.text
    with pytest.raises(InputError, match="above the most"):
        calibrate_all(fresh, task, ready, (0.5, 0.98), data, lenient=True)
