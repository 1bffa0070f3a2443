"""Folders in easy-VQA's form (https://github.com/vzhou842/easy-VQA).

What lies where::

    answers.txt                 every answer there is, one a line
    train/questions.json        [[question, answer, image id], ...]
    train/images/ID.png
    val/...                     optional; without it val is a fixed tenth of train's pictures
    test/...
    */scenes.json               optional, from `madtp.data.scenes.write_scenes`: question kinds and object counts
"""

from dataclasses import dataclass
from pathlib import Path

from madtp.data.faults import may_skip, pass_over, read_so_far
from madtp.data.files import MAX_TEXT, first, read_answers, read_json, short
from madtp.data.gather import report_missing
from madtp.data.images import ImageFile
from madtp.data.sample import Data, Question, VqaSample, is_text
from madtp.data.split import hold_out
from madtp.errors import InputError
from madtp.pace import paced

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
FOLDER = "an easy-VQA folder holds answers.txt, train and test"
FORM = "expected [[question, answer, image id], ...]"


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    text: str
    answer: str
    image_id: str


def load_easy_vqa(
    folder: str | Path, split: str = "train", *, limit: int | None = None, skip_missing: bool = False
) -> Data[VqaSample]:
    """Load one split of a folder in easy-VQA's form.

    Pictures come in the order in which ``questions.json`` first names them. A question's id is the folder it stands in
    and its place in the file, e.g. ``train-17``. Without a ``val`` folder, val is a tenth of train's pictures, the same
    ones whatever the seed, and train is the rest.

    Args:
        folder: the folder that holds ``answers.txt`` and the splits.
        split: "train", "val" or "test".
        limit: keep only the first this many pictures; everything is checked all the same.
        skip_missing: leave out questions whose pictures are not there.

    Raises:
        InputError: a file is missing or wrong, a question names a picture that does not exist, or an answer is not
            in ``answers.txt``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", folder, "give a data folder or 'scenes'")
    answers = read_answers(folder / "answers.txt", FOLDER)
    held_out = split != "test" and not (folder / "val").is_dir()
    part = folder / ("train" if held_out else split)
    if not part.is_dir():
        raise InputError(f"no folder {part.name!r}", folder, FOLDER)

    rows = _with_known(_read_questions(part / "questions.json"), answers, part / "questions.json")
    by_image: dict[str, list[_Row]] = {}
    for row in rows:
        by_image.setdefault(row.image_id, []).append(row)
    files = _find_images(by_image, part, skip_missing)
    notes = _read_notes(part, by_image)
    if held_out:
        chosen = hold_out(by_image, split, part)
        by_image = {key: rows for key, rows in by_image.items() if key in chosen}

    samples = []
    for image_id in [image_id for image_id in by_image if image_id in files][:limit]:
        kinds, objects = notes.get(image_id, (None, None))
        questions = tuple(
            Question(
                text=row.text,
                answers=(row.answer,),
                weights=(1.0,),
                question_id=f"{part.name}-{row.number}",
                kind=question_kind(row.text) if kinds is None else kinds[k],
            )
            for k, row in enumerate(by_image[image_id])
        )
        samples.append(VqaSample(image_id, ImageFile(files[image_id]), questions, objects))
    if not samples:
        raise InputError(f"nothing is left of split {split!r}", part, "give its pictures")
    return Data(tuple(samples), folder.resolve().name, split, answers)


def question_kind(text: str) -> str:
    """The kind of one of easy-VQA's own questions: "color", "shape" or "exist"; "" for any other wording."""
    words = text.lower().rstrip("?").split()
    if words[:2] == ["what", "color"] or words[:4] == ["what", "is", "the", "color"]:
        return "color"
    if words[:2] == ["what", "shape"] or (words[:3] == ["what", "is", "the"] and words[-1] == "shape"):
        return "shape"
    if words[:3] == ["does", "the", "image"] or words[:2] == ["is", "there"]:
        return "exist"
    return "exist" if words[:1] == ["is"] and words[-1] == "present" else ""


def _read_questions(path: Path) -> list[_Row]:
    entries = read_json(path, FOLDER)
    if not isinstance(entries, list) or not entries:
        raise InputError("holds no list of questions", path, FORM)
    rows = []
    read_so_far(len(entries))
    for number, entry in enumerate(paced(entries, len(entries))):
        where = f"{path}, question {number}"
        try:
            rows.append(_row(entry, number, where))
        except InputError as error:
            pass_over(error, where)
    return rows


def _row(entry: object, number: int, where: str) -> _Row:
    if not isinstance(entry, list) or len(entry) != 3:
        raise InputError(f"is {short(entry)}", where, FORM)
    text, answer, image_id = entry
    if not isinstance(text, str) or not isinstance(answer, str) or not text.strip() or not answer.strip():
        raise InputError(f"question and answer must be words, not {short(entry)}", where, FORM)
    if not is_text(text + answer):
        raise InputError("holds half a character", where, "write whole ones")
    if len(text) + len(answer) > MAX_TEXT:
        raise InputError(f"has {len(text) + len(answer)} characters, more than {MAX_TEXT}", where, "shorten it")
    if isinstance(image_id, bool) or not isinstance(image_id, int | str):
        raise InputError(f"the image id is {short(image_id)}", where, "use a number or a name")
    return _Row(number, text.strip(), answer.strip(), str(image_id))


def _with_known(rows: list[_Row], answers: tuple[str, ...], path: Path) -> list[_Row]:
    """The rows whose answers are in the list. Raises InputError for others, unless they may be left out."""
    known, fix = set(answers), "add them to answers.txt"
    wrong = [row for row in rows if row.answer not in known]
    if wrong and not may_skip():
        told = first([f"{row.answer!r} (question {row.number})" for row in wrong])
        raise InputError(f"answers that answers.txt lacks: {told}", path, fix)
    for row in wrong:
        where = f"{path}, question {row.number}"
        pass_over(InputError(f"the answer {short(row.answer)} is not in answers.txt", where, fix), where)
    return [row for row in rows if row.answer in known]


def _find_images(by_image: dict[str, list[_Row]], part: Path, skip_missing: bool) -> dict[str, Path]:
    """Image id -> file. Ids are looked up among the files there are, so none can lead out of the folder."""
    folder = part / "images"
    try:
        present = sorted(folder.iterdir())
    except OSError as error:
        raise InputError("no folder of images", folder, "an easy-VQA split holds questions.json and images") from error
    files = {p.stem: p for end in reversed(IMAGE_ENDINGS) for p in present if p.suffix.lower() == end}
    missing = [image_id for image_id in by_image if image_id not in files]
    report_missing(missing, folder, skip_missing, "add the files ID.png or drop the questions")
    return files


def _read_notes(part: Path, by_image: dict[str, list[_Row]]) -> dict[str, tuple[list[str], int]]:
    """Image id -> (kind of each question, number of objects) from scenes.json; empty where there is none."""
    path = part / "scenes.json"
    if not path.exists():
        return {}
    content = read_json(path, FOLDER)
    try:
        notes = {
            str(entry["image"]): ([str(kind) for kind in entry["kinds"]], len(entry["scene"]["objects"]))
            for entry in content["scenes"]
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"is not a scenes file: {error!r}", path, "write it anew or remove it") from error
    unequal = [i for i, rows in by_image.items() if i not in notes or len(notes[i][0]) != len(rows)]
    if unequal and not may_skip():
        what = f"does not fit questions.json, images concerned: {first(unequal)}"
        raise InputError(what, path, "write it anew or remove it")
    return {image_id: note for image_id, note in notes.items() if image_id not in unequal}
