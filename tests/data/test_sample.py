import dataclasses
from pathlib import Path

import pytest

from madtp.data import CaptionSample, Data, ImageFile, PairSample, Question, Statement, VqaSample, load_data
from madtp.errors import InputError


def sample(name: str, n: int) -> VqaSample:
    questions = tuple(Question(f"what {k}?", ("yes",), (1.0,), f"{name}-{k}") for k in range(n))
    return VqaSample(name, ImageFile(Path(name)), questions)


def test_data_is_a_sequence_of_pictures() -> None:
    data = Data((sample("a", 2), sample("b", 3), sample("c", 5)), "toy", "val", ("yes", "no"))
    assert (len(data), data.n_texts) == (3, 10)
    assert data[1].image_id == data[-2].image_id == "b"
    assert [s.image_id for s in data] == ["a", "b", "c"]
    part = data[1:]
    assert isinstance(part, Data)
    assert (part.n_texts, part.split, part.answers) == (8, "val", ("yes", "no"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("answers", "weights"),
    [((), (1.0,)), (("a", "a"), (0.5, 0.5)), (("a",), (1.5,)), (("a", "b"), (1.0,)), (("a", "b"), (1.5, -0.5))],
)
def test_question_checks_its_answers(answers: tuple[str, ...], weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Question("what?", answers, weights, "q")


def test_question_with_several_answers() -> None:
    thirds = (1 / 3, 1 / 3, 1 / 3)
    assert Question("what?", ("a", "b", "c"), thirds, "q").weights == thirds
    assert Question("what?", ("a",), (0.2,), "q").weights == (0.2,)  # counts for less


def test_hidden_counts_what_cannot_be_scored() -> None:
    image = ImageFile("a.png")
    questions = (Question("what?", (), (), "1"), Question("what?", ("a",), (1.0,), "2"))
    statements = tuple(Statement("it is", label, str(label)) for label in (True, False, None, None))
    assert Data((VqaSample("a", image, questions),), "toy", "test").hidden == 1
    assert Data((PairSample("a", (image, image), statements),), "toy", "test").hidden == 2
    captions = tuple(CaptionSample(str(n), image, ("a dog",) * n) for n in (0, 1, 2))
    assert Data(captions, "toy", "test").hidden == 1


@pytest.mark.parametrize(
    ("source", "split", "limit", "words"),
    [
        ("scenes", "dev", None, "unknown split 'dev'; use one of train, val, test"),
        ("scenes", "train", 0, "limit: 0 pictures"),
        ("scenes", "train", -3, "limit: -3 pictures"),
        ("scenes:x", "train", None, "scenes:SEED:N_TRAIN"),
        ("scenes:", "train", None, "scenes:SEED:N_TRAIN"),
        ("scenes:1:2:3", "train", None, "scenes:SEED:N_TRAIN"),
        ("scenes:-1", "train", None, "scenes:SEED:N_TRAIN"),
        ("scenes:4294967296", "train", None, "out of range"),
        ("scenes:1:0", "train", None, "0 pictures cannot be made"),
        ("no/such/place", "train", None, "no/such/place: no such folder"),
    ],
)
def test_load_refuses(source: str, split: str, limit: int | None, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_data("vqa", source, split, limit=limit)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_named_scenes_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_data("vqa", tmp_path / "scenes")
    with pytest.raises(InputError, match="no such folder"):
        load_data("vqa", "./scenes-not-there")
