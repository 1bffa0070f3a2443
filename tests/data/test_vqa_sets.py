"""VQAv2 and Visual Genome, in official files and in BLIP's, alone and joined."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from madtp.cli.main import run
from madtp.data import load_data
from madtp.data.answers import build_answers
from madtp.data.vqa import weighted
from madtp.errors import InputError

HUMAN = ["yes", "no", "yes", "Yes", "no", "yes", "no", "no", "maybe", ""]


def annotation(question: int, image: int, answers: list[str], best: str) -> dict[str, object]:
    listed = [{"answer": a, "answer_confidence": "yes", "answer_id": k} for k, a in enumerate(answers, start=1)]
    kinds = {"question_type": "is the", "answer_type": "yes/no", "multiple_choice_answer": best}
    return {"question_id": question, "image_id": image, "answers": listed, **kinds}


@pytest.fixture
def vqav2(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> Path:
    for split, image in (("train2014", 9), ("val2014", 42), ("test2015", 1)):
        asked = [
            {"image_id": image, "question": "Is the  dog\nblack?", "question_id": 1000 * image},
            {"image_id": image + 2, "question": "Is it?", "question_id": 1000 * image + 2},
            {"image_id": image, "question": "What is it?", "question_id": 1000 * image + 1},
        ]
        write(f"toy/v2_OpenEnded_mscoco_{split}_questions.json", {"data_subtype": split, "questions": asked})
        paint(*(f"toy/{split}/COCO_{split}_{number:012d}.jpg" for number in (image, image + 2)))
        if split != "test2015":
            rows = [annotation(1000 * image + k, image + 2 * (k == 2), HUMAN, "yes") for k in (2, 1, 0)]
            write(f"toy/v2_mscoco_{split}_annotations.json", {"annotations": rows})
    return root / "toy"


def test_vqav2(vqav2: Path) -> None:
    data = load_data("vqa", vqav2, "val")
    assert [sample.image_id for sample in data] == ["42", "44"]
    assert [q.question_id for sample in data for q in sample.questions] == ["42000", "42001", "42002"]
    question = data[0].questions[0]
    assert (question.text, question.kind, question.answer_kind) == ("Is the dog black?", "is the", "yes/no")
    # As in BLIP, what people wrote is not normalised: "Yes" is another answer than "yes".
    assert question.answers == ("no", "yes", "Yes", "maybe")
    assert question.weights == pytest.approx((4 / 9, 3 / 9, 1 / 9, 1 / 9))
    assert question.references == tuple(HUMAN)
    assert data[0].image.open().size == (5, 7)


def test_ties_go_to_the_answer_that_the_set_names() -> None:
    assert weighted(["b", "a", "b", "a", "c"], "a")[0] == ("a", "b", "c")
    assert weighted(["b", "a", "b", "a", "c"])[0] == ("b", "a", "c")


def test_test_questions_can_be_predicted_but_are_known_to_have_no_answers(vqav2: Path) -> None:
    data = load_data("vqa", vqav2, "test")
    assert (data.n_texts, data.hidden) == (3, 3)
    assert data[0].questions[0].answers == data[0].questions[0].references == ()
    assert load_data("vqa", vqav2, "train").hidden == 0
    for place in vqav2.glob("*test2015*"):  # test-dev's questions are about test2015's pictures
        if place.is_file():
            place.rename(str(place).replace("test2015", "test-dev2015"))
    assert load_data("vqa", vqav2, "test").samples == data.samples


def test_a_file_that_lies_in_a_folder_of_annotations(vqav2: Path, write: Callable[..., Path]) -> None:
    """Pictures, and the list of answers, beside that folder."""
    (vqav2 / "annotations").mkdir()
    for file in vqav2.glob("v2_*.json"):
        file.rename(vqav2 / "annotations" / file.name)
    write("toy/answer_list.json", ["yes", "no"])
    whole = load_data("vqa", vqav2, "val")
    data = load_data("vqa", vqav2 / "annotations" / "v2_OpenEnded_mscoco_val2014_questions.json", "val")
    assert data.samples == whole.samples
    assert data.answers == whole.answers == ("yes", "no")


def test_vqav2_faults(vqav2: Path, write: Callable[..., Path]) -> None:
    name = "toy/v2_mscoco_val2014_annotations.json"
    write(name, {"annotations": [annotation(42000, 42, HUMAN, "yes")]})
    with pytest.raises(InputError, match=r"val2014_annotations\.json: questions that have no answers: 2: 42002, 42001"):
        load_data("vqa", vqav2, "val")
    write(name, {"annotations": [annotation(42000 + k, 42, [""] * 10, "yes") for k in range(3)]})
    with pytest.raises(InputError, match="entry 0: has only blank answers"):
        load_data("vqa", vqav2, "val")
    (vqav2 / Path(name).name).unlink()
    with pytest.raises(InputError, match=r"val2014_annotations\.json: no such file"):
        load_data("vqa", vqav2, "val")
    write("toy/v2_OpenEnded_mscoco_test2015_questions.json", {"questions": [{"image_id": "a", "question": "Is it?"}]})
    with pytest.raises(InputError, match="entry 0: has no 'question_id'"):
        load_data("vqa", vqav2, "test")
    row = {"image_id": "a", "question_id": 1, "question": "Is it?"}
    write("toy/v2_OpenEnded_mscoco_test2015_questions.json", {"questions": [row]})
    with pytest.raises(InputError, match="entry 0: the image id is 'a'; expected COCO's number"):
        load_data("vqa", vqav2, "test")
    (vqav2 / "train2014" / "COCO_train2014_000000000011.jpg").unlink()
    with pytest.raises(InputError, match=r"missing: 1: train2014/COCO_train2014_000000000011\.jpg"):
        load_data("vqa", vqav2, "train")
    assert len(load_data("vqa", vqav2, "train", skip_missing=True)) == 1


@pytest.fixture
def vg(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> Path:
    asked = [{"question": "What color?", "image_id": 9, "qa_id": 9000, "answer": "Dark Green.", "a_objects": []}]
    write("vg/question_answers.json", [{"id": 9, "qas": asked}, {"id": 11, "qas": []}])
    paint("vg/VG_100K_2/9.jpg")
    return root / "vg"


def test_visual_genome_helps_in_training(vqav2: Path, vg: Path) -> None:
    (sample,) = load_data("vqa", vg, "train")
    (question,) = sample.questions
    assert (question.answers, question.weights, question.references) == (("dark green",), (0.2,), ())
    for split in ("val", "test"):
        with pytest.raises(InputError, match=f"Visual Genome has no split '{split}'; join it with"):
            load_data("vqa", vg, split)
    both = load_data("vqa", f"{vqav2},{vg}/", "train")
    assert [sample.image_id for sample in both] == ["9", "11", "vg-9"]
    assert (both.name, both.n_texts) == ("toy+vg", 4)
    assert [s.image_id for s in load_data("vqa", f"{vqav2},{vg}", "train", limit=2)] == ["9", "11"]
    assert load_data("vqa", f"{vqav2}, {vg}", "val").samples == load_data("vqa", vqav2, "val").samples
    with pytest.raises(InputError, match="pictures of the same name in several sources: 2: 9, 11"):
        load_data("vqa", f"{vqav2},{vqav2}", "train")


def test_blip(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    name = "val2014/COCO_val2014_000000000042.jpg"
    row = {"question": "Is it?", "image": name, "question_id": 42000, "dataset": "vqa"}
    write("vqa_val.json", [{**row, "answer": ["yes", "no", "yes"]}])
    write("vqa_test.json", [row])
    write("vqa_train.json", [row])
    write("vg_qa.json", [{"question": "What?", "answer": "Grass.", "image": "VG_100K/42.jpg", "dataset": "vg"}])
    write("answer_list.json", ["yes", "no", "yes"])
    paint(name, "VG_100K/42.jpg")
    (sample,) = data = load_data("vqa", root, "val")
    assert data.answers == ("yes", "no")
    assert (sample.image_id, sample.questions[0].answers) == ("42", ("yes", "no"))
    assert sample.questions[0].weights == pytest.approx((2 / 3, 1 / 3))
    assert load_data("vqa", root, "test").hidden == 1
    with pytest.raises(InputError, match=r"vqa_train\.json, entry 0: has no 'answer'"):
        load_data("vqa", root, "train")
    (sample,) = load_data("vqa", root / "vg_qa.json", "train")
    assert (sample.image_id, sample.questions[0].answers) == ("vg-42", ("grass",))
    assert len(load_data("vqa", f"{root},{root / 'vg_qa.json'}", "val")) == 1


def test_blips_blank_answers_are_people_too(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    """Nine references would turn the accuracy of the whole split into another figure."""
    name = "val2014/COCO_val2014_000000000042.jpg"
    write("vqa_val.json", [{"question": "Is it?", "image": name, "question_id": 42000, "answer": HUMAN}])
    paint(name)
    (sample,) = load_data("vqa", root, "val")
    assert sorted(sample.questions[0].references) == sorted(HUMAN)
    assert sample.questions[0].answers == ("no", "yes", "Yes", "maybe")
    assert sum(sample.questions[0].weights) == pytest.approx(1)


def test_answer_list(vqav2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = [load_data("vqa", vqav2, split) for split in ("train", "val")]
    assert build_answers(splits, min_count=6) == ("no",)
    assert build_answers(splits, top=5) == ("no",)
    with pytest.raises(InputError, match="no answer of 7 questions: the most frequent of 1 has 6"):
        build_answers(splits, min_count=7)
    for picture in vqav2.rglob("*.jpg"):
        picture.unlink()  # the list is of texts
    out = vqav2 / "answer_list.json"
    with pytest.raises(SystemExit) as done:
        run(["answers", "--data", str(vqav2), "--out", str(out), "--min-count", "3", "--json"])
    assert done.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["answers"], told["splits"], json.loads(out.read_text())) == (1, ["train"], ["no"])
    for options, words in ((["--split", "test"], "must not be known"), ([], "is there already")):
        with pytest.raises(SystemExit) as done:
            run(["answers", "--data", str(vqav2), "--out", str(out if not options else tmp_path / "a"), *options])
        assert done.value.code == 2
        assert words in capsys.readouterr().err
