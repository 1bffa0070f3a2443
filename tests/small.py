"""The whole thing in miniature: generated pictures, a model that trains in a second, its processor, folders of both."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import BlipProcessor

from madtp.data.load import TASKS
from madtp.data.sample import Data
from madtp.data.scene_questions import ANSWERS
from madtp.data.scenes import load_scenes, write_scenes
from madtp.model.blip import MadtpBlipForQuestionAnswering
from madtp.model.clip_sizes import ClipSize, build_clip, build_clip_processor
from madtp.model.save import save_model
from madtp.model.sizes import Size, build_blip, build_processor, build_vqa
from madtp.task.registry import make_task, task_class

NANO = Size(image=21, patch=3, width=20, heads=2, vision_layers=3, text_layers=2, semantic=5, std=0.3, mlp=2)
NANO_CLIP = ClipSize(image=21, patch=3, width=20, heads=2, vision_layers=3, text_layers=2, semantic=5)
KINDS = (*TASKS, "clip")
"""What there is a nano model for: the BLIP of every task, and CLIP."""
PATCHES = 7 * 7
SEED = 3


@cache
def scenes(split: str, images: int, questions: int = 2) -> Data:
    """So many pictures with their first so many questions."""
    data = load_scenes("vqa", split, seed=SEED, limit=images)
    return replace(data, samples=tuple(replace(s, questions=s.questions[:questions]) for s in data.samples))


@cache
def processor() -> BlipProcessor:
    """With the words of the generated questions and answers, [ENC] and [DEC]."""
    samples = load_scenes("vqa", "train", seed=SEED, limit=40)
    texts = [question.text for sample in samples for question in sample.questions]
    return build_processor(NANO, texts + list(ANSWERS))


def nano_model(seed: int = 0, **madtp: Any) -> MadtpBlipForQuestionAnswering:
    """A fresh model from a seed, in evaluation mode; `madtp` are fields of `PruneConfig`."""
    torch.manual_seed(seed)
    model = build_vqa(NANO, len(processor().tokenizer))
    model.pruning = replace(model.pruning, **madtp)
    return model.eval()


def model_folder(out: Path, **madtp: Any) -> Path:
    """A saved model with its processor."""
    save_model(nano_model(**madtp), processor(), out)
    return out


def data_folder(out: Path) -> Path:
    """11 train, 2 val and 3 test pictures in easy-VQA's form."""
    return write_scenes(out, seed=SEED, n_train=11, n_val=2, n_test=3)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, hidden ones too: to show that nothing was touched."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@cache
def samples(task: str, split: str, count: int, texts: int = 2) -> Data:
    """So many samples of any task with their first so many texts."""
    field = {"vqa": "questions", "reasoning": "statements"}.get(task, "captions")
    data = load_scenes(task, split, seed=SEED, limit=count)
    return replace(data, samples=tuple(replace(s, **{field: s.texts[:texts]}) for s in data.samples))


@cache
def nano_processor(kind: str) -> Any:
    """With the words of the scenes of a kind's task."""
    task = "retrieval" if kind == "clip" else kind
    texts = task_class(task).words_of(load_scenes(task, "train", seed=SEED, limit=40))
    return build_clip_processor(NANO_CLIP, texts) if kind == "clip" else build_processor(NANO, texts)


def nano(kind: str, seed: int = 0, **madtp: Any) -> Any:
    """A fresh model of one of `KINDS` from a seed, in evaluation mode; `madtp` are fields of `PruneConfig`."""
    torch.manual_seed(seed)
    words = nano_processor(kind).tokenizer
    model = build_clip(NANO_CLIP, words) if kind == "clip" else build_blip(kind, NANO, len(words))
    model.pruning = replace(model.pruning, **madtp)
    return model.eval()


def nano_task(kind: str, **options: Any) -> Any:
    """The task of such a model, over its processor."""
    return make_task("retrieval" if kind == "clip" else kind, nano_processor(kind), **options)


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file can grow past so many bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
