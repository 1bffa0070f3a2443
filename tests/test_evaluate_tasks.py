"""The evaluation loop with every task: two pictures a text, captions a picture, rankings when all has been seen."""

from pathlib import Path
from typing import Any

import pytest
import torch

from madtp.data.sample import Data
from madtp.evaluate import Evaluation, evaluate, evaluating
from madtp.task.base import cost, distinct
from small import PATCHES, nano, nano_task, samples

KINDS = ("reasoning", "caption", "retrieval", "clip")
COUNT = 4


def task_of(kind: str) -> Any:
    """Quick, but that BLIP ranks all candidates anew."""
    options: dict[str, dict[str, Any]] = {"caption": {"beams": 2, "longest": 11}, "retrieval": {"k_test": 128}}
    task = nano_task(kind, **options.get(kind, {}))
    return task.quick() if kind == "caption" else task


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str) -> Any:
    return nano(kind, temperature=2.0)


@pytest.fixture(scope="module")
def data(kind: str) -> Data[Any]:
    return samples(nano_task(kind).name, "test", COUNT)


@pytest.fixture(scope="module")
def result(kind: str, model: Any, data: Data[Any], tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:  # without Java
        patch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
        return evaluate(model, task_of(kind), data, batch_size=3)


def test_figures_equal_those_of_each_text_alone(kind: str, model: Any, data: Data[Any], result: Evaluation) -> None:
    """Of a text with its picture or its two; in captioning of a picture."""
    task = task_of(kind)
    dataset = task.dataset(data)
    i, outs = 0, []
    for image in range(len(data)):
        pixels, sample, texts = dataset[image]
        for some in [texts] if kind == "caption" else [[text] for text in texts]:
            with evaluating(model):
                (prediction,), encoded = task.predict(model, task.collate([(pixels, sample, some)]))
            run, full = cost(model, encoded.trace)
            out = [block.tokens_out.tolist() for block in encoded.trace.tower("vision")]
            given = result.predictions[i]
            assert (given.text, given.truth, given.image_id) == (prediction.text, prediction.truth, prediction.image_id)
            assert given.answer == prediction.answer or task.name == "retrieval", "which asks for the whole gallery"
            assert (float(result.gflops[i]), float(result.dense[i])) == (float(run.total), float(full.total))
            kept = [n / PATCHES for block in out for n in block]
            assert float(result.kept[i]) == pytest.approx(sum(kept) / len(kept), rel=1e-12)
            i += 1
        assert [len(block) for block in out] == [len(distinct(sample.images))] * 3
        outs.append(torch.tensor(out, dtype=torch.float64))
    assert i == len(result.predictions) == len(result.gflops) == (COUNT if kind == "caption" else data.n_texts)
    assert result.per_block == pytest.approx(torch.cat(outs, 1).mean(1).tolist(), rel=1e-12)
    assert (result.gflops < result.dense).all() and len(set(result.kept.tolist())) > 2


def test_the_batch_does_not_matter(
    kind: str, model: Any, data: Data[Any], result: Evaluation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told: list[int] = []
    other = evaluate(model, task_of(kind), data, batch_size=2, advance=told.append)
    assert other.predictions == result.predictions and other.metrics == result.metrics
    assert torch.equal(other.gflops, result.gflops) and torch.equal(other.kept, result.kept)
    assert told == [2, 2]


def test_metrics_and_objects_are_of_every_text(kind: str, data: Data[Any], result: Evaluation) -> None:
    assert nano_task(kind).higher_is_better in result.metrics
    assert set(result.by_objects()) == {str(sample.objects) for sample in data}
    assert result.to_dict()["n"] == len(result.predictions)
