"""Files of strangers: whatever is in them, they are read or refused with our own error; nothing else comes out.

The quick tier tries some inputs of every kind, `make test-long` 100,000 in all (`LONG`). Sizes and bytes are
hypothesis's; a file that fails is shrunk and shown.
"""

import io
import json
import logging
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as save_safetensors

from madtp import checkpoints
from madtp.data.faults import Faults
from madtp.data.images import decode
from madtp.data.load import load_data
from madtp.errors import InputError
from madtp.model.checkpoint import read_checkpoint
from madtp.model.load import _folder_config

LONG = {
    "picture": 30_000,
    "pth": 10_000,
    "safetensors": 10_000,
    "torchscript": 5_000,
    "run checkpoint": 5_000,
    "annotations": 25_000,
    "annotation bytes": 7_000,
    "tar": 5_000,
    "config": 3_000,
}
QUICK = 40


def pictures() -> list[bytes]:
    noise = np.random.default_rng(3).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    out = []
    for name in ("png RGB", "png P", "png RGBA", "jpeg RGB", "jpeg CMYK", "gif P", "bmp RGB", "webp RGB", "tiff RGB",
                 "tiff I;16", "ppm RGB", "ico RGB"):  # fmt: skip
        ending, mode = name.split()
        file = io.BytesIO()
        image = Image.fromarray(noise)
        image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, ending, **({"exif": exif} if ending in ("jpeg", "webp", "png") else {}))
        out.append(file.getvalue())
    return out


def state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(15.0).view(3, 5), "b": torch.ones(7, dtype=torch.float16), "n": torch.tensor(3)}


def pickled(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


class Tiny(torch.nn.Module):
    """With a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(15.0).view(3, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def torchscript() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # that it is old
        torch.jit.save(torch.jit.script(Tiny()), file)
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in [("a/1.png", pictures()[0]), ("a/1.txt", b"a red square"), ("2.json", b'{"caption": "x"}'),
                              ("2.jpg", pictures()[3]), ("../3.png", b"x"), ("/4.txt", b"\xff")]:  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@st.composite
def damaged(draw: st.DrawFn, sources: list[bytes]) -> bytes:
    """A file with some bytes changed, a piece taken out, put in or cut off; now and then anything at all."""
    how = draw(st.integers(0, 19))
    if how == 0:
        return draw(st.binary(max_size=200))
    content = bytearray(draw(st.sampled_from(sources)))
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)):
        content[place] = byte
    place = draw(st.integers(0, len(content)))
    if how < 5:
        del content[place:]
    elif how < 9:
        del content[place : place + draw(st.integers(0, 40))]
    elif how < 12:
        content[place:place] = draw(st.binary(max_size=40))
    return bytes(content)


FIELDS = (
    "image", "caption", "question", "answer", "question_id", "images", "sentence", "label", "identifier", "split",
    "sentences", "raw", "filename", "filepath", "qas", "qa_id", "image_id", "answers", "annotations", "questions",
    "directory", "multiple_choice_answer", "id", "kind", "captions", "statement", "left", "right", "text",
)  # fmt: skip
WORDS = (
    "a red square", "", " ", "1", "dev-850-0-0", "dev-850-0-img0.png", "train", "val", "true", "nan", "\ud800", "../x",
    "1.png", "/etc/passwd", "שלום", "🙂", "a\0b", "x" * 300, "COCO_val2014_000000000042.jpg",
)  # fmt: skip
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.just(10**30),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=9),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6)),
    max_leaves=14,
)
ENTRY = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=9)
# task, split and the files of a form of data
FORMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "karpathy": ("caption", "train", ("dataset_coco.json",)),
    "blip coco": ("retrieval", "train", ("coco_karpathy_train.json",)),
    "blip vqa": ("vqa", "train", ("vqa_train.json", "answer_list.json")),
    "vqav2": ("vqa", "val", ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json")),
    "vg": ("vqa", "train", ("question_answers.json",)),
    "blip vg": ("vqa", "train", ("vg_qa.json",)),
    "nlvr2": ("reasoning", "val", ("dev.json",)),
    "nlvr": ("reasoning", "val", ("dev/dev.json",)),
    "blip nlvr2": ("reasoning", "val", ("nlvr_dev.json",)),
    "easy-vqa": ("vqa", "train", ("train/questions.json", "answers.txt", "train/scenes.json")),
    "table csv": ("vqa", "train", ("a.csv",)),
    "table tsv": ("reasoning", "val", ("a.tsv",)),
    "table jsonl": ("caption", "train", ("a.jsonl",)),
}
SHAPES = st.one_of(
    VALUES,
    st.lists(ENTRY, max_size=4),
    st.builds(lambda key, value: {key: value}, st.sampled_from(("images", "questions", "annotations", "scenes")),
              st.lists(ENTRY, max_size=4)),
    st.lists(st.lists(PLAIN, min_size=3, max_size=3), max_size=4),
)  # fmt: skip


def as_lines(content: Any) -> str:
    entries = content if isinstance(content, list) else [content]
    return "\n".join(json.dumps(entry) for entry in entries)


def as_table(content: Any, separator: str) -> str:
    entries = [e for e in content if isinstance(e, dict)] if isinstance(content, list) else []
    names = list(dict.fromkeys(name for entry in entries for name in entry)) or ["image", "question", "answer"]
    rows = [names, *([str(entry.get(name, "")) for name in names] for entry in entries)]
    return "\n".join(separator.join(row) for row in rows)


@st.composite
def annotations(draw: st.DrawFn) -> tuple[str, dict[str, bytes]]:
    form = draw(st.sampled_from(sorted(FORMS)))
    files = {}
    for name in FORMS[form][2]:
        content = draw(SHAPES)
        if name.endswith((".csv", ".tsv")):
            text = as_table(content, "," if name.endswith("csv") else "\t")
        elif name.endswith(".jsonl") or form in ("nlvr2", "nlvr"):
            text = as_lines(content)
        else:
            text = json.dumps(content)
        files[name] = text.encode("utf-8", "surrogatepass")
    if form in ("nlvr2", "nlvr"):  # by its first line it is known
        first = {"identifier": "dev-850-0-0" if form == "nlvr2" else "1572-0", "sentence": "x", "label": "true"}
        (name,) = files
        files[name] = json.dumps(first).encode() + b"\n" + files[name]
    return form, files


def read_annotations(folder: Path, form: str, files: dict[str, bytes], skip: bool) -> None:
    for old in sorted(folder.rglob("*"), reverse=True):
        old.unlink() if old.is_file() else old.rmdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name in ("1.png", "images/1.png", "train/images/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    task, split, _ = FORMS[form]
    data = load_data(task, folder, split, faults=Faults("skip", 1.0) if skip else None)
    for sample in data:
        for image in sample.images:
            assert folder.resolve() in Path(image.path).resolve().parents, "out of the folder"  # type: ignore[attr-defined]


def target(kind: str, folder: Path) -> tuple[st.SearchStrategy[Any], Callable[[Any], object]]:
    """Inputs of a kind, and what reads them."""
    file = folder / {"safetensors": "a.safetensors", "tar": "a.tar", "run checkpoint": checkpoints.STATE}.get(
        kind, "a.pth"
    )

    def through(read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def run(content: bytes) -> object:
            file.write_bytes(content)
            return read(file)

        return run

    if kind == "picture":
        return damaged(pictures()), lambda content: decode(io.BytesIO(content), "it", 1_000_000)
    if kind == "pth":
        whole = [pickled({"model": state(), "temperature": 2.5}), pickled(state()),
                 pickled(state(), _use_new_zipfile_serialization=False)]  # fmt: skip
        return damaged(whole), through(read_checkpoint)
    if kind == "safetensors":
        return damaged([save_safetensors(state())]), through(read_checkpoint)
    if kind == "torchscript":
        return damaged([torchscript()]), through(read_checkpoint)
    if kind == "run checkpoint":
        checkpoints.write(folder, {"config": {}, "step": 3, "optimizer": {"a": torch.ones(7)}, "gradients": {}}, 1)
        return damaged([file.read_bytes()]), through(lambda path: checkpoints.read(path.parent))
    if kind == "annotations":
        return st.tuples(annotations(), st.booleans()), lambda drawn: read_annotations(folder, *drawn[0], drawn[1])
    if kind == "annotation bytes":
        good = b'{"image": "1.png", "question": "is it red?", "answer": "yes", "caption": "a square"}\n' * 2
        table = b'image,question,answer\n1.png,is it red?,yes\n1.png,"a, b",no\n'
        names = st.sampled_from([("table jsonl", "a.jsonl"), ("table csv", "a.csv"), ("table tsv", "a.tsv")])
        return st.tuples(names, damaged([good, table]), st.booleans()), lambda drawn: read_annotations(
            folder, drawn[0][0], {drawn[0][1]: drawn[1]}, drawn[2]
        )
    if kind == "tar":

        def read_tar(path: Path) -> None:
            for sample in load_data("caption", path, "test"):
                for image in sample.images:
                    image.open()

        return damaged([tar()]), through(read_tar)
    assert kind == "config"
    sizes = {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"], "text_config": {"vocab_size": 11}}
    file = folder / "config.json"
    return damaged([json.dumps(sizes).encode()]), through(lambda path: _folder_config(path.parent))


def fuzz(kind: str, folder: Path, count: int) -> None:
    strategy, read = target(kind, folder)
    tried = [0, 0]

    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(content: Any) -> None:
        tried[0] += 1
        try:
            read(content)
        except InputError:
            tried[1] += 1

    logging.disable(logging.CRITICAL)
    try:
        run()
    finally:
        logging.disable(logging.NOTSET)
    assert tried[0] >= count and tried[1] > 0, tried


@pytest.mark.parametrize("kind", LONG)
def test_some_files_of_strangers(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LONG)
def test_many_files_of_strangers(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, LONG[kind])


def test_they_are_100_000() -> None:
    assert sum(LONG.values()) == 100_000
