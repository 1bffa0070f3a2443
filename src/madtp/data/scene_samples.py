"""Scenes as samples of every task: pictures that are drawn when opened, with questions, captions or statements."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from PIL import Image

from madtp.data.sample import SPLITS, CaptionSample, PairSample, Question, Sample, Statement, VqaSample
from madtp.data.scene import CAPTIONS, LEFT, QUESTIONS, RIGHT, STATEMENTS, Scene, SceneSettings, Stream, make_scene
from madtp.data.scene_captions import describe
from madtp.data.scene_draw import draw_scene
from madtp.data.scene_questions import ask
from madtp.data.scene_statements import SceneStatement, state

NLVR2_SPLITS = {"train": "train", "val": "dev", "test": "test1"}
"""What NLVR2 calls the splits, in ids and names of files."""


@dataclass(frozen=True, slots=True)
class SceneImage:
    """A scene as a picture that is drawn each time it is opened."""

    scene: Scene

    def open(self) -> Image.Image:
        """The picture, mode RGB."""
        return draw_scene(self.scene)


def _vqa(seed: int, split: str, n: int, settings: SceneSettings) -> Iterator[VqaSample]:
    number = 0
    for index in range(n):
        scene = make_scene(seed, split, index, settings)
        questions = []
        for question in ask(scene, Stream(seed, SPLITS.index(split), index, QUESTIONS), settings.questions):
            questions.append(Question(question.text, (question.answer,), (1.0,), f"{split}-{number}", question.kind))
            number += 1
        yield VqaSample(str(index), SceneImage(scene), tuple(questions), len(scene.objects))


def _captions(seed: int, split: str, n: int, settings: SceneSettings) -> Iterator[CaptionSample]:
    for index in range(n):
        scene = make_scene(seed, split, index, settings)
        captions = describe(scene, Stream(seed, SPLITS.index(split), index, CAPTIONS))
        yield CaptionSample(str(index), SceneImage(scene), captions, len(scene.objects))


def _pairs(seed: int, split: str, n: int, settings: SceneSettings) -> Iterator[PairSample]:
    """Pairs come in twos that share one picture and all statements, each true of one: NLVR2's sets, with its ids."""
    for number in range((n + 1) // 2):
        twos, stated = _two_pairs(seed, split, number, settings)
        of_set = f"{NLVR2_SPLITS[split]}-{number}"
        for k, (left, right) in enumerate(twos[: n - 2 * number]):
            statements = tuple(
                Statement(s.text, s.first == (k == 0), f"{of_set}-{k}-{j}", f"{of_set}-{j}", s.kind)
                for j, s in enumerate(stated)
            )
            objects = len(left.objects) + len(right.objects)
            yield PairSample(f"{of_set}-{k}", (SceneImage(left), SceneImage(right)), statements, objects)


def _two_pairs(
    seed: int, split: str, number: int, settings: SceneSettings
) -> tuple[list[tuple[Scene, Scene]], tuple[SceneStatement, ...]]:
    stream = Stream(seed, SPLITS.index(split), number, STATEMENTS)
    for attempt in range(8):  # of two pictures that are all but the same little can be stated
        lefts, rights = (
            [make_scene(seed, split, index, settings, side + 16 * attempt) for index in (2 * number, 2 * number + 1)]
            for side in (LEFT, RIGHT)
        )
        shared = stream.choice((lefts, rights))
        shared[1] = shared[0]
        twos = list(zip(lefts, rights, strict=True))
        stated = state(twos, stream, settings.questions)
        if len(stated) == settings.questions:
            break
    return twos, stated


MAKERS: Mapping[str, Callable[[int, str, int, SceneSettings], Iterator[Sample]]] = {
    "vqa": _vqa,
    "reasoning": _pairs,
    "caption": _captions,
    "retrieval": _captions,
}
"""Task -> its samples in order, from seed, split, number of pictures (or pairs) and settings."""
