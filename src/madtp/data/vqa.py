"""Questions with several human answers: VQAv2 and Visual Genome in their official files, and both in BLIP's.

VQAv2 (https://visualqa.org): a file of questions and a file of answers a split, over COCO's pictures. Visual Genome
(https://homes.cs.washington.edu/~ranjay/visualgenome): one answer a question, and no splits; it helps in training.
"""

from collections import Counter
from collections.abc import Sequence

from madtp.data.faults import may_skip, pass_over
from madtp.data.files import Entry, first, read_entries
from madtp.data.gather import Request, group, picture_id
from madtp.data.sample import Data, Question, VqaSample
from madtp.errors import InputError

SUBTYPES = {"train": ("train2014",), "val": ("val2014",), "test": ("test2015", "test-dev2015")}
QUESTIONS, ANSWERS = "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json"
COCO = ("coco", "../coco", "../coco/images", "../datasets/vision/coco", "../datasets/vision/coco/images")
VG = ("VG_100K", "VG_100K_2", "../visual-genome", "../datasets/vision/visual-genome")
VG_WEIGHT = 0.2
"""What a question of Visual Genome counts in training, as in BLIP: it has one answer where VQAv2 has ten."""


def weighted(answers: Sequence[str], best: str | None = None) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Distinct answers, the most given first, and the share of people who gave each; BLIP's way: as they wrote them.

    Args:
        answers: what people answered; blank ones do not count.
        best: the answer that the data set itself calls the most given, to settle a tie for the first place.
    """
    counts = Counter(answer for answer in answers if answer)
    ranked = sorted(counts, key=lambda answer: (-counts[answer], answer != best))
    return tuple(ranked), tuple(counts[answer] / counts.total() for answer in ranked)


def make_question(entry: Entry, answers: Sequence[str], name: str, best: str | None = None) -> Question:
    """The question of an entry; from ten answers on they also are the references of the VQA accuracy."""
    distinct, weights = weighted(answers, best)
    return Question(
        text=entry.text("question"),
        answers=distinct,
        weights=weights,
        question_id=name,
        kind=str(entry.get("question_type", "kind") or ""),
        references=tuple(answers) if len(answers) >= 10 else (),
        answer_kind=str(entry.get("answer_type") or ""),
    )


def load_vqav2(request: Request) -> Data[VqaSample]:
    """VQAv2 in its official files; test questions have no answers, so they can be predicted but not scored.

    Raises:
        InputError: no file of the split, a fault in it, questions without answers, or pictures are missing.
    """
    file = request.split_file(*(QUESTIONS.format(subtype) for subtype in SUBTYPES[request.split]))
    questions = read_entries(file, "questions")
    subtype = next(subtype for subtype in SUBTYPES[request.split] if file.name == QUESTIONS.format(subtype))
    truth: dict[str, Entry] = {}
    if request.split != "test":
        path = file.with_name(ANSWERS.format(subtype))
        entries = read_entries(path, "annotations", "VQAv2 has the answers of this split there")
        truth = {str(entry.get("question_id")): entry for entry in entries}
        bare = [str(q.get("question_id")) for q in questions if str(q.get("question_id")) not in truth]
        if bare and not may_skip():
            raise InputError(f"questions that have no answers: {first(bare)}", path, "give the files of one version")
    pictures = subtype.replace("-dev", "")

    def names(entry: Entry) -> list[str]:
        number = entry.get("image_id")
        if not isinstance(number, int):
            raise InputError(f"the image id is {number!r:.60}", entry.where, "expected COCO's number")
        return [f"{pictures}/COCO_{pictures}_{number:012d}.jpg"]

    def question(entry: Entry) -> Question:
        name = entry.text("question_id")
        if not truth:
            return make_question(entry, (), name)
        told = truth.get(str(entry.get("question_id")))
        if told is None:
            raise InputError(f"question {name} has no answers", entry.where, "give the files of one version")
        merged = Entry({**told.fields, "question": entry.get("question")}, entry.path, entry.place)
        best = told.get("multiple_choice_answer")
        return make_question(merged, _human_answers(told), name, best)

    return request.data(group(questions, names, question), request.roots(*COCO))


def _human_answers(entry: Entry) -> list[str]:
    given = entry.get("answers")
    if not isinstance(given, list) or not all(isinstance(a, dict) and isinstance(a.get("answer"), str) for a in given):
        raise InputError("has no list 'answers' of {'answer': ...}", entry.where, "give VQAv2's own file")
    answers = [answer["answer"].strip() for answer in given]
    if not any(answers):
        raise InputError("has only blank answers", entry.where, "drop the question")
    return answers


def load_vg(request: Request) -> Data[VqaSample]:
    """Visual Genome's ``question_answers.json``, all of it for training; answers in small letters, without full stop.

    Raises:
        InputError: another split than train, a fault in the file, or pictures are missing.
    """
    _train_only(request)
    path = request.split_file("question_answers.json")
    entries = []
    for picture in read_entries(path):
        asked = picture.get("qas") or []
        if not isinstance(asked, list) or not all(isinstance(fields, dict) for fields in asked):
            error = InputError("'qas' is no list of questions", picture.where, "give Visual Genome's own file")
            pass_over(error, picture.where)
            continue
        entries += [
            Entry({"image_id": picture.get("id", "image_id"), **fields}, path, f"{picture.place}, question {k}")
            for k, fields in enumerate(asked)
        ]

    def question(entry: Entry) -> Question:
        return _vg_question(entry, f"vg-{entry.text('qa_id')}")

    groups = group(entries, lambda entry: [f"{entry.text('image_id')}.jpg"], question)
    return request.data(groups, request.roots(*VG), name_of=vg_id)


def vg_id(names: tuple[str, ...]) -> str:
    """Visual Genome's number, marked so that it never is one of COCO's."""
    return f"vg-{picture_id(names)}"


def _vg_question(entry: Entry, name: str) -> Question:
    answer = entry.text("answer").lower().removesuffix(".").strip() or entry.text("answer")
    return Question(entry.text("question"), (answer,), (VG_WEIGHT,), name)


def _train_only(request: Request) -> None:
    if request.split != "train":
        fix = "join it with a data set that has one: --data VQAV2,VG"
        raise InputError(f"Visual Genome has no split {request.split!r}", request.path, fix)


def load_blip_vqa(request: Request) -> Data[VqaSample]:
    """VQAv2 in BLIP's files ``vqa_train.json``, ``vqa_val.json``, ``vqa_test.json``; test questions have no answers.

    Raises:
        InputError: no file of the split, a fault in it, or pictures are missing.
    """
    file = request.split_file(f"vqa_{request.split}.json")

    def question(entry: Entry) -> Question:
        answers, given = entry.texts("answer"), entry.get("answer")
        if not answers and request.split != "test":
            raise InputError("has no 'answer'", entry.where, "expected a list of answers")
        # A blank answer is one of the ten people's: without it the question would have too few for the VQA accuracy.
        blank = [""] * (len(given) - len(answers)) if isinstance(given, list) and answers else []
        return make_question(entry, answers + blank, entry.text("question_id"))

    groups = group(read_entries(file), lambda entry: [entry.text("image")], question)
    return request.data(groups, request.roots(*COCO))


def load_blip_vg(request: Request) -> Data[VqaSample]:
    """Visual Genome in BLIP's file ``vg_qa.json``, all of it for training.

    Raises:
        InputError: another split than train, a fault in the file, or pictures are missing.
    """
    _train_only(request)
    path = request.split_file("vg_qa.json")

    def question(entry: Entry) -> Question:
        answer = next(iter(entry.texts("answer")), None)
        name = f"vg-{entry.get('question_id') or entry.place.split()[-1]}"
        return _vg_question(Entry({**entry.fields, "answer": answer}, entry.path, entry.place), name)

    groups = group(read_entries(path), lambda entry: [entry.text("image")], question)
    return request.data(groups, request.roots(*VG), flat=True, name_of=vg_id)
