"""Questions about scenes: short English, a closed vocabulary, one true answer each, and none that can be guessed.

Guessing is prevented where the question is made: a yes/no question is asked only in a form that this very scene could
answer either way, and a coin then decides which; counts are drawn by their value before the thing counted is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from madtp.data.scene import COLORS, MAX_OBJECTS, SHAPES, Scene, Stream
from madtp.data.scene_facts import Facts, article, plural, relations

YES_NO = ("yes", "no")
ANSWERS = (*YES_NO, *(str(n) for n in range(MAX_OBJECTS + 1)), *COLORS, *SHAPES)
"""Every answer there is, each a single word."""


@dataclass(frozen=True, slots=True)
class SceneQuestion:
    """A question about a scene, its answer and its kind (one of `KINDS`)."""

    text: str
    answer: str
    kind: str


def ask(scene: Scene, stream: Stream, n: int) -> tuple[SceneQuestion, ...]:
    """Up to ``n`` different questions, all kinds in turn; where the scene gives no occasion for one, others step in."""
    facts = Facts(scene)
    asked: dict[str, SceneQuestion] = {}
    kinds: list[str] = []
    for _ in range(6 * n):
        if len(asked) == n:
            break
        kinds = kinds or stream.shuffled(tuple(KINDS))
        kind = kinds.pop()
        yes = stream.random() < 0.5
        # A repeat is asked anew with the same coin: dropping it would favour "no", of which there are more to ask.
        for _ in range(4):
            question = KINDS[kind](facts, stream, yes)
            if question is None:
                break
            if question.text not in asked:
                asked[question.text] = question
                break
    return tuple(stream.shuffled(tuple(asked.values())))


def _count(facts: Facts, stream: Stream, yes: bool) -> SceneQuestion:
    if stream.random() < 0.25:
        return SceneQuestion("how many shapes are there?", str(len(facts.scene.objects)), "count")
    by_count: dict[int, list[str]] = {}
    for color in COLORS:
        by_count.setdefault(facts.colors[color], []).append(f"{color} shapes")
    for shape in SHAPES:
        by_count.setdefault(facts.shapes[shape], []).append(plural(shape))
    present = sorted(set(by_count) - {0})
    # None and one are to be had in nearly every scene; drawn like the rest they would be most of the answers.
    count = 0 if 0 in by_count and stream.random() < 0.15 else stream.choice([c for c in present for _ in range(c)])
    return SceneQuestion(f"how many {stream.choice(by_count[count])} are there?", str(count), "count")


def _exist(facts: Facts, stream: Stream, yes: bool) -> SceneQuestion:
    answer = YES_NO[not yes]
    forms = []
    if len(facts.colors) < len(COLORS):
        forms.append([f"{color} shape" for color in COLORS if (facts.colors[color] > 0) == yes])
    if len(facts.shapes) < len(SHAPES):
        forms.append([shape for shape in SHAPES if (facts.shapes[shape] > 0) == yes])
    if yes:
        pairs = list(facts.pairs)
    else:
        # Half of the absent pairs have both colour and shape in the picture, only not in one object.
        near = [(c, s) for c in facts.colors for s in facts.shapes if (c, s) not in facts.pairs]
        far = [(c, s) for c in COLORS for s in SHAPES if (c, s) not in facts.pairs]
        pairs = near if near and stream.random() < 0.5 else far
    forms.append([f"{color} {shape}" for color, shape in pairs])
    return SceneQuestion(f"is there {article(stream.choice(stream.choice(forms)))}?", answer, "exist")


def _compare(facts: Facts, stream: Stream, yes: bool) -> SceneQuestion | None:
    names: dict[str, int]
    if stream.random() < 0.5:
        names = {plural(shape): facts.shapes[shape] for shape in SHAPES}
    else:
        names = {f"{color} shapes": facts.colors[color] for color in COLORS}
    unequal = [(a, b) for a in names for b in names if names[a] > names[b]]
    both = [(a, b) for a, b in unequal if names[b] > 0]
    equal = [(a, b) for a in names for b in names if a != b and names[a] == names[b] > 0]
    if not unequal:
        return None
    more, fewer = stream.choice(both if both and stream.random() < 0.75 else unequal)
    word = stream.choice(("more", "fewer"))
    if yes:
        first, second = (more, fewer) if word == "more" else (fewer, more)
        return SceneQuestion(f"are there {word} {first} than {second}?", "yes", "compare")
    first, second = (fewer, more) if word == "more" else (more, fewer)
    if equal and stream.random() < 0.25:
        first, second = stream.choice(equal)
    return SceneQuestion(f"are there {word} {first} than {second}?", "no", "compare")


def _relate(facts: Facts, stream: Stream, yes: bool) -> SceneQuestion | None:
    names = {thing: found for thing in facts.scene.objects if (found := facts.names(thing))}
    apart = [(direction, names[first], names[second]) for first, direction, second in relations(tuple(names))]
    if not apart:
        return None
    direction, first, second = stream.choice(apart)
    if not yes:
        first, second = second, first
    text = f"is the {stream.choice(first)} {direction} the {stream.choice(second)}?"
    return SceneQuestion(text, YES_NO[not yes], "relate")


def _color(facts: Facts, stream: Stream, yes: bool) -> SceneQuestion | None:
    things = [thing for thing in facts.scene.objects if facts.shapes[thing.shape] == 1]
    if not things:
        return None
    thing = stream.choice(things)
    return SceneQuestion(f"what color is the {thing.shape}?", thing.color, "color")


def _shape(facts: Facts, stream: Stream, yes: bool) -> SceneQuestion | None:
    things = [thing for thing in facts.scene.objects if facts.colors[thing.color] == 1]
    if not things:
        return None
    thing = stream.choice(things)
    return SceneQuestion(f"what shape is the {thing.color} thing?", thing.shape, "shape")


KINDS: Mapping[str, Callable[[Facts, Stream, bool], SceneQuestion | None]] = {
    "count": _count,
    "compare": _compare,
    "relate": _relate,
    "exist": _exist,
    "color": _color,
    "shape": _shape,
}
_FUNCTION_WORDS = (
    "how many shapes are there is a an more fewer than the left right of above below what color shape thing"
)
WORDS = frozenset(_FUNCTION_WORDS.split()).union(COLORS, SHAPES, (plural(shape) for shape in SHAPES))
"""Every word of every question."""
