"""Statements about two pictures: each is asked of two pairs, true of one and false of the other.

So no statement can be guessed from its words: whatever the text, one half of its uses is true. A coin decides of which
pair. Mostly both pairs come close to being right: where "both pictures show a red star" is false, one of them does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from madtp.data.scene import COLORS, MAX_OBJECTS, SHAPES, Scene, SceneObject, Stream
from madtp.data.scene_facts import (
    COLOR_NOUNS,
    DIRECTIONS,
    NUMBERS,
    PAIR_NOUNS,
    SHAPE_NOUNS,
    Facts,
    Noun,
    plural,
)

NEAR = 0.8
"""Share of statements chosen among those that come close in both pairs, where there are such."""
SIDES = ("left", "right")
Pair = tuple[Facts, Facts]


@dataclass(frozen=True, slots=True)
class SceneStatement:
    """A statement, its kind (one of `KINDS`) and whether it is true of the first pair (else of the second)."""

    text: str
    kind: str
    first: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a statement is true of a pair, and whether it comes close to being the other."""

    true: bool
    near: bool


Judged = tuple[str, Sequence[Verdict | None]]
"""A statement and what it is in each pair; None: it does not apply, or is too close to call."""


def state(pairs: Sequence[tuple[Scene, Scene]], stream: Stream, n: int) -> tuple[SceneStatement, ...]:
    """Up to ``n`` different statements that are true of one of two pairs and false of the other.

    Kinds take turns; where the pictures give no occasion for one, others step in.
    """
    facts = [(Facts(left), Facts(right)) for left, right in pairs]
    stated: dict[str, SceneStatement] = {}
    kinds: list[str] = []
    for _ in range(20 * n):
        if len(stated) == n:
            break
        kinds = kinds or stream.shuffled(tuple(KINDS))
        kind = kinds.pop()
        first = stream.random() < 0.5
        near = stream.random() < NEAR
        fitting: list[tuple[str, bool]] = []
        for text, (one, other) in KINDS[kind](facts, stream):
            if text not in stated and one and other and one.true == first and other.true != first:
                fitting.append((text, one.near and other.near))
        if fitting:
            close = [text for text, is_near in fitting if is_near]
            text = stream.choice(close if near and close else [text for text, _ in fitting])
            stated[text] = SceneStatement(text, kind, first)
    return tuple(stream.shuffled(tuple(stated.values())))


def _nouns(stream: Stream) -> tuple[Noun, ...]:
    return stream.choice((COLOR_NOUNS, SHAPE_NOUNS, PAIR_NOUNS))


def _both(pairs: Sequence[Pair], stream: Stream) -> Iterator[Judged]:
    wording = stream.choice(("both pictures show {}", "there is {} in both pictures"))
    for noun in _nouns(stream):
        shown = [[facts.count(noun) > 0 for facts in pair] for pair in pairs]
        yield wording.format(noun.one), [Verdict(all(two), any(two)) for two in shown]


def _one(pairs: Sequence[Pair], stream: Stream) -> Iterator[Judged]:
    wording = stream.choice(("only one of the pictures shows {}", "there is {} in only one of the pictures"))
    both = stream.random() < 0.5
    for noun in _nouns(stream):
        shown = [[facts.count(noun) > 0 for facts in pair] for pair in pairs]
        # Where it is false it is in both as often as in none.
        yield wording.format(noun.one), [Verdict(one != other, one != other or one == both) for one, other in shown]


def _only(pairs: Sequence[Pair], stream: Stream) -> Iterator[Judged]:
    side = stream.below(2)
    for noun in _nouns(stream):
        shown = [[facts.count(noun) > 0 for facts in pair] for pair in pairs]
        verdicts = [Verdict(two[side] and not two[1 - side], any(two)) for two in shown]
        yield f"only the {SIDES[side]} picture shows {noun.one}", verdicts


def _more(pairs: Sequence[Pair], stream: Stream) -> Iterator[Judged]:
    word, side = stream.choice(("more", "fewer")), stream.below(2)
    for noun in (Noun(), *COLOR_NOUNS, *SHAPE_NOUNS):
        verdicts = []
        for pair in pairs:
            more, fewer = pair[side ^ (word == "fewer")], pair[1 - side ^ (word == "fewer")]
            counts = more.count(noun), fewer.count(noun)
            verdicts.append(Verdict(counts[0] > counts[1], min(counts) > 0))
        yield f"the {SIDES[side]} picture has {word} {noun.many} than the {SIDES[1 - side]}", verdicts


def _same(pairs: Sequence[Pair], stream: Stream) -> Iterator[Judged]:
    wordings = ("both pictures have the same number of {}", "the left picture has as many {} as the right")
    wording = stream.choice(wordings)
    for noun in (Noun(), *COLOR_NOUNS, *SHAPE_NOUNS):
        counts = [[facts.count(noun) for facts in pair] for pair in pairs]
        verdicts = [Verdict(one == other, min(one, other) > 0) if one or other else None for one, other in counts]
        yield wording.format(noun.many), verdicts


def _count(pairs: Sequence[Pair], stream: Stream) -> Iterator[Judged]:
    side = stream.below(2)
    for noun in (Noun(), *_nouns(stream)):
        counts = [pair[side].count(noun) for pair in pairs]
        for n in sorted({*counts} - {0}):
            verdicts = [
                Verdict(count == n, count == n or abs(count - n) == 1 or pair[1 - side].count(noun) == n)
                for pair, count in zip(pairs, counts, strict=True)
            ]
            yield f"the {SIDES[side]} picture has {noun.numbered(n)}", verdicts


def _total(pairs: Sequence[Pair], stream: Stream) -> Iterator[Judged]:
    for noun in (Noun(), *COLOR_NOUNS, *SHAPE_NOUNS):
        totals = [pair[0].count(noun) + pair[1].count(noun) for pair in pairs]
        for n in sorted({*totals} - {0, 1}):
            yield f"there are {noun.numbered(n)} in all", [Verdict(t == n, abs(t - n) <= 2) for t in totals]


def _color(pairs: Sequence[Pair], stream: Stream) -> Iterator[Judged]:
    for one in SHAPE_NOUNS:
        for other in SHAPE_NOUNS:
            verdicts: list[Verdict | None] = []
            for left, right in pairs:
                first, second = ({t.color for t in f.those(noun)} for f, noun in ((left, one), (right, other)))
                verdicts.append(Verdict(not first.isdisjoint(second), True) if first and second else None)
            yield f"{one.one} in the left picture has the color of {other.one} in the right", verdicts


def _relate(pairs: Sequence[Pair], stream: Stream) -> Iterator[Judged]:
    side, word, nouns = stream.below(2), stream.choice(DIRECTIONS), stream.choice((COLOR_NOUNS, SHAPE_NOUNS))
    for one in nouns:
        for other in nouns:
            if one != other:
                verdicts = [_related(pair[side], one, word, other) for pair in pairs]
                yield f"in the {SIDES[side]} picture {one.one} is {word} {other.one}", verdicts


def _related(facts: Facts, one: Noun, word: str, other: Noun) -> Verdict | None:
    """True where it is clear of two shapes, false where it is true of no two by any measure."""
    gaps = [_gap(a, word, b) for a in facts.those(one) for b in facts.those(other)]
    if any((a, word, b) in facts.relations for a in facts.those(one) for b in facts.those(other)):
        return Verdict(true=True, near=True)
    return None if max(gaps, default=0) > 0 else Verdict(true=False, near=bool(gaps))


def _gap(a: SceneObject, word: str, b: SceneObject) -> float:
    """How far ``a`` lies from ``b`` in that direction; negative on the other side."""
    gap = b.x - a.x if word in ("left of", "right of") else b.y - a.y
    return gap if word in ("left of", "above") else -gap


KINDS: Mapping[str, Callable[[Sequence[Pair], Stream], Iterator[Judged]]] = {
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
