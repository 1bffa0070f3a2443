"""The folders that scenes are written to: questions in easy-VQA's form, captions in Karpathy's, statements in NLVR2's.

Each writer takes an empty folder and the samples of all splits, and gives back, split after split, the symbolic scenes
as JSON: one text a picture.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from madtp.data.scene_questions import ANSWERS
from madtp.data.scene_samples import NLVR2_SPLITS, SceneImage

Splits = Mapping[str, Iterable[Any]]
Written = Iterator[tuple[str, list[str]]]


def _write_vqa(folder: Path, splits: Splits) -> Written:
    for split, samples in splits.items():
        questions: list[str] = []
        notes: list[str] = []
        for sample in samples:
            _save(sample.image, folder / split / "images" / f"{sample.image_id}.png")
            index = int(sample.image_id)
            questions += [json.dumps([q.text, q.answers[0], index]) for q in sample.questions]
            kinds = [question.kind for question in sample.questions]
            notes.append(json.dumps({"image": index, "kinds": kinds, "scene": sample.image.scene.to_dict()}))
        (folder / split / "questions.json").write_text(json_list(questions) + "\n", encoding="utf-8")
        yield split, notes
    (folder / "answers.txt").write_text("\n".join(ANSWERS) + "\n", encoding="utf-8")


def _write_captions(folder: Path, splits: Splits) -> Written:
    """``dataset_scenes.json`` for all splits; ids of pictures and sentences are numbers in order."""
    images: list[str] = []
    n = 0
    for split, samples in splits.items():
        notes: list[str] = []
        for sample in samples:
            name = f"{sample.image_id}.png"
            _save(sample.image, folder / split / "images" / name)
            ids = range(n, n := n + len(sample.captions))
            entry = {
                "filepath": f"{split}/images",
                "filename": name,
                "split": split,
                "imgid": len(images),
                "sentids": list(ids),
                "sentences": [
                    {"raw": caption, "tokens": _words(caption), "imgid": len(images), "sentid": i}
                    for i, caption in zip(ids, sample.captions, strict=True)
                ],
            }
            images.append(json.dumps(entry))
            notes.append(json.dumps({"image": int(sample.image_id), "scene": sample.image.scene.to_dict()}))
        yield split, notes
    content = f'{{"dataset": "scenes", "images": {json_list(images)}}}\n'
    (folder / "dataset_scenes.json").write_text(content, encoding="utf-8")


def _write_pairs(folder: Path, splits: Splits) -> Written:
    """``train.json``, ``dev.json``, ``test1.json``: one JSON object a line; train's pictures in numbered folders."""
    for split, samples in splits.items():
        name = NLVR2_SPLITS[split]
        (folder / split).mkdir()
        lines: list[str] = []
        notes: list[str] = []
        for sample in samples:
            of_set = int(sample.image_id.split("-")[1])
            place = {"directory": of_set // 100} if split == "train" else {}
            images = folder / "images" / name / "/".join(str(number) for number in place.values())
            for k, image in enumerate(sample.images):
                picture = f"{sample.image_id}-img{k}"
                _save(image, images / f"{picture}.png")
                notes.append(json.dumps({"image": picture, "scene": image.scene.to_dict()}))
            for s in sample.statements:
                fields = {"identifier": s.statement_id, "sentence": s.text, "label": str(s.label), "kind": s.kind}
                lines.append(json.dumps({**fields, **place}))
        (folder / f"{name}.json").write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield split, notes


WRITERS: Mapping[str, Callable[[Path, Splits], Written]] = {
    "vqa": _write_vqa,
    "reasoning": _write_pairs,
    "caption": _write_captions,
    "retrieval": _write_captions,
}
BESIDE = ({"answers.txt"}, {"dataset_scenes.json"}, {"images", *(f"{name}.json" for name in NLVR2_SPLITS.values())})
"""What each of these forms has beside a folder for each split."""


def json_list(entries: Sequence[str]) -> str:
    """A JSON list, one entry a line."""
    return "[\n" + ",\n".join(entries) + "\n]"


def _save(image: SceneImage, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.open().save(path)


def _words(caption: str) -> list[str]:
    return caption.replace(",", " ").replace(":", " ").split()
