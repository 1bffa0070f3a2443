"""The retrieval task: ids of captions, the gallery, re-ranking against a full computation, what training has beside."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from madtp.data.sample import CaptionSample, Data
from madtp.errors import InputError
from madtp.evaluate import evaluate, evaluating
from small import NANO, nano, nano_task, samples

BOTH = pytest.mark.parametrize("kind", ["retrieval", "clip"])


@pytest.fixture(scope="module")
def data() -> Data[CaptionSample]:
    """Five pictures: the first has one caption twice, the third and the fourth have none."""
    some = list(samples("retrieval", "test", 5).samples)
    some[0] = replace(some[0], captions=(some[0].captions[0],) * 2)
    some[2], some[3] = (replace(sample, captions=()) for sample in some[2:4])
    return replace(samples("retrieval", "test", 5), samples=tuple(some))


def collated(task: Any, data: Data[CaptionSample], *places: int) -> dict[str, Any]:
    dataset = task.dataset(data)
    made: dict[str, Any] = task.collate([dataset[i] for i in places or range(len(data))])
    return made


@BOTH
def test_a_batch_holds_pictures_once_and_their_captions_in_order(kind: str, data: Data[CaptionSample]) -> None:
    task = nano_task(kind)
    batch = collated(task, data)
    assert batch["pixel_values"].shape == (5, 3, NANO.image, NANO.image)
    assert batch["image_index"].tolist() == [0, 0, 1, 1, 4, 4]
    assert batch["text_ids"] == ["0#0", "0#1", "1#0", "1#1", "4#0", "4#1"], "the same words twice are two captions"
    first, last = (("[CLS]", "[SEP]"), ("<|startoftext|>", "<|endoftext|>"))[kind == "clip"]
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        words = task.tokenizer.convert_ids_to_tokens(ids[mask == 1].tolist())
        assert (words[0], words[-1]) == (first, last)


@BOTH
def test_an_answer_says_how_well_a_caption_goes_with_its_picture(kind: str, data: Data[CaptionSample]) -> None:
    task, model = nano_task(kind), nano(kind, temperature=2.0)
    with evaluating(model):
        predictions, _ = task.predict(model, collated(task, data))
        for p in (p for p in predictions if p.text):
            alone = collated(task, replace(data, samples=(replace(data[int(p.image_id)], captions=(p.text,)),)))
            if kind == "clip":
                output = model(**task.inputs(alone))
                value, word = float(output.image_embeds[0] @ output.text_embeds[0]), "similarity"
            else:
                logits = model.encode(**task.inputs(alone)).logits[0].tolist()
                value, word = 1 / (1 + math.exp(logits[0] - logits[1])), "match"
            said, number = p.answer.split()
            assert said == word and float(number) == pytest.approx(value, abs=0.0051)
            assert task.words_for(p) == (p.answer, ""), "of the others nothing is known yet"
    assert [p.image_id for p in predictions] == ["0", "0", "1", "1", "2", "3", "4", "4"], "in the data's order"


def by_hand(scores: torch.Tensor, owner: list[int]) -> dict[str, float]:
    """Recalls of `scores [pictures, captions]`, read off one whole row or column at a time."""
    places = {
        "txt": [[owner[j] == i for j in scores[i].argsort(descending=True)] for i in sorted(set(owner))],
        "img": [[i == owner[j] for i in scores[:, j].argsort(descending=True)] for j in range(len(owner))],
    }
    return {
        f"{way}_r{k}": sum(any(row[:k]) for row in rows) / len(rows) for way, rows in places.items() for k in (1, 5)
    }


@BOTH
@pytest.mark.parametrize("batch_size", [1, 3])
def test_pictures_without_captions_are_distractors(kind: str, batch_size: int, data: Data[CaptionSample]) -> None:
    """Batches of one hold no caption at all at times; every score is of a whole table worked out at once."""
    task, model = nano_task(kind).quick(), nano(kind, temperature=2.0)
    result = evaluate(model, task, data, batch_size=batch_size)
    with evaluating(model):
        inputs = {key: value for key, value in task.inputs(collated(task, data)).items() if "match" not in key}
        paired = model.encode(**inputs)
    scores = paired.image.feature @ paired.text.feature.T
    scores = scores - torch.tensor([0, 1e-6, 0, 0, 0, 0])  # of the two that are the same the first one is the better
    owner = [0, 0, 1, 1, 4, 4]
    assert {key: result.metrics[key] for key in by_hand(scores, owner)} == pytest.approx(by_hand(scores, owner))
    assert [p.answer for p in result.predictions] == [str(i) for i in scores.argmax(0).tolist()]
    assert [p.truth for p in result.predictions] == [str(i) for i in owner]
    assert len(result.gflops) == len(result.kept) == 6, "cost is of the captions"


@pytest.mark.parametrize("k_test", [7, 128])
def test_ranking_all_anew_is_the_full_computation(k_test: int, data: Data[CaptionSample]) -> None:
    task, model = nano_task("retrieval", k_test=k_test), nano("retrieval", temperature=2.0)
    result = evaluate(model, task, data, batch_size=3)
    texts = [caption for sample in data for caption in sample.captions]
    with evaluating(model):
        batch = collated(task, data)
        image, text = model.see(batch["pixel_values"]), model.read(batch["input_ids"], batch["attention_mask"])
        scores = image.feature @ text.feature.T
        for j, caption in enumerate(texts):
            ids, mask = task.texts.looking([caption])
            for i in range(5):
                logits, _ = model.match(image.tokens.select(torch.tensor([i])), torch.tensor([0]), ids, mask)
                scores[i, j] += logits[0, 1]
    scores = scores - torch.tensor([0, 1e-6, 0, 0, 0, 0])  # of the two that are the same the first one is the better
    owner = [0, 0, 1, 1, 4, 4]
    assert {key: result.metrics[key] for key in by_hand(scores, owner)} == pytest.approx(by_hand(scores, owner))
    assert [p.answer for p in result.predictions] == [str(i) for i in scores.argmax(0).tolist()]
    features = evaluate(model, task.quick(), data)
    assert [p.answer for p in features.predictions] != [p.answer for p in result.predictions], "the head has a say"
    assert task.k_test == k_test, "being quick leaves the task as it was"


def test_only_candidates_are_ranked_anew(data: Data[CaptionSample]) -> None:
    """With one candidate each the order is that of the features, whatever the head says of it."""
    model = nano("retrieval", temperature=2.0)
    one, features = (evaluate(model, nano_task("retrieval", k_test=k), data) for k in (1, 0))
    assert [p.answer for p in one.predictions] == [p.answer for p in features.predictions]
    assert [result.to_dict()["scoring"] for result in (one, features)] == [{"k_test": 1}, {"k_test": 0}]


@BOTH
def test_rankings_are_written_both_ways(kind: str, data: Data[CaptionSample], tmp_path: Path) -> None:
    task = nano_task(kind)
    result = evaluate(nano(kind), task, data)
    task.write(tmp_path / "out.json", result.scored)
    table = json.loads((tmp_path / "out.json").read_text())
    assert table.keys() == {"image_to_text", "text_to_image"}
    numbers = ["0#0", "0#1", "1#0", "1#1", "4#0", "4#1"]
    assert list(table["image_to_text"]) == ["0", "1", "2", "3", "4"] and list(table["text_to_image"]) == numbers
    assert all(sorted(found) == numbers for found in table["image_to_text"].values())
    assert all(sorted(found) == ["0", "1", "2", "3", "4"] for found in table["text_to_image"].values())
    assert [task.words_for(p) for p in result.predictions] == [
        (table["text_to_image"][p.id][0], p.image_id) for p in result.predictions
    ]


@BOTH
def test_without_any_caption_there_is_nothing_to_evaluate(kind: str, data: Data[CaptionSample]) -> None:
    with pytest.raises(InputError, match="scenes:3:8000 test: holds no captions; evaluate another split"):
        evaluate(nano(kind), nano_task(kind), data[2:4])


def test_clip_has_nothing_to_rank_anew_with() -> None:
    with pytest.raises(InputError, match="--k-test: CLIP has no matching head to re-rank with; leave it out"):
        nano_task("clip", k_test=3)
    assert nano_task("clip", k_test=0).k_test == nano_task("clip").k_test == 0


@BOTH
def test_training_draws_one_caption_of_a_picture_and_numbers_the_pictures(kind: str) -> None:
    task, data = nano_task(kind), samples("retrieval", "train", 5)
    dataset = task.dataset(data, training=True, per_image=2)
    batch = task.collate([dataset[i] for i in (3, 1)])
    assert batch["image_index"].tolist() == [0, 1] and batch["image_ids"].tolist() == [3, 1]
    drawn = set()
    for epoch in range(20):
        dataset.epoch = epoch
        drawn |= set(dataset[2][2])
    assert drawn == set(data[2].captions)


@BOTH
def test_the_loss_is_the_helpers_sum(kind: str) -> None:
    task, model = nano_task(kind, queue=7), nano(kind, temperature=2.0, alpha=0.3)
    dataset = task.dataset(samples("retrieval", "train", 3), training=True)
    helper = task.helper(model, seed=5, ramp=3)
    loss, logs, trace = task.loss(model, task.collate([dataset[i] for i in range(3)]), helper)
    parts = {"loss_itc", "loss_align", "loss_align_momentum"} | ({"loss_itm"} if kind == "retrieval" else set())
    assert set(logs) == parts
    plain = sum(value for name, value in logs.items() if "align" not in name)
    aligned = logs["loss_align"] + logs["loss_align_momentum"]
    assert float(loss.detach()) == pytest.approx(plain + 0.3 * aligned, rel=1e-6)
    assert int(helper.queue.pushed) == 3
    assert {b.tower for b in trace.blocks} == {"vision", "text"} | ({"match"} if kind == "retrieval" else set())


@BOTH
def test_no_momentum_means_no_towers_and_no_queue(kind: str) -> None:
    task = nano_task(kind, momentum=0, queue=7)
    helper = task.helper(nano(kind), seed=5, ramp=3)
    assert helper.towers is None and len(helper.queue.ids) == 0
    assert task.settings() == {"momentum": 0, "queue": 7}


def test_the_contrast_of_clip_starts_from_its_own_temperature() -> None:
    model = nano("clip")
    model.logit_scale.data.fill_(math.log(43.0))
    assert float(nano_task("clip").helper(model, 0, 1).temp.detach()) == pytest.approx(1 / 43)
    assert float(nano_task("retrieval").helper(nano("retrieval"), 0, 1).temp.detach()) == pytest.approx(0.07)


@BOTH
def test_an_example_is_one_picture_and_a_caption(kind: str, tmp_path: Path) -> None:
    file = str(tmp_path / "red.png")
    Image.new("RGB", (31, 17), "red").save(file)
    task = nano_task(kind)
    batch = task.collate([task.example([file], "a red circle")])
    ((prediction,), _) = task.predict(nano(kind), batch)
    assert prediction.id == f"{file}#0" and prediction.answer.split()[0] in ("match", "similarity")
    with pytest.raises(InputError, match="--image: 2 images for one retrieval example; give one"):
        task.example([file, file], "a red circle")
