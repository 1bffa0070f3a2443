import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from madtp.data import TASKS, Data, load_data
from madtp.data import scene_samples as module
from madtp.data.scene import Scene, SceneSettings, make_scene
from madtp.data.scene_draw import draw_scene
from madtp.data.scene_samples import SceneImage
from madtp.data.scenes import N_TEST, N_TRAIN, N_VAL, load_scenes, parse_scenes, read_scenes, write_scenes
from madtp.errors import InputError

SIZES = {"train": 7, "val": 3, "test": 5}


def write(folder: Path, seed: int = 11, **options: object) -> Path:
    return write_scenes(folder, seed=seed, n_train=7, n_val=3, n_test=5, **options)  # type: ignore[arg-type]


def facts(data: Data[Any]) -> list[object]:
    return [(s.image_id, s.texts, s.objects) for s in data]


def scene_of(data: Data[Any], index: int, side: int = 0) -> Scene:
    image = data[index].images[side]
    assert isinstance(image, SceneImage)
    return image.scene


@pytest.mark.parametrize(
    ("source", "expected"), [("scenes", (0, 8000)), ("scenes:7", (7, 8000)), ("scenes:7:13", (7, 13))]
)
def test_parse(source: str, expected: tuple[int, int]) -> None:
    assert parse_scenes(source) == expected


def test_in_memory() -> None:
    data = load_data("vqa", "scenes:11:13")
    assert (len(data), data.n_texts, data.name, data.split) == (13, 13 * 8, "scenes:11:13", "train")
    assert data[5].objects == len(scene_of(data, 5).objects)
    assert scene_of(data, 5) == make_scene(11, "train", 5)
    assert all(q.kind and q.answers[0] in data.answers for s in data for q in s.questions)
    assert len({q.question_id for s in data for q in s.questions}) == data.n_texts
    assert data[0].image.open().size == (64, 64)


def test_default_sizes() -> None:
    assert (N_TRAIN, N_VAL, N_TEST) == (8000, 500, 1000)
    assert len(load_data("vqa", "scenes", "val")) == 500
    assert len(load_data("vqa", "scenes", "train", limit=3)) == 3


@pytest.mark.parametrize("task", TASKS)
def test_test_split_does_not_hang_on_the_size_of_train(task: str) -> None:
    assert facts(load_data(task, "scenes:5:17", "test", limit=7)) == facts(
        load_data(task, "scenes:5:999", "test", limit=7)
    )
    assert facts(load_data(task, "scenes:5:17"))[:7] == facts(load_data(task, "scenes:5:999", limit=7))


@pytest.mark.parametrize("task", ["vqa", "reasoning"])
def test_splits_and_seeds_differ(task: str) -> None:
    sets = [load_scenes(task, split, seed=seed, limit=18) for split in SIZES for seed in (0, 1)]
    scenes = {scene_of(data, i, side) for data in sets for i in range(18) for side in range(len(data[0].images))}
    assert len(scenes) == 6 * (18 if task == "vqa" else 9 * 3)  # two pairs share a picture


def test_captions_are_of_the_pictures_that_questions_are_about() -> None:
    asked, captioned, retrieved = (load_scenes(task, "val", limit=13) for task in ("vqa", "caption", "retrieval"))
    assert [s.images for s in asked] == [s.images for s in captioned]
    assert captioned == retrieved
    assert {len(s.captions) for s in captioned} == {5}
    assert (captioned.n_texts, captioned.answers, captioned.name) == (5 * 13, (), "scenes:0:8000")


def test_pairs_are_named_as_in_nlvr2() -> None:
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test1")):
        data = load_data("reasoning", "scenes:3:19", split, limit=3)
        assert [s.image_id for s in data] == [f"{name}-0-0", f"{name}-0-1", f"{name}-1-0"]
        statement = data[1].statements[5]
        assert (statement.statement_id, statement.group) == (f"{name}-0-1-5", f"{name}-0-5")
        assert data[2].objects == len(scene_of(data, 2, 0).objects) + len(scene_of(data, 2, 1).objects)


@pytest.mark.parametrize(
    ("task", "expected"),
    [("vqa", "2ad04577a73ef11b"), ("reasoning", "669f2401caa6207f"), ("caption", "b858ed4ce8ce25b5")],
)
def test_the_same_everywhere_and_for_ever(task: str, expected: str) -> None:
    """Published figures are of these scenes and texts: a change here makes them stale."""
    data = load_scenes(task, "test", limit=41)
    assert hashlib.sha256(repr(data.samples).encode()).hexdigest()[:16] == expected


def test_settings_reach_scene_and_questions() -> None:
    data = load_scenes("vqa", "val", limit=11, settings=SceneSettings(side=32, objects=(2, 2), questions=3))
    assert {(s.objects, len(s.questions), s.image.open().size) for s in data} == {(2, 3, (32, 32))}


def test_samples_can_be_sent_to_workers() -> None:
    data = load_scenes("vqa", limit=2)
    assert pickle.loads(pickle.dumps(data)) == data


def test_written_folder_reads_back_equal(tmp_path: Path) -> None:
    folder = write(tmp_path / "deep" / "pictures")
    assert sorted(p.name for p in folder.iterdir()) == ["answers.txt", "test", "train", "val"]
    assert [p.name for p in folder.parent.iterdir()] == ["pictures"]
    for split, n in SIZES.items():
        memory, disk = load_scenes("vqa", split, seed=11, limit=n), load_data("vqa", folder, split)
        assert facts(memory) == facts(disk)
        assert memory.answers == disk.answers
        assert (len(disk), disk.name, disk.split) == (n, "pictures", split)
        assert all(a.image.open().tobytes() == b.image.open().tobytes() for a, b in zip(memory, disk, strict=True))
        assert read_scenes(folder, split) == {str(i): scene_of(memory, i) for i in range(n)}
    head = json.loads((folder / "val" / "scenes.json").read_text())
    assert (head["schema"], head["seed"], head["split"], head["settings"]["side"]) == (1, 11, "val", 64)


@pytest.mark.parametrize("task", ["reasoning", "caption", "retrieval"])
def test_written_folders_of_other_tasks_read_back(tmp_path: Path, task: str) -> None:
    """All but what these forms have no place for: kinds and numbers of objects, which scenes.json keeps."""
    folder = write(tmp_path / "made", task=task)
    for split, n in SIZES.items():
        memory, disk = load_scenes(task, split, seed=11, limit=n), load_data(task, folder, split)
        assert (len(disk), disk.name, disk.split) == (n, "made", split)
        scenes = read_scenes(folder, split)
        assert len(scenes) == n * len(memory[0].images)
        for here, there in zip(memory, disk, strict=True):
            assert here.image_id == there.image_id
            texts = here.texts if task != "reasoning" else tuple(replace(s, kind="") for s in here.texts)
            assert texts == there.texts
            assert [i.open().tobytes() for i in here.images] == [i.open().tobytes() for i in there.images]
        assert list(scenes.values()) == [image.scene for sample in memory for image in sample.images]
    write(folder, task="vqa", overwrite=True)  # one of ours gives way to another


def test_written_captions_are_in_karpathys_form(tmp_path: Path) -> None:
    content = json.loads((write(tmp_path / "a", task="caption") / "dataset_scenes.json").read_text())
    images = content["images"]
    assert [image["imgid"] for image in images] == list(range(7 + 3 + 5))
    assert (images[8]["filepath"], images[8]["filename"], images[8]["split"]) == ("val/images", "1.png", "val")
    assert [s["sentid"] for image in images for s in image["sentences"]] == list(range(5 * 15))
    assert [image["sentids"] for image in images][2] == [10, 11, 12, 13, 14]
    sentence = images[8]["sentences"][2]
    assert sentence["raw"] == load_scenes("caption", "val", seed=11)[1].captions[2]
    assert sentence["tokens"] == sentence["raw"].replace(",", "").replace(":", "").split()


def test_written_statements_are_in_nlvr2s_form(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", task="reasoning")
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["dev.json", "images", "test", "test1.json", "train", "train.json", "val"]
    )
    entry = json.loads((folder / "train.json").read_text().splitlines()[8])
    expected = load_scenes("reasoning", "train", seed=11, limit=2)[1].statements[0]
    assert entry == {
        "identifier": "train-0-1-0",
        "sentence": expected.text,
        "label": str(expected.label),
        "kind": expected.kind,
        "directory": 0,
    }
    lines = (folder / "dev.json").read_text().splitlines()
    assert {json.loads(line)["label"] for line in lines} == {"True", "False"}
    assert (folder / "images" / "train" / "0" / "train-3-0-img1.png").is_file()
    assert (folder / "images" / "dev" / "dev-1-0-img0.png").is_file()


def test_written_folder_is_easy_vqa_without_our_notes(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "test" / "scenes.json").unlink()
    data = load_data("vqa", folder, "test")
    assert len(data) == 5
    assert data[0].objects is None


def test_notes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    path = folder / "test" / "questions.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    with pytest.raises(InputError, match=r"scenes.json: does not fit questions.json, images concerned: 1: 4"):
        load_data("vqa", folder, "test")


def test_read_scenes_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_scenes(tmp_path)
    (tmp_path / "train").mkdir()
    for content in (
        "{",
        "[]",
        '{"schema": 1}',
        '{"schema": 2, "scenes": []}',
        '{"schema": 1, "scenes": [{"image": 0}]}',
    ):
        (tmp_path / "train" / "scenes.json").write_text(content)
        with pytest.raises(InputError, match="is not a scenes file"):
            read_scenes(tmp_path)


def test_taken_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    for name, overwrite, words in [
        ("file", True, "is a file"),
        ("photos", False, "holds something already"),
        ("photos", True, "is not a folder of scenes"),
    ]:
        with pytest.raises(InputError, match=words):
            write(tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "cat"
    assert len(list(tmp_path.iterdir())) == 2


def test_overwrite_replaces_our_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()  # an empty folder is free
    write(tmp_path / "a")
    with pytest.raises(InputError, match="holds something already"):
        write(tmp_path / "a")
    write(tmp_path / "a", seed=13, overwrite=True)
    assert facts(load_data("vqa", tmp_path / "a", "val")) == facts(load_scenes("vqa", "val", seed=13, limit=3))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failed_write_leaves_nothing_and_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write(tmp_path / "old")
    before = facts(load_data("vqa", tmp_path / "old", "test"))
    drawn: list[Scene] = []

    def draw(scene: Scene) -> Image.Image:
        drawn.append(scene)
        if len(drawn) == 9:  # past train, in the midst of val
            raise error
        return draw_scene(scene)

    monkeypatch.setattr(module, "draw_scene", draw)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    for name in ("new", "old"):
        drawn.clear()
        with pytest.raises(expected):
            write(tmp_path / name, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert facts(load_data("vqa", tmp_path / "old", "test")) == before


def test_a_killed_write_leaves_no_folder_that_looks_whole(tmp_path: Path) -> None:
    code = f"from madtp.data.scenes import write_scenes; write_scenes({str(tmp_path / 'a')!r}, n_train=10**6)"
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        while process.poll() is None and not list(tmp_path.glob(".a.*/train/images/5.png")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    (left,) = tmp_path.iterdir()
    with pytest.raises(InputError, match=r"answers\.txt: no such file"):
        load_data("vqa", left)


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 2**32}, {"n_train": 0}, {"n_val": 0}, {"n_test": -5}])
def test_numbers_out_of_range(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(InputError):
        write_scenes(tmp_path / "a", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="unknown split"):
        load_scenes("vqa", "dev")
    with pytest.raises(InputError, match="unknown task 'captioning'"):
        load_scenes("captioning")
    with pytest.raises(InputError, match="unknown task 'nlvr'"):
        write_scenes(tmp_path / "a", task="nlvr")
