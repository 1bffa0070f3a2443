"""The one way to load a data set: `load_data(task, source, split)`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from madtp.data.captions import KARPATHY, blip_file, load_blip_captions, load_karpathy
from madtp.data.easy_vqa import load_easy_vqa
from madtp.data.faults import Faults, reading
from madtp.data.files import first
from madtp.data.gather import Request, check_ids
from madtp.data.nlvr import BLIP_FILES, is_nlvr, is_nlvr2, load_blip_nlvr2, load_nlvr, load_nlvr2
from madtp.data.sample import SPLITS, Data
from madtp.data.shards import is_pattern, is_shards, load_shards
from madtp.data.stream import Stream
from madtp.data.table import is_images, load_images, load_table, tables
from madtp.data.vqa import QUESTIONS, SUBTYPES, load_blip_vg, load_blip_vqa, load_vg, load_vqav2
from madtp.errors import InputError

TASKS = ("vqa", "reasoning", "caption", "retrieval")
CAPTIONS = ("caption", "retrieval")


@dataclass(frozen=True)
class Form:
    """A form of data that is known.

    Args:
        name: for messages, and to choose it: ``NAME:PATH``.
        tasks: for which it is.
        fits: whether a source has it.
        load: its reader.
        looks: by what it is known, for messages.
        own: people's own data, which counts only where no data set is known by its files.
    """

    name: str
    tasks: tuple[str, ...]
    fits: Callable[[Request], bool]
    load: Callable[[Request], Data[Any]]
    looks: str
    own: bool = False


def _holds(*names: str) -> Callable[[Request], bool]:
    return lambda request: bool(request.annotations(*names))


def _blip(of: str) -> Form:
    names = [blip_file(split, of) for split in SPLITS]
    return Form(f"blip-{of}", CAPTIONS, _holds(*names), partial(load_blip_captions, of=of), names[0])


def _is_easy(request: Request) -> bool:
    parts = [request.path / split for split in SPLITS]
    if any((part / "questions.json").is_file() for part in parts):
        return True
    return any((part / "images").is_dir() for part in parts) and not tables(request.path)  # half of one


def _easy(request: Request) -> Data[Any]:
    return load_easy_vqa(request.path, request.split, limit=request.limit, skip_missing=request.skip_missing)


def _is_blip_vg(request: Request) -> bool:
    # In the folder of all of BLIP's files it stands beside VQAv2's, and is joined to them by its own name.
    return bool(request.annotations("vg_qa.json")) and not request.annotations(*BLIP_VQA)


V2 = [QUESTIONS.format(subtype) for subtypes in SUBTYPES.values() for subtype in subtypes]
BLIP_VQA = [f"vqa_{split}.json" for split in SPLITS]
FORMS = (
    Form("easy-vqa", ("vqa",), _is_easy, _easy, "train/questions.json"),
    Form("vqav2", ("vqa",), _holds(*V2), load_vqav2, V2[0]),
    Form("vg", ("vqa",), _holds("question_answers.json"), load_vg, "question_answers.json"),
    Form("blip-vqa", ("vqa",), _holds(*BLIP_VQA), load_blip_vqa, BLIP_VQA[0]),
    Form("blip-vg", ("vqa",), _is_blip_vg, load_blip_vg, "vg_qa.json"),
    Form("nlvr2", ("reasoning",), is_nlvr2, load_nlvr2, "dev.json with ids like dev-850-0-0"),
    Form("nlvr", ("reasoning",), is_nlvr, load_nlvr, "dev/dev.json with ids like 1572-0"),
    Form("blip-nlvr2", ("reasoning",), _holds(*BLIP_FILES.values()), load_blip_nlvr2, BLIP_FILES["train"]),
    Form("karpathy", CAPTIONS, _holds(*KARPATHY), load_karpathy, KARPATHY[0]),
    _blip("coco"),
    _blip("flickr30k"),
    Form("shards", ("vqa", *CAPTIONS), is_shards, load_shards, "*.tar", own=True),
    Form("table", TASKS, lambda request: bool(tables(request.path)), load_table, "a .csv, .tsv or .jsonl", own=True),
    Form("images", ("caption",), is_images, load_images, "pictures alone", own=True),
)


def load_data(
    task: str,
    source: str | Path,
    split: str = "train",
    *,
    limit: int | None = None,
    skip_missing: bool = False,
    faults: Faults | None = None,
) -> Data[Any]:
    """Load one split of a data set; all that can be checked without decoding pictures is checked.

    Args:
        task: one of `TASKS`; says of which kind the samples are (captions serve captioning and retrieval).
        source: ``scenes``, ``scenes:SEED`` or ``scenes:SEED:N_TRAIN`` (pictures generated in memory, see
            `madtp.data.scenes`), or a folder or file in a form that is known for the task (`FORMS`, docs/data.md),
            which is found from what lies there or named as ``FORM:PATH``. Several sources joined by commas are one
            data set. A folder that happens to be called "scenes" is ``./scenes``.
        split: "train", "val" or "test".
        limit: keep only the first this many samples (with all their texts); None keeps all.
        skip_missing: leave out samples whose pictures are not there, instead of stopping.
        faults: what to do about faulty entries; None = the first stops. Skipping them includes `skip_missing`.

    Raises:
        InputError: unknown task or split, wrong limit, no such source, a form that is unknown or not clear, a fault in
            its files, or texts without answers, labels or captions where the split cannot do without.
    """
    with reading(faults, split):
        data = open_data(task, source, split, limit=limit, skip_missing=skip_missing)
    if data.hidden and (split == "train" or task == "retrieval"):
        what = {"vqa": "questions without answers", "reasoning": "statements without labels"}
        use = "train on" if split == "train" else "search among"
        raise InputError(f"{data.hidden} {what.get(task, 'pictures without captions')}: nothing to {use}", source)
    return data


def open_data(
    task: str,
    source: str | Path,
    split: str = "train",
    *,
    limit: int | None = None,
    skip_missing: bool = False,
    check_images: bool = True,
) -> Data[Any]:
    """As `load_data`, of a split for any use; ``check_images=False`` does without the pictures, for work on texts."""
    from madtp.data.scenes import load_scenes, parse_scenes

    _check(task, split, limit)
    if isinstance(source, str) and source.split(":")[0] == "scenes":
        seed, n_train = parse_scenes(source)
        return load_scenes(task, split, seed=seed, n_train=n_train, limit=limit)
    parts = [source] if isinstance(source, Path) or Path(source).exists() else _parts(source)
    found = [_find(str(part), Request(Path(part), task, split, limit, skip_missing, check_images)) for part in parts]
    if len(found) > 1 and split != "train":  # what only helps in training is no part of the other splits
        found = [pair for pair in found if pair[0].name not in TRAIN_ONLY] or found
    return _join([form.load(request) for form, request in found], source, limit)


def load_stream(
    task: str,
    source: str | Path,
    *,
    buffer: int = 1000,
    limit: int | None = None,
    skip_missing: bool = False,
    faults: Faults | None = None,
    counts: Sequence[Path] = (),
) -> Stream:
    """The training split of tar shards, to be read in sequence: of its samples the numbers alone are held.

    Args:
        task, limit, skip_missing, faults: as `load_data` takes them.
        source: one source, of tar shards.
        buffer: samples that each of a run's loaders shuffles among.
        counts: files of a run that counted the shards before.

    Raises:
        InputError: as `load_data`; the source is of another form.
    """
    _check(task, "train", limit)
    fix, several = "leave out --stream", not Path(source).exists() and len(_parts(str(source))) > 1
    if several or str(source).split(":")[0] == "scenes":
        raise InputError("only tar shards can be streamed, and one source of them", source, fix)
    form, request = _find(str(source), Request(Path(source), task, "train", limit, skip_missing))
    if form.name != "shards":
        raise InputError(f"only tar shards can be streamed, this is {form.name}", source, fix)
    with reading(faults, "train"):
        return Stream(request, buffer, counts)


def _check(task: str, split: str, limit: int | None) -> None:
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}", "--task", f"use one of {', '.join(TASKS)}")
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}", "split", f"use one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise InputError(f"{limit} pictures are none", "limit", "use 1 or more")


TRAIN_ONLY = ("vg", "blip-vg")


def _parts(source: str) -> list[str]:
    return [part.strip() for part in source.split(",") if part.strip()] or [source]


def _find(source: str, request: Request) -> tuple[Form, Request]:
    """The form of a source, and the request with its path. Raises InputError where none fits, or several."""
    forms = [form for form in FORMS if request.task in form.tasks]
    known = "; ".join(f"{form.name} ({form.looks})" for form in forms)
    name, _, path = source.partition(":")
    if path and not request.path.exists() and name in {form.name for form in FORMS}:
        forms = [form for form in forms if form.name == name]
        request = replace(request, path=Path(path))
        if not forms:
            raise InputError(f"the form {name!r} is not for task {request.task!r}", source, f"known: {known}")
    if not request.path.exists() and not is_pattern(str(request.path)):
        raise InputError("no such folder or file", request.path, "give a data folder or 'scenes'")
    fits = [form for form in forms if not form.own and form.fits(request)]
    if not fits:
        fits = [form for form in forms if form.own and form.fits(request)][:1]
    if not fits:
        raise InputError(f"no form of data for task {request.task!r} is there", request.path, f"known: {known}")
    if len(fits) > 1:
        what = f"several data sets are there: {' and '.join(form.name for form in fits)}"
        raise InputError(what, request.path, f"choose one: {fits[0].name}:{request.path}")
    return fits[0], request


def _join(parts: Sequence[Data[Any]], source: str | Path, limit: int | None) -> Data[Any]:
    """Several data sets as one: pictures one after the other, the answers of all."""
    if len(parts) == 1:
        return parts[0]
    samples = [sample for part in parts for sample in part.samples]
    twice = [name for name, count in Counter(sample.image_id for sample in samples).items() if count > 1]
    if twice:
        raise InputError(f"pictures of the same name in several sources: {first(twice)}", source, "join others")
    check_ids([text for sample in samples for text in sample.texts], source)
    answers = tuple(dict.fromkeys(answer for part in parts for answer in part.answers))
    return Data(tuple(samples[:limit]), "+".join(part.name for part in parts), parts[0].split, answers)
