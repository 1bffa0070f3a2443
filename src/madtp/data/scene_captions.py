"""Captions of scenes: five of each, all true, each in a form of its own, and telling enough to find the picture by.

What is counted is complete: "a red star and two crosses" are all there is. What follows "with" is only a part.
"""

from collections.abc import Sequence

from madtp.data.scene import COLORS, MAX_OBJECTS, SHAPES, Scene, SceneObject, Stream
from madtp.data.scene_facts import (
    COLOR_NOUNS,
    NUMBERS,
    PAIR_NOUNS,
    SHAPE_NOUNS,
    Facts,
    Noun,
    listed,
    plural,
    relations,
)

CLEAR = 0.08
"""A shape is at the top, on the left, ... only where its centre is this share of the side from the middle line."""
LONGEST = 25
"""Words of a caption; parts are left out where it would grow longer."""
_ALONE = ("{} {}", "one shape: {} {}", "there is one shape, {} {}", "only {}, {}", "{1} is {0}")


def describe(scene: Scene, stream: Stream) -> tuple[str, ...]:
    """Five different captions of a scene, in random order.

    One lists all shapes, one counts by shape, one by colour, one relates shapes to each other, one says where they are.
    """
    facts = Facts(scene)
    things = scene.objects
    if len(things) == 1:
        captions = [form.format(_noun(things[0]).one, place(things[0])) for form in _ALONE]
        return tuple(stream.shuffled(captions))
    pairs, shapes, colors = (
        [(noun, n) for noun in stream.shuffled(nouns) if (n := facts.count(noun))]
        for nouns in (PAIR_NOUNS, SHAPE_NOUNS, COLOR_NOUNS)
    )
    by_color = listed([f"{NUMBERS[n]} {noun.color}" for noun, n in colors])
    places = [f"{_noun(thing).one} {place(thing)}" for thing in stream.shuffled(things)]
    places = list(dict.fromkeys(places))
    related: dict[frozenset[Noun], str] = {}  # not both "x left of y" and "y right of x"
    for one, word, other in stream.shuffled(tuple(relations(things))):
        if _noun(one) != _noun(other):
            related.setdefault(frozenset({_noun(one), _noun(other)}), f"{_noun(one).one} {word} {_noun(other).one}")
    relating = list(related.values())
    total = f"{NUMBERS[len(things)]} shapes"
    captions = [
        _with(listed([noun.counted(n) for noun, n in pairs]), places[:1] if len(pairs) == 1 else []),
        _with(listed([noun.counted(n) for noun, n in shapes]), places[-1:]),
        _with(f"{by_color} {'shape' if colors[-1][1] == 1 else 'shapes'}", relating[-1:] or places[:1]),
        _with(total, relating[:2] or places[-1:]),
        _with(f"there are {total}", places[:3]),
    ]
    return tuple(stream.shuffled(captions))


def place(thing: SceneObject) -> str:
    """Where in the picture: "at the top left", "at the bottom", "on the right", "in the middle", ..."""
    row = "top" if thing.y < 0.5 - CLEAR else "bottom" if thing.y > 0.5 + CLEAR else ""
    column = "left" if thing.x < 0.5 - CLEAR else "right" if thing.x > 0.5 + CLEAR else ""
    if row:
        return f"at the {row} {column}".rstrip()
    return f"on the {column}" if column else "in the middle"


def _noun(thing: SceneObject) -> Noun:
    return Noun(thing.color, thing.shape)


def _with(opening: str, details: Sequence[str]) -> str:
    """The opening, then as many of the details as fit."""
    caption = opening
    for n in range(1, len(details) + 1):
        longer = f"{opening}, with {listed(details[:n])}"
        if len(longer.split()) > LONGEST:
            break
        caption = longer
    return caption


_FUNCTION_WORDS = (
    "there is are shape shapes only with and a an at on in the top bottom left right middle of above below"
)
WORDS = frozenset(_FUNCTION_WORDS.split()).union(
    COLORS, SHAPES, (plural(shape) for shape in SHAPES), NUMBERS[1 : MAX_OBJECTS + 1]
)
"""Every word of every caption."""
