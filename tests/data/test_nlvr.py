"""NLVR2 and NLVR with real annotation lines (tests/data/lines) and pictures of our own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from madtp.data import load_data
from madtp.errors import InputError

LINES = Path(__file__).parent / "lines"
NLVR2, NLVR = (LINES / f"{name}_dev.json" for name in ("nlvr2", "nlvr"))
SENTENCE = "The right image shows a curving walkway of dark glass circles embedded in dirt and flanked by foliage."
PAIRS = [f"dev/dev-850-{pair}-img{side}.png" for pair in (0, 1) for side in (0, 1)]


def test_nlvr2_official(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    write("dev.json", NLVR2.read_text())
    paint(*PAIRS)
    data = load_data("reasoning", root, "val")
    assert [sample.image_id for sample in data] == ["dev-850-0", "dev-850-1"]
    assert (data.name, data.n_texts, data.hidden) == ("toy", 4, 0)
    first, second = data
    assert [s.statement_id for s in first.statements] == ["dev-850-0-0", "dev-850-0-1"]
    assert [s.statement_id for s in second.statements] == ["dev-850-1-0", "dev-850-1-1"]
    assert [s.label for s in first.statements + second.statements] == [False, False, True, True]
    assert first.statements[0].text == SENTENCE
    # A group is a sentence over the pairs of its set: the pair's number is left out.
    assert [s.group for s in first.statements] == [s.group for s in second.statements] == ["dev-850-0", "dev-850-1"]
    assert [image.open().getpixel((0, 0))[0] for sample in data for image in sample.images] == [0, 1, 2, 3]


@pytest.mark.parametrize("place", ["images/train/37/", "images/train/", "train/37/", "images/", "37/", ""])
def test_nlvr2_train_lies_in_numbered_folders(
    root: Path, paint: Callable[..., None], write: Callable[..., Path], place: str
) -> None:
    line = {"identifier": "train-10171-0-0", "directory": 37, "sentence": "a dog", "label": "True"}
    write("data/train.json", json.dumps(line) + "\n\n")  # as in the repository
    paint(*(f"{place}train-10171-0-img{side}.png" for side in (0, 1)))
    (sample,) = load_data("reasoning", root, "train")
    assert sample.image_id == "train-10171-0"
    assert sample.images[1].path.name == "train-10171-0-img1.png"


def test_nlvr2_test_is_the_public_one(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    for name, label in (("test1", {"label": "True"}), ("test2", {})):
        write(f"{name}.json", json.dumps({"identifier": f"{name}-0-1-0", "sentence": "a dog", **label}))
        paint(*(f"{name}/{name}-0-1-img{side}.png" for side in (0, 1)))
    assert load_data("reasoning", root, "test")[0].statements[0].statement_id == "test1-0-1-0"
    (root / "test1.json").unlink()
    data = load_data("reasoning", root, "test")
    assert (data[0].statements[0].label, data.hidden) == (None, 1)


@pytest.mark.parametrize("place", ["data", "annotations"])
def test_a_file_that_lies_in_a_folder_of_annotations(
    root: Path, paint: Callable[..., None], write: Callable[..., Path], place: str
) -> None:
    """The one way to test2 where test1 is there too; the pictures are where they are for the whole folder."""
    for name in ("test1", "test2"):
        write(f"{place}/{name}.json", json.dumps({"identifier": f"{name}-0-1-0", "sentence": "a dog"}))
        paint(*(f"images/{name}/{name}-0-1-img{side}.png" for side in (0, 1)))
    for name, source in (("test1", root), ("test2", root / place / "test2.json"), ("test1", root / place)):
        (sample,) = load_data("reasoning", f"nlvr2:{source}", "test")
        assert sample.image_id == f"{name}-0-1"
        assert [image.path.relative_to(root).as_posix() for image in sample.images] == [
            f"images/{name}/{name}-0-1-img{side}.png" for side in (0, 1)
        ]


def test_nlvr_has_one_picture_for_both(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    write("dev/dev.json", NLVR.read_text())
    paint(*(f"dev/images/2/dev-{name}-0.png" for name in ("1572-0", "1572-3", "3125-1")))
    data = load_data("reasoning", root, "val")
    assert [sample.image_id for sample in data] == ["dev-1572-0-0", "dev-3125-1-0", "dev-1572-3-0"]
    assert all(left is right for left, right in (sample.images for sample in data))
    statements = [statement for sample in data for statement in sample.statements]
    assert [(s.statement_id, s.group, s.label) for s in statements] == [
        ("1572-0", "1572", True), ("3125-1", "3125", True), ("1572-3", "1572", False)
    ]  # fmt: skip
    alone = load_data("reasoning", root / "dev", "val")  # the folder of one split
    assert alone.samples == data.samples
    for source in (root, root / "dev"):
        with pytest.raises(InputError, match=r"no train/train\.json"):
            load_data("reasoning", source, "train")


def test_blip_has_the_same_pairs_and_groups(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    write("dev.json", NLVR2.read_text())
    paint(*PAIRS)
    official = load_data("reasoning", root / "dev.json", "val")
    rows = [json.loads(line) for line in NLVR2.read_text().splitlines()]
    for row in rows:
        pair = row["identifier"].rpartition("-")[0]
        row["images"] = [f"dev/{pair}-img{side}.png" for side in (0, 1)]
    write("nlvr_dev.json", [{key: row[key] for key in ("sentence", "label", "images")} for row in rows])
    with pytest.raises(InputError, match="several data sets are there: nlvr2 and blip-nlvr2; choose one: nlvr2:"):
        load_data("reasoning", root, "val")
    data = load_data("reasoning", f"blip-nlvr2:{root}", "val")
    assert [(s.image_id, s.images) for s in data] == [(s.image_id, s.images) for s in official]
    statements = [(a, b) for s, t in zip(data, official, strict=True) for a, b in zip(s.texts, t.texts, strict=True)]
    assert all((a.text, a.label) == (b.text, b.label) for a, b in statements)
    assert len({(a.group, b.group) for a, b in statements}) == len({a.group for a, _ in statements}) == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"identifier": "dev-1-2"}, "dev.json, line 2: the identifier is 'dev-1-2'; expected one like dev-850-0-0"),
        ({"identifier": None}, "line 2: 'identifier' is blank; it has identifier, sentence, label"),
        ({"sentence": 7.5}, "line 2: 'sentence' must be words, not 7.5"),
        ({"sentence": "half \ud800"}, "line 2: 'sentence' holds half a character"),
        ({"label": "perhaps"}, "line 2: 'label' is 'perhaps'; use true or false"),
        ({"directory": "../../x"}, "line 2: the image is '../../x/dev-1-1-img0.png'; give a path inside"),
        ({"directory": "/etc"}, "line 2: the image is '/etc/dev-1-1-img0.png'; give a path inside"),
        ({"identifier": "dev-850-0-0"}, "ids that several texts have: 1: dev-850-0-0"),
    ],
)
def test_faults(
    root: Path, paint: Callable[..., None], write: Callable[..., Path], row: dict[str, object], words: str
) -> None:
    line = NLVR2.read_text().split("\n")[0]
    write("dev.json", f"{line}\n" + json.dumps({"identifier": "dev-1-1-0", "sentence": "a", "label": "True", **row}))
    paint(*PAIRS, "dev/dev-1-1-img0.png", "dev/dev-1-1-img1.png")
    with pytest.raises(InputError) as caught:
        load_data("reasoning", root, "val", limit=1)  # a limit hides no fault
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_pictures(
    root: Path, paint: Callable[..., None], write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write("dev.json", NLVR2.read_text())
    paint(*PAIRS[:3])
    with pytest.raises(InputError, match=r"toy: images that are missing: 1: dev-850-1-img1\.png; put them under"):
        load_data("reasoning", root, "val")
    data = load_data("reasoning", root, "val", skip_missing=True)
    assert [sample.image_id for sample in data] == ["dev-850-0"]
    assert "1: dev-850-1-img1.png" in caplog.text
    (root / PAIRS[0]).unlink()
    with pytest.raises(InputError, match="nothing is left of split 'val'"):
        load_data("reasoning", root, "val", skip_missing=True)
