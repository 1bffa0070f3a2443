"""A slow reading of the phrases of questions, captions and statements, written for the tests alone."""

from madtp.data.scene import COLORS, SHAPES, Scene, SceneObject

SINGULAR = {"circles": "circle", "squares": "square", "triangles": "triangle", "crosses": "cross", "stars": "star"}
NUMBERS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight"),
    *("nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)


def meant(scene: Scene, phrase: str) -> list[SceneObject]:
    """The objects a noun phrase, without its article or number, applies to."""
    found = list(scene.objects)
    for word in phrase.split():
        word = SINGULAR.get(word, word)
        if word in COLORS:
            found = [o for o in found if o.color == word]
        elif word in SHAPES:
            found = [o for o in found if o.shape == word]
        else:
            assert word in ("shape", "shapes", "thing"), word
    return found


def numbered(phrase: str) -> tuple[int, str]:
    """Number and noun: "two red stars" -> 2, "red stars"; the words must agree."""
    word, noun = phrase.split(" ", 1)
    n = 1 if word in ("a", "an") else NUMBERS.index(word) + 1
    if word in ("a", "an"):
        assert (word == "an") == (noun[0] in "aeiou"), phrase
    assert (n > 1) == noun.endswith(("shapes", *SINGULAR)), phrase
    return n, noun


def article(phrase: str) -> str:
    """The noun of "a red star"."""
    n, noun = numbered(phrase)
    assert n == 1 and not phrase.startswith("one "), phrase
    return noun


def gap(a: SceneObject, direction: str, b: SceneObject) -> float:
    """How far ``a`` lies from ``b`` in a direction, as a share of the side; negative on the other side."""
    return {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}[direction]


def across(a: SceneObject, direction: str, b: SceneObject) -> float:
    """How far they are apart the other way."""
    return abs(b.y - a.y) if direction in ("left of", "right of") else abs(b.x - a.x)


def clear(a: SceneObject, direction: str, b: SceneObject) -> bool:
    """Whether it is plain to see."""
    return gap(a, direction, b) >= max(0.15, across(a, direction, b) / 2)
