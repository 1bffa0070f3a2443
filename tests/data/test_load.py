"""Finding the form of a source, and choosing it by name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from madtp.data import load_data
from madtp.data.load import FORMS, TASKS
from madtp.errors import InputError


def test_named_sets_go_before_peoples_own_files(
    root: Path, paint: Callable[..., None], write: Callable[..., Path]
) -> None:
    paint("1.jpg")
    write("flickr30k_test.json", [{"image": "1.jpg", "caption": ["theirs"]}])
    write("test.csv", "image,caption\n1.jpg,own")
    assert load_data("caption", root, "test")[0].captions == ("theirs",)
    assert load_data("caption", f"table:{root}", "test")[0].captions == ("own",)
    assert load_data("caption", f"images:{root}", "test")[0].captions == ()


def test_several_sets_need_a_choice(root: Path, paint: Callable[..., None], write: Callable[..., Path]) -> None:
    paint("1.jpg")
    for name in ("coco_karpathy", "flickr30k"):
        write(f"{name}_test.json", [{"image": "1.jpg", "caption": [name]}])
    with pytest.raises(InputError, match=f"are there: blip-coco and blip-flickr30k; choose one: blip-coco:{root}"):
        load_data("retrieval", root, "test")
    assert load_data("retrieval", f"blip-flickr30k:{root}", "test")[0].captions == ("flickr30k",)
    with pytest.raises(InputError, match="the form 'nlvr2' is not for task 'retrieval'; known: karpathy"):
        load_data("retrieval", f"nlvr2:{root}", "test")
    with pytest.raises(InputError, match="no form of data for task 'vqa' is there; known: easy-vqa"):
        load_data("vqa", root, "test")
    with pytest.raises(InputError, match="no such folder or file"):
        load_data("retrieval", f"blip-flickr30k:{root}/nowhere", "test")


def test_paths_with_commas_and_colons_are_paths(root: Path, write: Callable[..., Path]) -> None:
    folder = write("a,b:c/test.csv", "image,caption\n1.jpg,a").parent
    (folder / "1.jpg").write_bytes(b"")
    assert load_data("caption", str(folder), "test").name == "a,b:c"


def test_every_task_has_a_form_for_peoples_own_data() -> None:
    assert len({form.name for form in FORMS}) == len(FORMS)
    for task in TASKS:
        assert any(form.own and task in form.tasks for form in FORMS)


def test_every_form_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert [form.name for form in FORMS if f"`{form.name}`" not in text] == []
