"""What is true of a scene, and the phrases that questions, captions and statements share to say it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from madtp.data.scene import COLORS, SHAPES, Scene, SceneObject

APART = 0.15
"""Two shapes are left or right of (above, below) each other only where their centres are this share of the side apart
in that direction, and at least half as far as in the other."""
NUMBERS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight"),
    *("nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)
"""The word for 0, 1, ... 16: two pictures hold no more."""


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun phrase: the shapes of a colour, of a form, of both, or all.

    Args:
        color: one of `COLORS`, or "" for any.
        shape: one of `SHAPES`, or "" for any.
    """

    color: str = ""
    shape: str = ""

    @property
    def bare(self) -> str:
        """Without an article: "red star", "star", "red shape"."""
        return f"{self.color} {self.shape or 'shape'}".lstrip()

    @property
    def one(self) -> str:
        """With its article: "a red star", "an orange shape"."""
        return article(self.bare)

    @property
    def many(self) -> str:
        """In the plural: "red stars", "red shapes"."""
        return plural(self.bare)

    def numbered(self, n: int) -> str:
        """So many of them: "one red star", "two red stars"."""
        return f"{NUMBERS[n]} {self.bare if n == 1 else self.many}"

    def counted(self, n: int) -> str:
        """So many of them, one with its article: "a red star", "two red stars"."""
        return self.one if n == 1 else self.numbered(n)


COLOR_NOUNS = tuple(Noun(color=color) for color in COLORS)
SHAPE_NOUNS = tuple(Noun(shape=shape) for shape in SHAPES)
PAIR_NOUNS = tuple(Noun(color, shape) for color in COLORS for shape in SHAPES)


@dataclass(frozen=True)
class Facts:
    """Counts and places of what a scene shows."""

    scene: Scene

    @cached_property
    def colors(self) -> Counter[str]:
        """Color -> number of shapes."""
        return Counter(thing.color for thing in self.scene.objects)

    @cached_property
    def shapes(self) -> Counter[str]:
        """Shape -> how many."""
        return Counter(thing.shape for thing in self.scene.objects)

    @cached_property
    def pairs(self) -> Counter[tuple[str, str]]:
        """(color, shape) -> how many."""
        return Counter((thing.color, thing.shape) for thing in self.scene.objects)

    def count(self, noun: Noun) -> int:
        """How many shapes the noun means."""
        if noun.color and noun.shape:
            return self.pairs[noun.color, noun.shape]
        if noun.color or noun.shape:
            return self.colors[noun.color] if noun.color else self.shapes[noun.shape]
        return len(self.scene.objects)

    def those(self, noun: Noun) -> list[SceneObject]:
        """The shapes that the noun means."""
        things = self.scene.objects
        return [t for t in things if noun.color in ("", t.color) and noun.shape in ("", t.shape)]

    @cached_property
    def relations(self) -> dict[tuple[SceneObject, str, SceneObject], None]:
        """Every (a, "left of", "right of", "above" or "below", b) that is clear to see, in order."""
        return dict.fromkeys(relations(self.scene.objects))

    def names(self, thing: SceneObject) -> list[str]:
        """The noun phrases that mean this object and no other."""
        names = [f"{thing.color} {thing.shape}"] if self.pairs[thing.color, thing.shape] == 1 else []
        names += [thing.shape] if self.shapes[thing.shape] == 1 else []
        return names + ([f"{thing.color} shape"] if self.colors[thing.color] == 1 else [])


def relations(things: Sequence[SceneObject]) -> Iterator[tuple[SceneObject, str, SceneObject]]:
    """Every (a, "left of", "right of", "above" or "below", b) that is clear to see, see `APART`."""
    for first in things:
        for second in things:
            dx, dy = second.x - first.x, second.y - first.y
            if dx >= max(APART, abs(dy) / 2):
                yield first, "left of", second
                yield second, "right of", first
            if dy >= max(APART, abs(dx) / 2):
                yield first, "above", second
                yield second, "below", first


def plural(phrase: str) -> str:
    """Of a phrase that ends in a shape."""
    return phrase + ("es" if phrase.endswith("s") else "s")


def article(phrase: str) -> str:
    """With the indefinite article."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def listed(phrases: Sequence[str]) -> str:
    """ "x", "x and y", "x, y and z"."""
    return " and ".join(filter(None, (", ".join(phrases[:-1]), *phrases[-1:])))
