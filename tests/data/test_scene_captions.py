"""Every caption is checked by a second, slow reading of it, written for the test alone."""

import re
from collections import Counter

from data.phrases import article, clear, meant, numbered
from madtp.data.scene import COLORS, Scene, SceneObject, SceneSettings, Stream, make_scene
from madtp.data.scene_captions import LONGEST, WORDS, describe, place

PLACES = "at the top left|at the top right|at the bottom left|at the bottom right|at the top|at the bottom|on the left"
PLACES += "|on the right|in the middle"


def described(n: int, split: str = "train", settings: SceneSettings | None = None) -> list[tuple[Scene, str]]:
    scenes = [make_scene(7, split, i, settings) for i in range(n)]
    return [(scene, caption) for i, scene in enumerate(scenes) for caption in describe(scene, Stream(i, 0, 0, 2))]


DESCRIBED = described(211)


def parts(text: str) -> list[str]:
    """Of "x, y and z"."""
    return re.split(", | and ", text)


def stands(thing: SceneObject, where: str) -> bool:
    middle = abs(thing.x - 0.5) < 0.1 and abs(thing.y - 0.5) < 0.1
    here = {"top": thing.y < 0.5, "bottom": thing.y > 0.5, "left": thing.x < 0.5, "right": thing.x > 0.5}
    return all(here.get(word, middle) for word in where.split()[2:])


def detail_is_true(scene: Scene, text: str) -> bool:
    if m := re.fullmatch(rf"(.+) ({PLACES})", text):
        return any(stands(thing, m[2]) for thing in meant(scene, article(m[1])))
    m = re.fullmatch("(.+) (left of|right of|above|below) (.+)", text)
    assert m, text
    return any(clear(a, m[2], b) for a in meant(scene, article(m[1])) for b in meant(scene, article(m[3])))


def counts_are_true(scene: Scene, text: str) -> bool:
    """Each number is right, and together they are all there is."""
    phrases = parts(text.removeprefix("there are "))
    if (noun := re.fullmatch("[a-z]+ [a-z]+ (shapes?)", phrases[-1])) and len(
        phrases
    ) > 1:  # "one red and two blue shapes"
        counted = [
            (len(meant(scene, p.split()[1])), p.split()[0]) for p in [*phrases[:-1], phrases[-1].rsplit(" ", 1)[0]]
        ]
        assert (noun[1] == "shape") == phrases[-1].startswith("one "), text
        numbers = [numbered(f"{word} shape{'s' * (word != 'one')}")[0] for _, word in counted]
        found = [n for n, _ in counted]
    else:
        numbers, nouns = zip(*map(numbered, phrases), strict=True)
        numbers, found = list(numbers), [len(meant(scene, noun)) for noun in nouns]
    return numbers == found and sum(numbers) == len(scene.objects)


def is_true(scene: Scene, caption: str) -> bool:
    noun = "(an? [a-z]+ [a-z]+)"
    if m := re.fullmatch(f"(?:one shape: |there is one shape, |only |){noun},? ({PLACES})", caption):
        return len(scene.objects) == 1 and detail_is_true(scene, f"{m[1]} {m[2]}")
    if m := re.fullmatch(f"({PLACES}) is {noun}", caption):
        return len(scene.objects) == 1 and detail_is_true(scene, f"{m[2]} {m[1]}")
    counted, _, details = caption.partition(", with ")
    return counts_are_true(scene, counted) and all(detail_is_true(scene, d) for d in parts(details) if details)


def test_every_caption_is_true() -> None:
    for scene, caption in DESCRIBED:
        assert is_true(scene, caption), caption


def test_most_captions_are_true_of_one_picture_only() -> None:
    """So there is a right answer to "which of these pictures?"; it also shows that the reader above can say no."""
    val = described(67, "val")
    scenes = [scene for scene, _ in val[::5]]
    others = Counter(sum(is_true(scene, caption) for scene in scenes) - 1 for _, caption in val)
    assert others[0] > 0.95 * len(val)
    assert max(others) <= 2


def test_five_captions_in_different_forms() -> None:
    assert len(DESCRIBED) == 5 * 211
    for i in range(0, len(DESCRIBED), 5):
        scene, captions = DESCRIBED[i][0], [caption for _, caption in DESCRIBED[i : i + 5]]
        assert len(set(captions)) == 5
        if len(scene.objects) > 1:  # one with the bare number, one with "there are", three that count kinds of things
            number = [c for c in captions if re.match(r"(there are )?[a-z]+ shapes(,|$)", c)]
            assert [c.startswith("there are") for c in sorted(number)].count(True) == 1
            assert len(number) == 2


def test_order_of_captions_and_of_things_is_free() -> None:
    scene = make_scene(7, "train", 3, SceneSettings(objects=(5, 5)))
    several = [describe(scene, Stream(i, 0, 0, 2)) for i in range(41)]
    assert len(set(several)) > 35
    assert {next(i for i, c in enumerate(cs) if c.startswith("there are")) for cs in several} == set(range(5))
    assert describe(scene, Stream(5, 0, 0, 2)) == several[5]


def test_words_are_closed_and_captions_short() -> None:
    assert {word for _, caption in DESCRIBED for word in re.findall("[a-z]+", caption)} == WORDS
    assert not {char for _, caption in DESCRIBED for char in caption} - set("abcdefghijklmnopqrstuvwxyz ,:")
    lengths = [len(caption.split()) for _, caption in DESCRIBED]
    assert max(lengths) == LONGEST == 25


def test_place_by_hand() -> None:
    def at(x: float, y: float) -> str:
        return place(SceneObject("star", "red", x, y, 0.2, 0.0, COLORS["red"]))

    assert [at(x, 0.2) for x in (0.41, 0.43, 0.57, 0.59)] == [
        *("at the top left", "at the top", "at the top", "at the top right"),
    ]
    assert [at(x, 0.5) for x in (0.41, 0.5, 0.59)] == ["on the left", "in the middle", "on the right"]
    assert [at(0.5, y) for y in (0.41, 0.57, 0.59)] == ["at the top", "in the middle", "at the bottom"]


def test_one_scene_by_hand() -> None:
    things = [("circle", "red", 0.2), ("circle", "red", 0.5), ("star", "orange", 0.8)]
    objects = tuple(SceneObject(shape, color, x, 0.5, 0.2, 0.0, COLORS[color]) for shape, color, x in things)
    captions = {c for i in range(53) for c in describe(Scene(64, objects, (255,) * 3, (), 0.0, 0), Stream(i, 0, 0, 2))}
    assert {c for c in captions if ", with" not in c} == {
        *("two red circles and an orange star", "an orange star and two red circles"),
    }
    assert "one orange and two red shapes, with a red circle left of an orange star" in captions
    assert "two circles and a star, with a red circle in the middle" in captions
    assert "three shapes, with an orange star right of a red circle" in captions
    assert not {c for c in captions if "circle left of a red" in c or "above" in c}
