"""COCO and Flickr30k: Karpathy's file and BLIP's give the same pictures and captions."""

from collections.abc import Callable
from pathlib import Path

import pytest

from madtp.data import CaptionSample, load_data
from madtp.errors import InputError

NAMES = [f"COCO_val2014_{number:012d}.jpg" for number in (42, 73, 89, 113)]
SPLITS = ["train", "restval", "val", "test"]


def karpathy(**changes: object) -> dict[str, object]:
    rows = [
        {
            "filepath": "val2014",
            "filename": name,
            "cocoid": int(name[-16:-4]),
            "split": split,
            "sentences": [{"raw": f" A  dog,\nno {k}. ", "tokens": ["a"]} for k in range(5)],
        }
        for name, split in zip(NAMES, SPLITS, strict=True)
    ]
    rows[-1].update(changes)
    return {"images": rows, "dataset": "coco"}


def test_karpathy(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    path = write("dataset_coco.json", karpathy())
    paint(*(f"val2014/{name}" for name in NAMES))
    data = load_data("retrieval", root, "train")
    assert [sample.image_id for sample in data] == ["42", "73"]  # restval trains
    assert [s.image_id for split in ("val", "test") for s in load_data("caption", root, split)] == ["89", "113"]
    assert data[0].captions == tuple(f"A dog, no {k}." for k in range(5))
    assert data[1].image.open().getpixel((0, 0))[0] == 1
    assert load_data("caption", path, "train").samples == data.samples
    assert load_data("caption", root, "train", limit=1).samples == data.samples[:1]


def test_flickr_pictures_lie_in_a_folder_of_any_usual_name(
    root: Path, paint: Callable[..., None], write: Callable[..., Path]
) -> None:
    row = {"filename": "1000092795.jpg", "split": "test", "imgid": 0, "sentences": [{"raw": "A dog."}, {"raw": "\n"}]}
    write("annotations/dataset_flickr30k.json", {"images": [row], "dataset": "flickr30k"})
    paint("flickr30k-images/1000092795.jpg")
    (sample,) = load_data("retrieval", root, "test")
    assert (sample.image_id, sample.captions) == ("1000092795", ("A dog.",))


@pytest.mark.parametrize(("of", "name"), [("coco", "coco_karpathy"), ("flickr30k", "flickr30k")])
def test_blip(root: Path, paint: Callable[..., None], write: Callable[..., Path], of: str, name: str) -> None:
    # As the public code has it: annotations of all sets in one folder, pictures in a tree beside.
    place = {"coco": "datasets/vision/coco/images/val2014", "flickr30k": "datasets/vision/flickr/flickr30k-images"}
    images = [f"{place[of].rpartition('/')[2]}/{n}" for n in NAMES]
    paint(*(f"{place[of]}/{n}" for n in NAMES))
    rows = [{"image": images[k], "caption": f"A dog, no {n}.", "image_id": f"x_{k}"} for n in (0, 1) for k in (0, 1)]
    write(f"annotation/{name}_train.json", rows)
    write(f"annotation/{name}_test.json", [{"image": images[3], "caption": ["One.", "Two."]}])
    train = load_data("retrieval", root / "annotation", "train")
    assert [sample.captions for sample in train] == [("A dog, no 0.", "A dog, no 1.")] * 2
    (test,) = load_data("caption", root / "annotation", "test")
    assert (test.captions, test.image.open().getpixel((0, 0))[0]) == (("One.", "Two."), 3)
    assert test.image_id == ("113")
    with pytest.raises(InputError, match=rf"no {name}_val\.json; split 'val' needs it"):
        load_data("caption", root / "annotation", "val")
    with pytest.raises(InputError, match=rf"is not the file of split 'val'; give the folder, or {name}_val\.json"):
        load_data("caption", root / "annotation" / f"{name}_test.json", "val")
    assert load_data("caption", root / "annotation" / f"{name}_test.json", "test").samples == (test,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "dev"}, "entry 3: the split is 'dev'; expected one of train, restval, val, test"),
        ({"sentences": ["a dog"]}, "entry 3: has no list 'sentences'"),
        ({"filename": "../x.jpg", "filepath": ""}, "entry 3: the image is '../x.jpg'"),
        ({"filename": r"C:\x.jpg", "filepath": ""}, "entry 3: the image is 'C:"),
        ({"filename": "y.jpg"}, "images that are missing: 1: val2014/y.jpg"),
    ],
)
def test_faults(
    root: Path, paint: Callable[..., None], write: Callable[..., Path], changes: dict[str, object], words: str
) -> None:
    write("dataset_coco.json", karpathy(**changes))
    paint(*(f"val2014/{name}" for name in NAMES))
    with pytest.raises(InputError) as caught:
        load_data("caption", root, "test")
    assert words in str(caught.value)


def test_two_of_karpathys_files_need_a_choice(root: Path, write: Callable[..., Path]) -> None:
    for name in ("coco", "flickr30k"):
        write(f"dataset_{name}.json", karpathy())
    with pytest.raises(InputError, match=r"holds dataset_coco\.json, dataset_flickr30k\.json; give the one file"):
        load_data("caption", root)


def test_pictures_of_one_name_are_told_apart(
    root: Path, paint: Callable[..., None], write: Callable[..., Path]
) -> None:
    names = ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    paint(*names)
    write("flickr30k_val.json", [{"image": name, "caption": ["A dog."]} for name in names])
    data = load_data("retrieval", root, "val")
    assert [sample.image_id for sample in data] == ["a/1.jpg", "b/1.jpg", "2"]
    assert all(isinstance(sample, CaptionSample) for sample in data)
