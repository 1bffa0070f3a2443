"""The reasoning task: two pictures a statement (or one for both sides), judgements, and figures of those judged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from madtp.data.sample import Data, PairSample, Statement
from madtp.errors import InputError
from madtp.evaluate import evaluating
from madtp.task.base import Prediction, Scored
from small import NANO, PATCHES, nano, nano_task, samples


@pytest.fixture(scope="module")
def data() -> Data[PairSample]:
    """Three pairs; of the second both sides are one picture, the third has one statement."""
    first, second, third = samples("reasoning", "test", 3).samples
    second = replace(second, images=(second.images[0], second.images[0]))
    return replace(samples("reasoning", "test", 3), samples=(first, second, replace(third, statements=third.texts[:1])))


def collated(data: Data[PairSample]) -> dict[str, Any]:
    task = nano_task("reasoning")
    dataset = task.dataset(data)
    made: dict[str, Any] = task.collate([dataset[i] for i in range(len(data))])
    return made


def test_a_batch_holds_each_picture_once_and_says_which_are_looked_at(data: Data[PairSample]) -> None:
    batch = collated(data)
    assert batch["pixel_values"].shape == (5, 3, NANO.image, NANO.image)
    assert batch["image_index"].tolist() == [[0, 1], [0, 1], [2, 2], [2, 2], [3, 4]]
    statements = [statement for sample in data for statement in sample.statements]
    assert batch["texts"] == statements
    assert batch["labels"].tolist() == [int(bool(s.label)) for s in statements]
    assert [owner.image_id for owner in batch["owners"]] == [s.image_id for s in data for _ in s.statements]
    first = nano_task("reasoning").tokenizer.convert_ids_to_tokens(batch["input_ids"][:, 0].tolist())
    assert first == ["[ENC]"] * 5


def test_a_long_statement_is_read_to_its_end(data: Data[PairSample]) -> None:
    """The longest of NLVR2's first 300 has 53 tokens; the model of the fewest positions that we make reads 64."""
    task, model = nano_task("reasoning"), nano("reasoning")
    statement = "the left picture has a circle and " * 7 + "no square"
    batch = task.collate([(torch.zeros(2, 3, NANO.image, NANO.image), data[0], [Statement(statement, True, "0")])])
    assert task.tokenizer.decode(batch["input_ids"][0, 1:-1]) == statement
    with evaluating(model):
        model.encode(**task.inputs(batch))
        longest = task.collate([(*task.dataset(data)[0][:2], [Statement("circle " * 97, True, "0")])])
        assert model.encode(**task.inputs(longest)).trace.tower("text")[0].tokens_in.tolist() == [63]


def test_left_and_right_are_told_apart(data: Data[PairSample]) -> None:
    task, model = nano_task("reasoning"), nano("reasoning")
    swapped = replace(data, samples=tuple(replace(s, images=s.images[::-1]) for s in data.samples))
    with evaluating(model):
        one, other = (model.classify(model.encode(**task.inputs(collated(x)))) for x in (data, swapped))
    assert not torch.allclose(one[:2], other[:2], atol=1e-3)
    assert torch.allclose(one[2:4], other[2:4], atol=1e-6), "one picture for both sides has no other order"


def test_a_statement_of_unknown_truth_adds_no_loss(data: Data[PairSample]) -> None:
    task, model, batch = nano_task("reasoning"), nano("reasoning"), collated(data)
    hidden = {**batch, "labels": batch["labels"].index_fill(0, torch.tensor([1, 3]), -100)}
    logits = model(**task.inputs(batch)).logits
    known = torch.tensor([0, 2, 4])
    expected = torch.nn.functional.cross_entropy(logits[known], batch["labels"][known])
    loss, logs, trace = task.loss(model, hidden)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6) == pytest.approx(logs["loss_task"])
    assert trace.tower("vision")[0].tokens_in.tolist() == [PATCHES] * 5


def test_the_alignment_joins_where_the_model_prunes(data: Data[PairSample]) -> None:
    loss, logs, _ = nano_task("reasoning").loss(nano("reasoning", temperature=2.0, alpha=0.3), collated(data))
    assert set(logs) == {"loss_task", "loss_align"}
    assert float(loss.detach()) == pytest.approx(logs["loss_task"] + 0.3 * logs["loss_align"], rel=1e-6)


def test_a_judgement_is_the_larger_logit(data: Data[PairSample]) -> None:
    task, batch = nano_task("reasoning"), collated(data)
    model = nano("reasoning", temperature=2.0)
    with torch.no_grad():  # halfway between the statements, so that both judgements occur
        logits = model.classify(model.encode(**task.inputs(batch)))
        model.cls_head[-1].bias[1] -= (logits[:, 1] - logits[:, 0]).median() - 1e-3
    with evaluating(model):
        predictions, encoded = task.predict(model, batch)
        logits = model.classify(encoded)
    assert [p.answer == "true" for p in predictions] == (logits[:, 1] > logits[:, 0]).tolist()
    assert {p.answer for p in predictions} == {"true", "false"}
    assert [p.truth for p in predictions] == batch["texts"]
    assert [(p.image_id, p.objects) for p in predictions] == [(s.image_id, s.objects) for s in batch["owners"]]


def judged(answer: str, label: bool | None, group: str = "", number: str = "0") -> Prediction:
    return Prediction(number, "", answer, Statement("", label, number, group), "a", None)


def test_figures_are_of_statements_whose_truth_is_known() -> None:
    task = nano_task("reasoning")
    some = [judged("true", True, "g"), judged("true", False, "g"), judged("false", False, "h"), judged("true", None)]
    assert task.finish(None, some).metrics == pytest.approx({"accuracy": 2 / 3, "consistency": 1 / 2})
    assert task.finish(None, some[3:]).metrics == task.finish(None, []).metrics == {}
    assert [task.words_for(p) for p in some[1:]] == [("true", "false"), ("false", "false"), ("true", "")]


def test_predictions_in_nlvr2s_format(tmp_path: Path) -> None:
    predictions = [judged("true", None, number="test1-0-0-0"), judged("false", True, number="test1-0-0-1")]
    nano_task("reasoning").write(tmp_path / "out.csv", Scored(predictions))
    assert (tmp_path / "out.csv").read_text() == "test1-0-0-0,True\ntest1-0-0-1,False\n"


def test_an_example_is_one_picture_or_two(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{colour}.png") for colour in ("red", "blue", "green")]
    for file in files:
        Image.new("RGB", (31, 17), Path(file).stem).save(file)
    task, model = nano_task("reasoning"), nano("reasoning")
    for some, index in ((files[:2], [[0, 1]]), (files[:1], [[0, 0]])):
        batch = task.collate([task.example(some, "there is a circle")])
        assert batch["image_index"].tolist() == index and len(batch["pixel_values"]) == len(some)
        ((prediction,), _) = task.predict(model, batch)
        assert prediction.answer in ("true", "false") and task.finish(None, [prediction]).metrics == {}
    for some in ([], files):
        with pytest.raises(InputError, match=rf"--image: {len(some)} images for one reasoning example; give 1 to 2"):
            task.example(some, "there is a circle")


def test_statements_are_no_tags(data: Data[PairSample]) -> None:
    with pytest.raises(InputError, match="--tag-epochs: the texts of reasoning do not say what is in a picture"):
        nano_task("reasoning").tagging_loss(nano("reasoning"), collated(data))
