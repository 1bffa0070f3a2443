"""Statements about two pictures: each is asked of two pairs that share a picture, true of one and false of the other.

So no statement can be guessed from its words, whatever it says one half of its uses is true; nor from the picture that
is shared. A coin decides which pair it is true of.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from madtp.data.scene import COLORS, MAX_OBJECTS, SHAPES, Scene, SceneObject, Stream
from madtp.data.scene_facts import NUMBERS, Facts, Noun, plural

TRIES = 12
"""How often a statement of one kind is drawn anew before another kind steps in."""
SIDES = ("left", "right")
Pair = tuple[Facts, Facts]
Drawn = tuple[str, Callable[[Facts, Facts], bool | None]]
"""A statement and whether it is true of a left and a right picture; None: not to be asked of them."""


@dataclass(frozen=True, slots=True)
class SceneStatement:
    """A statement, its kind (one of `KINDS`) and whether it is true of the first pair (else of the second)."""

    text: str
    kind: str
    first: bool


def state(pairs: Sequence[tuple[Scene, Scene]], stream: Stream, n: int) -> tuple[SceneStatement, ...]:
    """Up to ``n`` different statements that are true of one of two pairs and false of the other.

    Kinds take turns; where the pictures give no occasion for one, others step in.
    """
    one, other = ((Facts(left), Facts(right)) for left, right in pairs)
    stated: dict[str, SceneStatement] = {}
    kinds: list[str] = []
    for _ in range(6 * n):
        if len(stated) == n:
            break
        kinds = kinds or stream.shuffled(tuple(KINDS))
        kind = kinds.pop()
        first = stream.random() < 0.5
        pair, false = (one, other) if first else (other, one)
        side = stream.choice([side for side in (0, 1) if pair[side].scene != false[side].scene] or [0])
        for _ in range(TRIES):
            drawn = KINDS[kind](pair, side, stream)
            if drawn and drawn[0] not in stated and drawn[1](*pair) and drawn[1](*false) is False:
                stated[drawn[0]] = SceneStatement(drawn[0], kind, first)
                break
    return tuple(stream.shuffled(tuple(stated.values())))


def _named(thing: SceneObject, stream: Stream, ways: Sequence[str] = ("color", "shape", "both")) -> Noun:
    """By its colour, by its shape or by both."""
    way = stream.choice(ways)
    return Noun("" if way == "shape" else thing.color, "" if way == "color" else thing.shape)


def _noun(pair: Pair, stream: Stream) -> Noun:
    return _named(stream.choice(stream.choice(pair).scene.objects), stream)


def _group(pair: Pair, stream: Stream) -> Noun:
    """What is often many: all shapes, those of a colour, those of a form."""
    thing = stream.choice(stream.choice(pair).scene.objects)
    return Noun() if stream.random() < 0.2 else _named(thing, stream, ("color", "shape"))


def _absent(stream: Stream) -> bool | None:
    """What a statement about things is where they are not there: False, but not to be asked half of the time."""
    return None if stream.random() < 0.5 else False


def _both(pair: Pair, side: int, stream: Stream) -> Drawn:
    noun = _noun(pair, stream)
    wording = stream.choice(("both pictures show {}", "there is {} in both pictures"))
    return wording.format(noun.one), lambda left, right: min(left.count(noun), right.count(noun)) > 0


def _one(pair: Pair, side: int, stream: Stream) -> Drawn:
    noun = _noun(pair, stream)
    wording = stream.choice(("only one of the pictures shows {}", "there is {} in only one of the pictures"))
    both = stream.random() < 0.5  # where it is false, it is in both as often as in none

    def judge(left: Facts, right: Facts) -> bool | None:
        one, other = left.count(noun) > 0, right.count(noun) > 0
        return True if one != other else False if one == both else None

    return wording.format(noun.one), judge


def _only(pair: Pair, side: int, stream: Stream) -> Drawn:
    noun, here = _noun(pair, stream), stream.below(2)

    def judge(*pair: Facts) -> bool:
        return pair[here].count(noun) > 0 and pair[1 - here].count(noun) == 0

    return f"only the {SIDES[here]} picture shows {noun.one}", judge


def _more(pair: Pair, side: int, stream: Stream) -> Drawn:
    noun, here, word = _group(pair, stream), stream.below(2), stream.choice(("more", "fewer"))
    larger = here if word == "more" else 1 - here
    text = f"the {SIDES[here]} picture has {word} {noun.many} than the {SIDES[1 - here]}"
    return text, lambda *pair: pair[larger].count(noun) > pair[1 - larger].count(noun)


def _same(pair: Pair, side: int, stream: Stream) -> Drawn:
    noun = _group(pair, stream)
    wordings = ("both pictures have the same number of {}", "the left picture has as many {} as the right")
    return stream.choice(wordings).format(noun.many), lambda left, right: left.count(noun) == right.count(noun)


def _count(pair: Pair, side: int, stream: Stream) -> Drawn:
    noun = stream.choice((_group, _noun))(pair, stream)
    n = pair[side].count(noun) or 1

    def judge(*pair: Facts) -> bool | None:
        count = pair[side].count(noun)
        return count == n if count else None  # that there is none can be told without counting

    return f"the {SIDES[side]} picture has {noun.numbered(n)}", judge


def _total(pair: Pair, side: int, stream: Stream) -> Drawn:
    noun = _group(pair, stream)
    n = max(2, sum(facts.count(noun) for facts in pair))

    def judge(left: Facts, right: Facts) -> bool | None:
        total = left.count(noun) + right.count(noun)
        return total == n if total else None

    return f"there are {noun.numbered(n)} in all", judge


def _color(pair: Pair, side: int, stream: Stream) -> Drawn | None:
    twos = [(a, b) for a in pair[0].scene.objects for b in pair[1].scene.objects if a.color == b.color]
    if not twos:
        return None
    one, other = (Noun(shape=thing.shape) for thing in stream.choice(twos))
    absent = _absent(stream)

    def judge(left: Facts, right: Facts) -> bool | None:
        first, second = ({t.color for t in f.those(noun)} for f, noun in ((left, one), (right, other)))
        return not first.isdisjoint(second) if first and second else absent

    return f"{one.one} in the left picture has the color of {other.one} in the right", judge


def _relate(pair: Pair, side: int, stream: Stream) -> Drawn | None:
    twos = tuple(pair[side].relations)
    if not twos:
        return None
    a, word, b = stream.choice(twos)
    one, other = _named(a, stream), _named(b, stream)
    if one == other:
        return None
    absent = _absent(stream)

    def judge(*pair: Facts) -> bool | None:
        """True where it is clear of two shapes, False where it is true of no two by any measure."""
        facts = pair[side]
        twos = [(a, b) for a in facts.those(one) for b in facts.those(other) if a is not b]
        if any((a, word, b) in facts.relations for a, b in twos):
            return True
        if not twos:
            return absent
        return False if all(_gap(a, word, b) <= 0 for a, b in twos) else None

    return f"in the {SIDES[side]} picture {one.one} is {word} {other.one}", judge


def _gap(a: SceneObject, word: str, b: SceneObject) -> float:
    """How far ``a`` lies from ``b`` in that direction; negative on the other side."""
    gap = b.x - a.x if word in ("left of", "right of") else b.y - a.y
    return gap if word in ("left of", "above") else -gap


KINDS: Mapping[str, Callable[[Pair, int, Stream], Drawn | None]] = {
    "both": _both,
    "one": _one,
    "only": _only,
    "more": _more,
    "same": _same,
    "count": _count,
    "total": _total,
    "color": _color,
    "relate": _relate,
}
_FUNCTION_WORDS = (
    "both pictures picture show shows there is are a an in only one of the left right has have more fewer than same "
    "number as many all color above below shape shapes"
)
WORDS = frozenset(_FUNCTION_WORDS.split()).union(
    COLORS, SHAPES, (plural(shape) for shape in SHAPES), NUMBERS[1 : 2 * MAX_OBJECTS + 1]
)
"""Every word of every statement."""
