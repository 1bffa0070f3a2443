"""Tar shards: pictures read at their place, captions and questions beside them."""

import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from madtp.data import ImageSource, load_data
from madtp.data.shards import TarImage, index
from madtp.errors import InputError
from small import contents
from tars import pair, png, write_tar

Shard = Callable[[str, Mapping[str, object]], Path]


@pytest.fixture
def shard(root: Path) -> Shard:
    """Write a tar of members: bytes and text as they are, anything else as JSON."""

    def shard(name: str, members: Mapping[str, object]) -> Path:
        return write_tar(root / name, members)

    return shard


def test_one_tar_is_a_data_set(shard: Shard) -> None:
    members = {f"./a/{k:03d}.jpg": png(k) for k in range(23)} | {f"./a/{k:03d}.txt": f"no {k}\n" for k in range(23)}
    path = shard("shard-0.tar", members)
    parts = {split: load_data("retrieval", path, split) for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in parts.items()} == {"train": 19, "val": 2, "test": 2}
    for data in parts.values():
        for sample in reversed(data.samples):  # in any order
            assert isinstance(sample.image, ImageSource)
            assert sample.captions == (f"no {sample.image.open().getpixel((0, 0))[0]}",)
            assert sample.image_id == f"{int(sample.captions[0][3:]):03d}"


def test_what_is_held_out_does_not_hang_on_where_the_shards_lie(
    root: Path, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a model would be chosen on pictures that it was trained on, once the folder has moved."""
    for k in range(3):
        pictures = {f"{k}{j:03d}.jpg": png(j) for j in range(23)}
        shard(f"{k:05d}.tar", pictures | {name.replace("jpg", "txt"): "no" for name in pictures})
    shutil.copytree(root, root / "moved" / "again")
    monkeypatch.chdir(root)
    sources = (root, ".", "moved/again", f"{root}/*.tar", "{00000..00002}.tar", "moved/again/{00000..00002}.tar")
    held = [[sample.image_id for sample in load_data("retrieval", source, "val")] for source in sources]
    assert len(held[0]) == 7
    assert all(ids == held[0] for ids in held)


def test_splits_by_name_or_folder(root: Path, shard: Shard) -> None:
    for k in range(3):
        shard(f"train-{k:02d}.tar", pair(f"x{k}", k))
    shard("val/00.tar", pair("v", 13, caption=None, captions=["one", "two"]))
    train = load_data("caption", root, "train")
    assert [sample.image_id for sample in train] == ["x0", "x1", "x2"]
    (val,) = load_data("caption", root, "val")
    assert val.captions == ("one", "two")
    with pytest.raises(InputError, match="no split 'test'; it has train, val"):
        load_data("caption", root, "test")
    pattern = load_data("caption", f"{root}/train-{{01..02}}.tar", "val")
    assert {s.image_id for s in pattern} <= {"x1", "x2"}
    assert len(pattern) == 1
    assert len(load_data("caption", f"{root}/train-*.tar", "train")) == 2
    with pytest.raises(InputError, match=r"shards that are missing: 1: train-03\.tar"):
        load_data("caption", f"{root}/train-{{01..03}}.tar", "train")
    assert len(load_data("caption", f"{root}/train-{{01..03}}.tar", "val", skip_missing=True)) == 1
    with pytest.raises(InputError, match="fits no file"):
        load_data("caption", f"{root}/other-*.tar")
    shard("more.tar", pair("y", 1))
    with pytest.raises(InputError, match="some tars are named after a split and some not"):
        load_data("caption", root, "train")


def test_questions(root: Path, shard: Shard) -> None:
    several = [{"question": "How many?", "answers": ["2"] * 10, "question_id": 7}, {"question": "What?", "answer": "a"}]
    shard("test-0.tar", pair("a", 2, question="Is it?", answer="yes") | pair("b", 3, questions=several))
    first, second = load_data("vqa", root, "test")
    assert [(q.text, q.answers, q.question_id) for q in first.questions] == [("Is it?", ("yes",), "a-0")]
    assert [(q.question_id, len(q.references)) for q in second.questions] == [("7", 10), ("b-1", 0)]


def test_missing_and_bare(root: Path, shard: Shard, caplog: pytest.LogCaptureFixture) -> None:
    shard("test-0.tar", {"a.json": {"caption": "a"}} | pair("b", 3) | {"c.jpg": png(5), "README": "none"})
    with pytest.raises(InputError, match=r"images that are missing: 1: .*test-0\.tar/a; "):
        load_data("caption", root, "test")
    data = load_data("caption", root, "test", skip_missing=True)
    assert [(s.image_id, s.captions) for s in data] == [("b", ("no 3",)), ("c", ())]
    assert data.hidden == 1
    assert "test-0.tar/a" in caplog.text
    with pytest.raises(InputError, match="1 pictures without captions: nothing to search among"):
        load_data("retrieval", root, "test", skip_missing=True)


@pytest.mark.parametrize(("task", "what"), [("caption", "captions"), ("retrieval", "captions"), ("vqa", "questions")])
def test_training_can_pass_over_pictures_without_texts(
    root: Path, shard: Shard, caplog: pytest.LogCaptureFixture, task: str, what: str
) -> None:
    """Off the web some always are: one must not stop a collection of millions, nor go unsaid."""
    asked = {"question": "Is it?", "answer": "yes"}
    shard("train-0.tar", pair("a", 2, **asked) | {"b.jpg": png(3), "b.json": {"caption": None}} | pair("c", 5, **asked))
    shard("val-0.tar", pair("d", 7, **asked))
    with pytest.raises(InputError, match=rf"pictures without {what}: 1: .*train-0\.tar/b; .*use --skip-missing"):
        load_data(task, root, "train")
    data = load_data(task, root, "train", skip_missing=True)
    assert [sample.image_id for sample in data] == ["a", "c"]
    assert data.hidden == 0
    assert f"pictures without {what}, left out: 1: " in caplog.text


def test_the_picture_is_the_member_of_the_plain_ending(root: Path, shard: Shard) -> None:
    """Depths and masks lie beside pictures, often before them; alone, a longer ending will do."""
    shard("test-0.tar", {"a.depth.png": png(7), "a.jpg": png(5), "a.mask.png": png(3), "a.txt": "a"})
    shard("test-1.tar", {"b.input.png": png(11), "b.txt": "b"})
    data = load_data("caption", root, "test")
    assert [sample.image.open().getpixel((0, 0))[0] for sample in data] == [5, 11]


def test_the_same_key_in_two_tars(root: Path, shard: Shard) -> None:
    for name in ("test-0.tar", "test-1.tar"):
        shard(name, pair("a", 1))
    ids = [sample.image_id for sample in load_data("caption", root, "test")]
    assert len(set(ids)) == 2
    assert ids[0].endswith("test-0.tar/a")


def test_questions_of_the_same_key_in_two_tars(root: Path, shard: Shard) -> None:
    """Many number their pictures anew in every tar; ids that are ours must not clash for it."""
    for k in range(2):
        shard(f"test-{k}.tar", pair("a", k, question="Is it?", answer="yes"))
    ids = [question.question_id for sample in load_data("vqa", root, "test") for question in sample.questions]
    assert ids == ["a-0", "test-1/a-0"]
    shard("test-2.tar", pair("c", 2, question="Is it?", answer="yes", id="a-0"))
    with pytest.raises(InputError, match="ids that several texts have: 1: a-0"):
        load_data("vqa", root, "test")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.jpg": b"", "a.json": "{"}, "test-0.tar, a.json: is not JSON"),
        ({"a.jpg": b"", "a.json": "[]"}, "test-0.tar, a.json: is no JSON object"),
        ({"a.jpg": b"", "a.json": b"\xff"}, "test-0.tar, a.json: is not UTF-8 text"),
        ({"a.jpg": b"", "a.txt": b"\xff"}, "test-0.tar, a.txt: is not UTF-8 text"),
        ({"a.jpg": b"", "a.json": {"caption": 1.5}}, "test-0.tar, a.json: 'caption' must be words, not 1.5"),
    ],
)
def test_faults_in_texts(root: Path, shard: Shard, members: dict[str, object], words: str) -> None:
    shard("test-0.tar", members)
    with pytest.raises(InputError) as caught:
        load_data("caption", root, "test")
    assert words in str(caught.value)


def test_no_member_leads_out_of_its_tar(root: Path, shard: Shard) -> None:
    """Names are keys and nothing else, and a link to a file of the user's is no member."""
    (root / "secret.txt").write_text("secret")
    members = {"../1.png": png(1), "../1.txt": "no 1", "/2.png": png(2), "/2.txt": "no 2", "3.png": png(3)}
    with tarfile.open(shard("test-0.tar", members), "a") as tar:
        link = tarfile.TarInfo("3.txt")
        link.type, link.linkname = tarfile.SYMTYPE, str(root / "secret.txt")
        tar.addfile(link)
    before = contents(root)
    data = load_data("caption", root, "test")
    found = [(sample.captions, sample.image.open().getpixel((0, 0))[0]) for sample in data]
    assert found == [(("no 1",), 1), (("no 2",), 2), ((), 3)]
    assert contents(root) == before and list(root.parent.iterdir()) == [root]


def test_faults_of_tars(root: Path, shard: Shard) -> None:
    path = shard("test-0.tar", pair("a", 1) | pair("b", 2))
    (sample, _) = load_data("caption", root, "test")
    assert isinstance(sample.image, TarImage)
    whole = path.read_bytes()
    path.write_bytes(whole[: sample.image.offset + 3])
    with pytest.raises(InputError, match=r"test-0\.tar, a\.jpg: the tar is shorter than when it was indexed"):
        sample.image.open()
    with pytest.raises(InputError, match=r"test-0\.tar: is not a whole tar file"):
        load_data("caption", root, "test")
    path.unlink()
    with pytest.raises(InputError, match=r"test-0\.tar, a\.jpg: cannot be read: No such file"):
        sample.image.open()
    packed = shard("test-0.tgz", pair("a", 1))
    with pytest.raises(InputError, match=r"give plain \.tar files, not compressed"):
        index(packed)
    shard("test-0.tar", {"a.jpg": b"no picture", "a.txt": "a"})
    with pytest.raises(InputError, match=r"test-0\.tar, a\.jpg: is not an image"):
        load_data("caption", root, "test")[0].image.open()
