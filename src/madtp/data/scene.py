"""Scenes: pictures as a list of coloured shapes, symbolic, so that questions and captions can come from one scene."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from madtp.data.sample import SPLITS
from madtp.errors import InputError

T = TypeVar("T")

SHAPES = ("circle", "square", "triangle", "cross", "star")
COLORS: Mapping[str, tuple[int, int, int]] = {
    "red": (214, 32, 38),
    "orange": (246, 128, 20),
    "yellow": (244, 222, 38),
    "green": (34, 148, 60),
    "cyan": (60, 200, 220),
    "blue": (36, 70, 205),
    "purple": (140, 44, 165),
    "black": (24, 24, 28),
}
MAX_OBJECTS = 8
"""Counts are single words of the closed answer list, which ends at this number."""
COLOR_JITTER = 10
PICTURE, QUESTIONS, CAPTIONS, LEFT, RIGHT, STATEMENTS = range(6)
"""What a stream of a scene's number is for, the last part of its key: new wording never moves a shape."""
MAX_TILT = 18.0


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One shape.

    Args:
        shape: one of `SHAPES`.
        color: one of `COLORS`.
        x, y: its centre, as shares of the picture's side; x grows to the right, y downwards.
        size: diameter of the circle around it, as a share of the picture's side.
        angle: tilt in degrees, counter-clockwise.
        rgb: the shade it is painted in, near the colour's own.
    """

    shape: str
    color: str
    x: float
    y: float
    size: float
    angle: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture as facts: all that is needed to draw it and to say what is true of it.

    Args:
        side: width and height in pixels.
        objects: the shapes, the later ones in front.
        background: its colour.
        lines: faint lines behind the shapes, each (x0, y0, x1, y1) in shares of the side.
        noise: largest change of a pixel by noise, in levels of 255.
        noise_seed: seeds the noise.
    """

    side: int
    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int]
    lines: tuple[tuple[float, float, float, float], ...]
    noise: float
    noise_seed: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Scene":
        """The scene that `to_dict` wrote.

        Raises:
            InputError: a field is missing, unknown or of the wrong form.
        """
        try:
            fields = dict(content)
            fields["objects"] = tuple(SceneObject(**{**o, "rgb": tuple(o["rgb"])}) for o in fields["objects"])
            fields["background"] = tuple(fields["background"])
            fields["lines"] = tuple(tuple(line) for line in fields["lines"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"is not a scene: {error!r}", "scene") from error


@dataclass(frozen=True, slots=True)
class SceneSettings:
    """How hard the scenes are.

    Args:
        side: width and height of the pictures in pixels, 16 to 1024.
        objects: fewest and most shapes, within 1 to 8; every number between is equally likely.
        sizes: smallest and largest diameter, as shares of the side; crowded scenes may go below.
        overlap: the largest share of a shape that another may hide, 0 to 0.4. A shape touches one other at most.
        clutter: strength of background lines and noise, 0 (none) to 3.
        questions: number of questions a picture (of statements a pair), 1 to 16.

    Raises:
        InputError: a value out of its range.
    """

    side: int = 64
    objects: tuple[int, int] = (1, MAX_OBJECTS)
    sizes: tuple[float, float] = (0.17, 0.32)
    overlap: float = 0.3
    clutter: float = 1.0
    questions: int = 8

    def __post_init__(self) -> None:
        checks = (
            ("side", self.side, 16 <= self.side <= 1024, "16 to 1024 pixels"),
            ("objects", self.objects, 1 <= self.objects[0] <= self.objects[1] <= MAX_OBJECTS, "two numbers in 1 to 8"),
            ("sizes", self.sizes, 0.05 <= self.sizes[0] <= self.sizes[1] <= 0.5, "two shares in 0.05 to 0.5"),
            ("overlap", self.overlap, 0 <= self.overlap <= 0.4, "0 to 0.4"),
            ("clutter", self.clutter, 0 <= self.clutter <= 3, "0 to 3"),
            ("questions", self.questions, 1 <= self.questions <= 16, "1 to 16"),
        )
        for name, value, fine, allowed in checks:
            if not fine:
                raise InputError(f"is {value}", f"scene settings, {name}", f"use {allowed}")


class Stream:
    """Random draws that depend on nothing but their key.

    Only `numpy.random.Generator.random` is used underneath: the other methods may change between numpy versions, and
    scenes that move with an update would make every published figure stale.

    Args:
        key: non-negative integers below 2**32. Use one length of key throughout: numpy pads short ones with zeros.
    """

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        self._ready: list[float] = []

    def random(self) -> float:
        """Uniform in [0, 1)."""
        if not self._ready:
            self._ready = self._generator.random(128).tolist()  # one by one they would cost ten times as much
        return self._ready.pop()

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.random()

    def below(self, n: int) -> int:
        """Uniform among 0 ... n-1."""
        return int(self.random() * n)

    def choice(self, items: Sequence[T]) -> T:
        """One of ``items``, each equally likely."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """``items`` in random order."""
        result = list(items)
        for i in range(len(result) - 1, 0, -1):
            j = self.below(i + 1)
            result[i], result[j] = result[j], result[i]
        return result


def make_scene(
    seed: int, split: str, index: int, settings: SceneSettings | None = None, picture: int = PICTURE
) -> Scene:
    """Scene number ``index`` of a split. Each has a random stream of its own, so any one can be made alone.

    Args:
        seed: 0 to 2**32 - 1.
        split: "train", "val" or "test"; their streams never meet.
        index: 0 or more.
        settings: how hard it is; None for the defaults.
        picture: PICTURE, or LEFT or RIGHT of a pair.
    """
    settings = settings or SceneSettings()
    stream = Stream(seed, SPLITS.index(split), index, picture)
    fewest, most = settings.objects
    n = fewest + stream.below(most - fewest + 1)
    places = _place(stream, n, settings)
    # Few kinds in a picture make for high counts, many for unique shapes that can be asked about.
    shapes = stream.shuffled(SHAPES)[: 1 + stream.below(len(SHAPES))]
    colors = stream.shuffled(tuple(COLORS))[: 1 + stream.below(len(COLORS))]
    objects = []
    for x, y, size in places:
        color = stream.choice(colors)
        objects.append(
            SceneObject(
                shape=stream.choice(shapes),
                color=color,
                x=x,
                y=y,
                size=size,
                angle=round(stream.uniform(-MAX_TILT, MAX_TILT), 2),
                rgb=_near(stream, COLORS[color]),
            )
        )
    grey = 226 + stream.below(22)
    return Scene(
        side=settings.side,
        objects=tuple(objects),
        background=(grey + stream.below(9), grey + stream.below(9), grey + stream.below(9)),
        lines=tuple(_line(stream) for _ in range(round(stream.uniform(1, 5) * settings.clutter))),
        noise=round(stream.uniform(2, 9) * settings.clutter, 2),
        noise_seed=stream.below(2**32),
    )


def _place(stream: Stream, n: int, settings: SceneSettings) -> list[tuple[float, float, float]]:
    """Centres and diameters of n shapes, in the order they are painted."""
    sizes = [stream.uniform(*settings.sizes) for _ in range(n)]
    while True:
        placed: list[tuple[float, float, float]] = []
        touched: set[int] = set()
        for size in sorted(sizes, reverse=True):  # the big ones first, while there is room
            for _ in range(40):
                x, y = (round(stream.uniform(size / 2 + 0.01, 0.99 - size / 2), 4) for _ in "xy")
                touching = _touching((x, y, size), placed, touched, settings.overlap)
                if touching is not None:
                    if touching >= 0:
                        touched |= {touching, len(placed)}
                    placed.append((x, y, round(size, 4)))
                    break
            else:
                break
        if len(placed) == n:
            return stream.shuffled(placed)
        sizes = [0.95 * size for size in sizes]


def _touching(
    new: tuple[float, float, float], placed: Sequence[tuple[float, float, float]], touched: set[int], overlap: float
) -> int | None:
    """Index of the one shape that ``new`` overlaps, -1 for none, None where it may not stand.

    The smaller of two discs, whose radius is r, is covered by less than (1 - t) / 2 where the rim of the larger stays
    t r short of its centre; so a distance of R + (1 - 2 overlap) r keeps what is hidden under ``overlap``.
    """
    found = -1
    x, y, size = new
    for i, (px, py, other) in enumerate(placed):
        distance = math.hypot(x - px, y - py)
        if distance >= (size + other) / 2 + 0.015:
            continue
        nearest = (max(size, other) + (1 - 2 * overlap) * min(size, other)) / 2
        if distance < nearest or found >= 0 or i in touched:
            return None
        found = i
    return found


def _line(stream: Stream) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (round(stream.random(), 4) for _ in range(4))
    return x0, y0, x1, y1


def _near(stream: Stream, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, c + stream.below(2 * COLOR_JITTER + 1) - COLOR_JITTER)) for c in rgb)
    return red, green, blue
