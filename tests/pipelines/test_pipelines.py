"""`madtp.pipeline`: the calls that users of transformers' pipelines know, on every family, in batches of any size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import madtp
from madtp.data.images import ImageFile
from madtp.errors import InputError
from madtp.evaluate import evaluating, to_device
from pipelines.stock import LABELS, QUESTION, STATEMENT, TEMPERATURE, close, folder, pictures
from small import KINDS, nano, nano_processor, nano_task


def made(kind: str, **options: Any) -> Any:
    return madtp.pipeline(None, nano(kind, temperature=TEMPERATURE), nano_processor(kind), **options)


def call(kind: str, pipe: Any, images: list[Any], **options: Any) -> Any:
    """One result an image."""
    if kind == "vqa":
        return pipe(images, QUESTION, **options)
    if kind == "reasoning":
        return pipe([{"images": [image, images[0]], "statement": STATEMENT} for image in images], **options)
    if kind == "caption":
        return pipe(images, **options)
    return pipe(images, LABELS, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_1_and_7_agree_and_nothing_is_pruned_away(kind: str) -> None:
    one, seven = call(kind, made(kind), pictures()), call(kind, made(kind, batch_size=7), pictures())
    assert len(one) == 7 and close(one, seven)
    assert close(one, call(kind, made(kind), pictures(), batch_size=3))
    assert len({str(result) for result in one}) > 1, "pictures make a difference"


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_a_url_and_an_image_are_the_same_picture(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a picture.png"
    pictures()[1].save(file)
    forms = [file, str(file), file.as_uri(), f"file://localhost{file.as_uri()[7:]}", pictures()[1], ImageFile(file)]
    results = call(kind, made(kind), [pictures()[0], *forms])[1:]
    assert len(results) == 6 and all(close(results[0], other) for other in results)


@pytest.mark.parametrize("kind", ["vqa", "reasoning", "caption"])
def test_answers_are_those_of_predict(kind: str) -> None:
    model, task = nano(kind, temperature=TEMPERATURE), nano_task(kind)
    from madtp.data.images import ImageHeld

    text = {"vqa": QUESTION, "reasoning": STATEMENT, "caption": ""}[kind]
    expected = []
    with evaluating(model):
        for image in pictures():
            images = [ImageHeld(image), ImageHeld(pictures()[0])] if kind == "reasoning" else [ImageHeld(image)]
            batch = to_device(task.collate([task.example(images, text)]), model.device)
            expected.append(task.predict(model, batch)[0][0].answer)
    got = [result[0] for result in call(kind, made(kind, batch_size=7), pictures())]
    assert [one.get("answer", one.get("generated_text")) for one in got] == expected


def test_many_questions_about_one_picture_are_as_each_alone() -> None:
    pipe, asked = made("vqa", batch_size=3), [QUESTION, "how many squares are there?", "is there a circle?"]
    together = pipe(pictures()[0], asked)
    assert together == [pipe(pictures()[0], question) for question in asked]
    pairs = [{"image": image, "question": text} for image in pictures()[:2] for text in asked]
    assert pipe(pairs)[:3] == together and len(pipe(pairs)) == 6
    assert pipe(pairs[0]) == together[0] and pipe(image=pairs[0]["image"], question=QUESTION, top_k=5) == together[0]


def test_many_questions_of_one_picture_run_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, ran = made("vqa", batch_size=7), []
    encode = pipe.model.encode
    monkeypatch.setattr(pipe.model, "encode", lambda **k: (ran.append(len(k["pixel_values"])), encode(**k))[1])
    pipe(pictures()[0], [QUESTION] * 5)
    assert ran == [1]


def test_choices_are_ranked() -> None:
    pipe = made("vqa")
    (result,) = pipe(pictures()[0], QUESTION, choices=["red", "green"])
    task = nano_task("vqa", inference="rank")
    batch = task.collate([task.example([_held(0)], QUESTION)])
    assert result["answer"] == task.predict(pipe.model, batch, ["red", "green"])[0][0].answer


def _held(number: int) -> Any:
    from madtp.data.images import ImageHeld

    return ImageHeld(pictures()[number])


def test_iterators_and_data_sets_come_one_by_one() -> None:
    taken = []

    class Seven(Dataset):
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> Any:
            taken.append(index)
            return pictures()[index]

    pipe = made("caption", batch_size=2)
    results = pipe(Seven())
    first = next(results)
    assert taken == [0, 1], "no more than a batch is looked at"
    assert [first, *results] == pipe(pictures()) == list(pipe(iter(pictures())))
    assert list(pipe(iter([]))) == [] and pipe([]) == []


def test_captions_go_on_a_prompt_and_end_in_time() -> None:
    pipe = made("caption")
    ((plain,), (shown,)) = pipe(pictures()[0]), pipe(pictures()[0], "a picture of")
    assert shown["generated_text"] == f"a picture of {plain['generated_text']}"
    short = pipe(pictures()[0], max_new_tokens=3)[0]["generated_text"]
    assert 0 < len(short) < len(plain["generated_text"])
    assert pipe(pictures()[0], generate_kwargs={"num_beams": 3}) == [plain]
    with pytest.raises(InputError, match="top_p is not known; use num_beams"):
        pipe(pictures()[0], generate_kwargs={"top_p": 0.5})


@pytest.mark.parametrize("kind", ["retrieval", "clip"])
def test_features_rank_as_the_model_does(kind: str) -> None:
    pipe = made(kind, batch_size=3)
    images, texts = pipe.embed(pictures()), pipe.embed(texts=LABELS)
    assert images.shape == (7, pipe.model.feature_width) and texts.shape == (3, pipe.model.feature_width)
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(7))
    torch.testing.assert_close(pipe.embed(pictures()[0]), images[:1])
    assert pipe.embed([]).shape == (0, pipe.model.feature_width)
    cosines = images @ texts.T
    task = nano_task(kind)
    batch = task.collate([task.example([_held(2)], *LABELS)])
    with evaluating(pipe.model):
        paired = pipe.model.encode(**task.inputs(batch))
    torch.testing.assert_close(cosines[2], (paired.image.feature @ paired.text.feature.T)[0])
    found = {one["label"]: one["score"] for one in pipe(pictures()[2], LABELS)}
    if kind == "clip":
        shares = (cosines[2] * pipe.model.logit_scale.exp()).softmax(-1)
    else:
        shares = paired.logits.softmax(-1)[:, 1]
    torch.testing.assert_close(torch.tensor([found[label] for label in LABELS]), shares.detach())


def test_labels_may_repeat_and_have_a_template() -> None:
    pipe = made("clip")
    results = pipe(pictures()[0], ["circle", "circle"], hypothesis_template="a red {}")
    assert [one["label"] for one in results] == ["circle", "circle"]
    assert results[0]["score"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("task", "kind"),
    [("visual-question-answering", "vqa"), ("image-to-text", "caption"), ("zero-shot-image-classification", "clip")],
)
def test_the_names_of_transformers_are_known(task: str, kind: str, tmp_path: Path) -> None:
    pipe = madtp.pipeline(task, folder(kind, tmp_path), device="cpu", dtype=torch.float32)
    assert pipe.model.temperature == TEMPERATURE and not pipe.model.training
    assert close(call(kind, pipe, pictures()[:2]), call(kind, made(kind), pictures()[:2]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": None}, "model: is missing"),
        ({"task": "dance"}, "unknown task 'dance'"),
        ({"task": "caption"}, "is a model for vqa, not for caption"),
        ({"model": "./none"}, "no such folder"),
        ({"processor": None}, "processor: is missing"),
        ({"batch_size": 0}, "batch_size: 0 pictures are none"),
        ({"k_test": 3}, "--k-test is nothing for vqa"),
    ],
)
def test_wrong_making_is_told(arguments: dict[str, Any], said: str) -> None:
    given = {"task": "vqa", "model": nano("vqa"), "processor": nano_processor("vqa"), **arguments}
    with pytest.raises(InputError, match=said):
        madtp.pipeline(**given)


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        ("vqa", ("http://example.org/a.png", QUESTION), "is not a file of this machine; download it first"),
        ("vqa", ("file://server/a.png", QUESTION), "is not a file of this machine"),
        ("vqa", ("none.png", QUESTION), "none.png: no such image"),
        ("vqa", (17, QUESTION), "is a int, not a picture"),
        ("vqa", (None, QUESTION), "is no image with its question"),
        ("vqa", ("a.png",), "is no image with its question"),
        ("vqa", ("a.png", "  "), "question: is empty"),
        ("vqa", ("a.png", "\ud800"), "question: holds half a character"),
        ("vqa", (["a.png"], ["what?"]), "are both lists"),
        ("reasoning", ("a.png",), "is no images with its statement"),
        ("reasoning", (["a.png"] * 3, STATEMENT), "3 images for one reasoning example"),
        ("clip", ("a.png", []), "candidate_labels: there are none"),
        ("clip", ("a.png", ["x", ""]), "candidate_labels: is empty"),
    ],
)
def test_wrong_input_is_told(kind: str, arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(kind)(*arguments)


def test_embedding_needs_one_of_both() -> None:
    for arguments in ({}, {"images": pictures(), "texts": LABELS}):
        with pytest.raises(InputError, match="give images or texts"):
            made("clip").embed(**arguments)
