"""People's own data: one table, a table a split, a column `split`, and plain folders."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from madtp.data import load_data
from madtp.errors import InputError

N = 31


def ids(source: Path, task: str = "caption") -> dict[str, list[str]]:
    return {split: [s.image_id for s in load_data(task, source, split)] for split in ("train", "val", "test")}


def test_one_table_of_captions(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    names = [f"images/cats/{k}.jpg" for k in range(N)]
    paint(*names)
    rows = [f'cats/{k}.jpg,"A cat, no {k}."' for k in range(N)] + ["./cats\\3.jpg,Another.", ",", ""]
    path = write("captions.csv", "\ufeffImage, Caption \r\n" + "\r\n".join(rows))
    parts = ids(root)
    assert {split: len(part) for split, part in parts.items()} == {"train": 25, "val": 3, "test": 3}
    assert sorted(name for part in parts.values() for name in part) == sorted(f"cats/{k}.jpg" for k in range(N))
    assert ids(path) == ids(root, "retrieval") == parts
    (third,) = (s for split in parts for s in load_data("retrieval", root, split) if s.image_id == "cats/3.jpg")
    assert third.captions == ("A cat, no 3.", "Another.")
    assert third.image.open().getpixel((0, 0))[0] == 3
    # The split hangs on names alone, not on their order, nor on which pictures are there.
    write("captions.csv", "image,caption\n" + "\n".join(reversed(rows)))
    assert {split: set(part) for split, part in ids(root).items()} == {
        split: set(part) for split, part in parts.items()
    }
    (root / "images" / parts["val"][0]).unlink()
    assert [s.image_id for s in load_data("caption", root, "val", skip_missing=True)] == sorted(
        parts["val"][1:], key=lambda name: -int(Path(name).stem)
    )


def test_tables_by_split(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    paint("1.png", "2.png", "3.png")
    write("train.tsv", "image\tcaption\n1.png\tOne.\n2.png\tTwo.\n")
    write("test.jsonl", json.dumps({"image": "3.png", "captions": ["Three.", "Drei."]}))
    assert {tuple(part) for part in ids(root).values()} == {("1.png",), ("2.png",), ("3.png",)}  # val is held out
    assert load_data("retrieval", root, "test")[0].captions == ("Three.", "Drei.")
    write("dev.csv", "image,caption\n3.png,Three.")
    assert ids(root) == {"train": ["1.png", "2.png"], "val": ["3.png"], "test": ["3.png"]}
    write("val.csv", "image,caption\n3.png,Three.")
    with pytest.raises(InputError, match="several tables of split 'val'"):
        load_data("caption", root, "train")


def test_column_split(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    paint("1.png", "2.png", "3.png")
    path = write("data.csv", "image,split,caption\n1.png,Train,a\n2.png,validation,b\n3.png,train,c\n")
    assert {split: len(load_data("caption", path, split)) for split in ("train", "val")} == {"train": 2, "val": 1}
    with pytest.raises(InputError, match="no split 'test'; it has train, val"):
        load_data("caption", path, "test")
    path.write_text(path.read_text() + "1.png,,d")
    with pytest.raises(InputError, match="line 5: has no 'split'; other rows have one"):
        load_data("caption", path, "test")
    path.write_text("image,split,caption\n1.png,later,a")
    with pytest.raises(InputError, match="line 2: the split is 'later'; use train, val or test"):
        load_data("caption", path, "test")


def test_questions(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    paint("1.png", "2.png")
    write("answers.txt", "red\nblue\n")
    write(
        "test.csv", "image,question,answer,answer2,answer3,kind\n1.png,What color?,red,blue,red,color\n2.png,How?,,,,"
    )
    data = load_data("vqa", root, "test")
    assert (data.answers, data.hidden, data[1].questions[0].answers) == (("red", "blue"), 1, ())
    question = data[0].questions[0]
    assert (question.answers, question.kind, question.question_id) == (("red", "blue"), "color", "test-2")
    assert question.weights == pytest.approx((2 / 3, 1 / 3))
    assert question.references == ()  # fewer than 10 people
    line = {"image": "1.png", "question": "How many?", "answers": [3] * 7 + ["four"] * 4, "id": 17}
    write("val.jsonl", json.dumps(line))
    (sample,) = load_data("vqa", root, "val")
    assert (sample.questions[0].question_id, len(sample.questions[0].references)) == ("17", 11)


def test_statements(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    paint("1.png", "2.png")
    rows = "left,right,sentence,label,group\n1.png,2.png,Both.,TRUE,a\n2.png,1.png,Both.,0,a\n1.png,2.png,One.,,\n"
    write("test.csv", rows)
    data = load_data("reasoning", root, "test")
    assert [sample.image_id for sample in data] == ["1.png|2.png", "2.png|1.png"]
    assert [(s.label, s.group) for sample in data for s in sample.statements] == [(True, "a"), (None, ""), (False, "a")]
    assert data.hidden == 1
    write("train.csv", rows)
    with pytest.raises(InputError, match="1 statements without labels: nothing to train on"):
        load_data("reasoning", root, "train")
    write("test.csv", "image,statement,label\n1.png,It is.,yes\n")
    (sample,) = load_data("reasoning", root, "test")
    assert sample.images[0] is sample.images[1]


def test_plain_pictures(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    paint("b/2.JPG", "a.png", "b/1.webp")
    write("notes.md", "no picture")
    data = load_data("caption", root, "test")
    assert [sample.image_id for sample in data] == ["a.png", "b/1.webp", "b/2.JPG"]
    assert (data.n_texts, data.hidden) == (0, 3)
    with pytest.raises(InputError, match="holds pictures without captions"):
        load_data("caption", root, "train")
    for task in ("retrieval", "vqa", "reasoning"):
        with pytest.raises(InputError, match=f"no form of data for task '{task}' is there; known: "):
            load_data(task, root, "test")


def test_captions_that_are_not_read_are_told_of(
    root: Path, paint: Callable[..., None], write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """COCO's own captions, say: without a word all pictures would seem to be there without captions."""
    paint("val2014/COCO_val2014_000000000042.jpg", "val2014/meta/1.png")
    assert load_data("caption", root, "val").hidden == 2
    assert not caplog.records
    write("annotations/captions_val2014.json", {"annotations": []})
    assert load_data("caption", root, "val").hidden == 2
    assert "toy: files of no known form, not read: 1: captions_val2014.json" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the first line is []; it must name the columns"),
        ("image,image\n1.png,2.png", "it must name the columns, each once"),
        ("image,caption\n", "holds no rows"),
        ("image,caption\n1.png,a, b", "line 2: has 3 cells, the table 2 columns; put texts that hold"),
        ('image,caption\n1.png,"a', "line 2: is not a table: "),
        ("image,words\n1.png,a", "line 2: has no 'caption'; it has image, words"),
        ("image,caption\n1.png, ", "line 2: 'caption' must be words, not ' '"),
        ("picture,caption\n1.png,a", "line 2: has no 'image'; it has picture, caption"),
        ("image,caption\n/etc/passwd,a", "line 2: the image is '/etc/passwd'; give a path inside"),
        ("image,caption\na/../../1.png,a", "line 2: the image is 'a/../../1.png'"),
        ("image,caption\n.,a", "line 2: the image is '.'"),
        ("image,caption\n1.png,a", "too few pictures for split 'train'; give at least three"),
    ],
)
def test_faults(root: Path, paint: Callable[..., None], write: Callable[..., Path], text: str, words: str) -> None:
    paint("1.png")
    write("captions.csv", text)
    with pytest.raises(InputError) as caught:
        load_data("caption", root, "val" if "too few" in words else "train")
    assert words.replace("'train'", "'val'") in str(caught.value)


def test_faults_of_lines(root: Path, write: Callable[..., Path]) -> None:
    path = write("a.jsonl", '{"image": "1.png", "caption": "a"}\n\n{"image": ')
    with pytest.raises(InputError, match=r"a\.jsonl: is not JSON: Expecting value in line 3"):
        load_data("caption", path)
    path.write_text('{"image": "1.png", "caption": "a"}\n["1.png"]')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: is \['1\.png'\]; expected an object"):
        load_data("caption", path)
    path.write_bytes(b'{"image": "\xe9.png"}')
    with pytest.raises(InputError, match=r"a\.jsonl: is not UTF-8 text"):
        load_data("caption", path)
    write("b.csv", "image,caption\n1.png,a")
    with pytest.raises(InputError, match=r"several tables: 2: a\.jsonl, b\.csv; give the file"):
        load_data("caption", root)
