"""A tiny folder in easy-VQA's form, right and wrong in every way that can be seen without decoding a picture."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from madtp.data import Data, load_data
from madtp.data.easy_vqa import load_easy_vqa, question_kind
from madtp.data.split import val_images
from madtp.errors import InputError

N_TRAIN, N_TEST = 23, 3


def write_split(folder: Path, n: int) -> None:
    (folder / "images").mkdir(parents=True)
    rows: list[list[object]] = []
    for i in range(n):
        Image.new("RGB", (5, 7), (i, 0, 0)).save(folder / "images" / f"{i}.png")
        rows += [["what color is the shape?", "red", i], ["is there a circle?", "no", i]]
    (folder / "questions.json").write_text(json.dumps(rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    write_split(root / "train", N_TRAIN)
    write_split(root / "test", N_TEST)
    (root / "answers.txt").write_text("red\r\nyes\nno\n\n")
    return root


def ids(data: Data) -> list[str]:
    return [sample.image_id for sample in data]


def test_test_split(folder: Path) -> None:
    data = load_data("vqa", folder, "test")
    assert (data.name, data.split, data.answers) == ("tiny", "test", ("red", "yes", "no"))
    assert ids(data) == ["0", "1", "2"]
    assert data.n_texts == 6
    second = data[1].questions[1]
    assert (second.text, second.answers, second.weights) == ("is there a circle?", ("no",), (1.0,))
    assert (second.question_id, second.kind, second.references) == ("test-3", "exist", ())
    assert data[2].objects is None
    assert data[2].image.open().getpixel((0, 0)) == (2, 0, 0)


def test_val_is_a_fixed_tenth_of_train(folder: Path) -> None:
    train, val = load_data("vqa", folder, "train"), load_data("vqa", str(folder), "val")
    assert (len(train), len(val)) == (21, 2)
    assert not set(ids(train)) & set(ids(val))
    assert sorted(map(int, ids(train) + ids(val))) == list(range(N_TRAIN))
    assert all(q.question_id.startswith("train-") for sample in val for q in sample.questions)
    assert set(ids(val)) == {"8", "9"}  # from sha256sum: the smallest of "0" ... "22"


def test_val_images_depend_on_ids_alone() -> None:
    names = [str(i) for i in range(101)]
    assert val_images(names) == val_images(reversed(names))
    assert len(val_images(names)) == 10
    assert (len(val_images("ab")), len(val_images("a"))) == (1, 0)


def test_own_val_folder_is_used(folder: Path) -> None:
    write_split(folder / "val", 5)
    assert len(load_data("vqa", folder, "train")) == N_TRAIN
    assert load_data("vqa", folder, "val")[0].questions[0].question_id == "val-0"


def test_limit_takes_the_first_pictures(folder: Path) -> None:
    for split in ("train", "val", "test"):
        assert ids(load_data("vqa", folder, split, limit=2)) == ids(load_data("vqa", folder, split))[:2]
    assert len(load_data("vqa", folder, "test", limit=99)) == N_TEST


def test_questions_of_a_picture_come_together(folder: Path) -> None:
    path = folder / "test" / "questions.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(rows[::2] + rows[1::2]))
    data = load_data("vqa", folder, "test")
    assert ids(data) == ["0", "1", "2"]
    assert [q.question_id for q in data[0].questions] == ["test-0", "test-3"]


def test_names_and_jpegs_are_ids_too(folder: Path) -> None:
    Image.new("RGB", (5, 7)).save(folder / "test" / "images" / "a cat.JPG")
    (folder / "test" / "questions.json").write_text(json.dumps([["is it a cat?", "yes", "a cat"]]))
    data = load_data("vqa", folder, "test")
    assert data[0].image.open().size == (5, 7)
    assert data[0].questions[0].kind == ""


def set_row(number: int, row: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "test" / "questions.json"
        rows = json.loads(path.read_text())
        rows[number] = row
        path.write_text(json.dumps(rows))

    return change


def put(name: str, content: str | bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def drop(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (drop("answers.txt"), "answers.txt: no such file"),
    (drop("test/questions.json"), "questions.json: no such file"),
    (put("answers.txt", "\n \n"), "answers.txt: holds no answers"),
    (put("answers.txt", b"caf\xe9"), "answers.txt: is not UTF-8"),
    (put("answers.txt", "red\nyes\n"), "answers that answers.txt lacks: 3: 'no' (question 1), 'no' (question 3)"),
    (put("test/questions.json", '[["a", '), "questions.json: is not JSON"),
    (put("test/questions.json", "[" * 100_000), "questions.json: is not JSON"),
    (put("test/questions.json", "[" + "7" * 5000 + "]"), "questions.json: is not JSON that can be read: a number"),
    (set_row(5, ["what\ud800?", "yes", 1]), "question 5: holds half a character"),
    (put("test/questions.json", "{}"), "questions.json: holds no list"),
    (put("test/questions.json", "[]"), "questions.json: holds no list"),
    (set_row(5, ["a", "b"]), "question 5: is ['a', 'b']; expected [[question, answer, image id], ...]"),
    (set_row(5, "abc"), "question 5: is 'abc'"),
    (set_row(5, ["what?", 3, 1]), "question 5: question and answer must be words"),
    (set_row(5, ["  ", "yes", 1]), "question 5: question and answer must be words"),
    (set_row(5, ["what?", "yes", 1.5]), "question 5: the image id is 1.5"),
    (set_row(5, ["what?", "yes", True]), "question 5: the image id is True"),
    (set_row(5, ["what?", "yes", 77]), "images that are missing: 1: 77"),
    (set_row(5, ["what?", "yes", "../../train/images/0"]), "missing: 1: ../../train/images/0"),
    (drop("test/images/0.png", "test/images/2.png"), "missing: 2: 0, 2"),
    (put("test/scenes.json", "{}"), "scenes.json: is not a scenes file"),
    (put("test/scenes.json", "[]"), "scenes.json: is not a scenes file"),
    (put("test/scenes.json", '{"scenes": []}'), "scenes.json: does not fit questions.json"),
]


@pytest.mark.parametrize(("spoil", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_faults_are_found_while_loading(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(folder)
    with pytest.raises(InputError) as caught:
        load_easy_vqa(folder, "test", limit=1)  # a limit hides no fault
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_only_the_first_five_are_listed(folder: Path) -> None:
    for i in range(1, N_TRAIN):
        (folder / "train" / "images" / f"{i}.png").unlink()
    with pytest.raises(InputError, match=r"missing: 22: 1, 2, 3, 4, 5, \.\.\.;"):
        load_easy_vqa(folder, "train")


def test_missing_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "test").rename(folder / "elsewhere")
    with pytest.raises(InputError, match="no folder 'test'"):
        load_easy_vqa(folder, "test")
    (folder / "train" / "images").rename(folder / "images")
    with pytest.raises(InputError, match="no folder of images"):
        load_easy_vqa(folder, "train")
    with pytest.raises(InputError, match="no such folder"):
        load_easy_vqa(folder / "answers.txt")


def test_one_picture_leaves_none_for_val(tmp_path: Path) -> None:
    write_split(tmp_path / "train", 1)
    (tmp_path / "answers.txt").write_text("red\nno")
    assert len(load_easy_vqa(tmp_path, "train")) == 1
    with pytest.raises(InputError, match="too few pictures for split 'val'"):
        load_easy_vqa(tmp_path, "val")


def test_a_broken_picture_is_named_when_it_is_opened(folder: Path) -> None:
    (folder / "test" / "images" / "1.png").write_bytes(b"\x89PNG")
    data = load_data("vqa", folder, "test")
    data[0].image.open()
    with pytest.raises(InputError, match=r"1\.png: is "):
        data[1].image.open()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("what is the blue shape?", "shape"),
        ("what shape does the image contain?", "shape"),
        ("what is the color of the triangle?", "color"),
        ("what color is the shape?", "color"),
        ("does the image not contain a gray shape?", "exist"),
        ("is no blue shape present?", "exist"),
        ("is there not a yellow shape?", "exist"),
        ("is the man happy?", ""),
        ("what is on the table?", ""),
        ("?", ""),
    ],
)
def test_question_kind(text: str, kind: str) -> None:
    assert question_kind(text) == kind
