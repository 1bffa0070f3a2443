"""The captioning task: the prompt before every caption and in no answer, one answer a picture, COCO's figures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from madtp.data.sample import CaptionSample, Data
from madtp.errors import InputError
from madtp.evaluate import evaluating
from madtp.model.decoding import count_generated
from madtp.prune import Trace
from madtp.task.base import Prediction, Scored
from madtp.task.caption import CaptionTask
from small import NANO, PATCHES, nano, nano_task, samples


@pytest.fixture(scope="module")
def data() -> Data[CaptionSample]:
    """Three pictures with two captions, none and one."""
    first, second, third = samples("caption", "test", 3).samples
    some = (first, replace(second, captions=()), replace(third, captions=third.captions[:1]))
    return replace(samples("caption", "test", 3), samples=some)


def collated(data: Data[CaptionSample], task: CaptionTask | None = None) -> dict[str, Any]:
    task = task or nano_task("caption")
    dataset = task.dataset(data)
    return task.collate([dataset[i] for i in range(len(data))])


def spoken(task: CaptionTask, ids: torch.Tensor) -> str:
    return str(task.tokenizer.decode(ids[ids >= 0], skip_special_tokens=False))


@pytest.mark.parametrize(("prompt", "tokens"), [("a picture of", 4), ("", 1), ("  A  Picture: ", 4)])
def test_no_loss_is_taken_on_the_prompt(prompt: str, tokens: int, data: Data[CaptionSample]) -> None:
    task = CaptionTask(nano_task("caption").processor, prompt)
    batch = collated(data, task)
    captions = [caption for sample in data for caption in sample.captions]
    assert batch["texts"] == captions and batch["image_index"].tolist() == [0, 0, 2]
    assert task.prompt_tokens == tokens
    for ids, mask, labels, caption in zip(
        *(batch[k] for k in ("input_ids", "attention_mask", "labels")), captions, strict=True
    ):
        whole = " ".join(f"[DEC] {prompt} {caption} [SEP]".lower().split())
        assert spoken(task, ids[mask == 1]).lower().replace(" ", "") == whole.replace(" ", "")
        assert labels[:tokens].tolist() == [-100] * tokens
        assert torch.equal(labels[tokens:][mask[tokens:] == 1], ids[tokens:][mask[tokens:] == 1])
        assert (labels[mask == 0] == -100).all()


@pytest.mark.parametrize("prompt", ["a picture of", "", "  A  Picture: "])
@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_is_what_follows_the_prompt(prompt: str, beams: int, data: Data[CaptionSample]) -> None:
    """In any case and spacing of the prompt, which the tokenizer does not keep."""
    task = CaptionTask(nano_task("caption").processor, prompt, beams, longest=11)
    model = nano("caption", temperature=2.0)
    batch = collated(data, task)
    with evaluating(model):
        predictions, encoded = task.predict(model, batch)
        ids = model.generate(
            batch["pixel_values"],
            task.texts.said([task.prompt] * 3)[0],
            num_beams=beams,
            do_sample=False,
            max_length=11,
            min_length=5,
        )
    bare = [row[task.prompt_tokens :] for row in ids]
    assert [p.answer for p in predictions] == [task.tokenizer.decode(row, skip_special_tokens=True) for row in bare]
    assert [(p.id, p.text, p.truth) for p in predictions] == [(s.image_id, "", s.captions) for s in data]
    assert encoded.trace.image_index.tolist() == [0, 1, 2]
    assert all(p.answer and not p.answer.startswith("a picture") for p in predictions)


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    processor = nano_task("caption").processor
    assert CaptionTask(processor, "a " * 27).prompt_tokens == 28
    with pytest.raises(InputError, match="--prompt: has 29 tokens; 28 leave room for a caption"):
        CaptionTask(processor, "a " * 28)


def test_the_loss_is_the_decoders_alone(data: Data[CaptionSample]) -> None:
    task = nano_task("caption")
    loss, logs, trace = task.loss(nano("caption", temperature=2.0), collated(data))
    assert logs == {"loss_task": float(loss.detach())} and loss.requires_grad
    assert {block.tower for block in trace.blocks} == {"vision"}
    assert trace.blocks[0].tokens_in.tolist() == [PATCHES] * 3


def test_expected_captions_are_the_first_of_each_picture(data: Data[CaptionSample]) -> None:
    """As `generate` counts them, every beam as long as the first caption; an unknown one is as long as may be."""
    task, model, batch = nano_task("caption", longest=17, beams=3), nano("caption"), collated(data)
    first, _, third = batch["attention_mask"].sum(1).tolist()
    trace = task.expect(task.trace(model, batch), batch)
    steps = [first - 1, 16, third - 1]
    counted = Trace()
    lengths, prompt = torch.tensor(steps)[:, None] + 1, torch.full((3,), task.prompt_tokens)
    count_generated(counted, lengths, prompt, beams=3)
    for name in ("decoder_tokens", "decoder_pairs", "decoder_sequences", "decoder_logits"):
        assert getattr(trace, name).tolist() == getattr(counted, name).tolist(), name
    assert trace.image_index.tolist() == [0, 1, 2]


def said(answer: str, *truth: str, number: str = "7") -> Prediction:
    return Prediction(number, "", answer, truth, number, None)


def test_figures_are_of_pictures_with_captions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java, which takes its time
    task = nano_task("caption").quick()
    right = [said("a red circle on the left", "a red circle on the left"), said("two squares", "two squares")]
    given = [*right, said("anything")]
    scored = task.finish(None, given)
    scores, scoring = scored.metrics, scored.scoring
    assert scored.predictions == given and scores["bleu1"] == pytest.approx(1) and scores["cider"] > 1
    assert not {"meteor", "spice"} & set(scores)
    assert scoring["tokenizer"] == "simple" and set(scoring["left_out"]) == {"ptb"}
    assert task.finish(None, [said("anything")]) == Scored([said("anything")])
    assert [task.words_for(p)[1] for p in (right[1], said("anything"))] == ["two squares", ""]


def test_being_quick_leaves_the_task_as_it_was() -> None:
    task = nano_task("caption", prompt="there is")
    assert not task.quick().slow and task.quick().prompt == "there is"
    task.dataset(samples("caption", "train", 2), training=True)
    assert task.slow


def test_predictions_in_cocos_format(tmp_path: Path) -> None:
    predictions = [said("a circle", number="COCO_val2014_000000000042.jpg"), said("a square", number="scene")]
    nano_task("caption").write(tmp_path / "out.json", Scored(predictions))
    expected = [{"image_id": 42, "caption": "a circle"}, {"image_id": "scene", "caption": "a square"}]
    assert json.loads((tmp_path / "out.json").read_text()) == expected


def test_an_example_is_one_picture(tmp_path: Path) -> None:
    file = str(tmp_path / "red.png")
    Image.new("RGB", (31, 17), "red").save(file)
    task = nano_task("caption", longest=7, beams=1)
    batch = task.collate([task.example([file], "")])
    assert batch["pixel_values"].shape == (1, 3, NANO.image, NANO.image) and batch["texts"] == []
    ((prediction,), _) = task.predict(nano("caption"), batch)
    assert prediction.answer and prediction.id == file
    with pytest.raises(InputError, match="--image: 2 images for one caption example; give one"):
        task.example([file, file], "")


def test_a_run_with_other_beams_or_another_prompt_is_another() -> None:
    assert nano_task("caption", beams=2, prompt="a photo").settings() == {"beams": 2, "prompt": "a photo"}
