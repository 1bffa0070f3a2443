"""Scenes to pixels."""

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from madtp.data.scene import Scene, SceneObject

SUPERSAMPLING = 4
HALO = 0.012
"""A shape in front is set off by a rim in the background's colour, this share of the side wide: two red circles that
overlap stay two."""
LINE_WIDTH = 0.014
LINE_SHADE = 0.9


def _polygon(n: int, radii: tuple[float, ...] = (1.0,), start: float = 90.0) -> tuple[tuple[float, float], ...]:
    """Corners, n of them, on the unit circle (radii taken in turn), the first at ``start`` degrees, y downwards."""
    angles = [math.radians(start + 360 * k / n) for k in range(n)]
    lengths = [radii[k % len(radii)] for k in range(n)]
    return tuple((r * math.cos(a), -r * math.sin(a)) for r, a in zip(lengths, angles, strict=True))


def _cross(arm: float = 0.34) -> tuple[tuple[float, float], ...]:
    """A plus sign within the unit circle, its arms 2 * arm wide."""
    tip = math.sqrt(1 - arm * arm)
    quarter = ((-arm, -tip), (arm, -tip), (arm, -arm))
    corners = list(quarter)
    for _ in range(3):
        corners += [(-y, x) for x, y in corners[-3:]]
    return tuple(corners)


OUTLINES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "square": _polygon(4, start=45.0),
    "triangle": _polygon(3),
    "cross": _cross(),
    "star": _polygon(10, (1.0, 0.45)),
}
"""Corners of each shape but the circle, in the unit circle, y downwards."""


def draw_scene(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of ``scene.side`` pixels a side, anti-aliased."""
    large = scene.side * SUPERSAMPLING
    image = Image.new("RGB", (large, large), scene.background)
    draw = ImageDraw.Draw(image)
    shade = tuple(round(LINE_SHADE * c) for c in scene.background)
    for line in scene.lines:
        draw.line([large * value for value in line], fill=shade, width=max(1, round(LINE_WIDTH * large)))
    for thing in scene.objects:
        _paint(draw, thing, scene.background, large)
    small = image.reduce(SUPERSAMPLING)
    if scene.noise == 0:
        return small
    generator = np.random.Generator(np.random.PCG64(scene.noise_seed))
    noise = (generator.random((scene.side, scene.side, 1), dtype=np.float32) * 2 - 1) * scene.noise
    return Image.fromarray((np.asarray(small, dtype=np.float32) + noise + 0.5).clip(0, 255).astype(np.uint8))


def _paint(draw: ImageDraw.ImageDraw, thing: SceneObject, background: tuple[int, int, int], large: int) -> None:
    x, y, radius, halo = thing.x * large, thing.y * large, thing.size / 2 * large, HALO * large
    if thing.shape == "circle":
        outer = radius + halo
        draw.ellipse((x - outer, y - outer, x + outer, y + outer), fill=background)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=thing.rgb)
        return
    cos, sin = math.cos(math.radians(thing.angle)), math.sin(math.radians(thing.angle))
    corners = [(x + radius * (cos * u + sin * v), y + radius * (cos * v - sin * u)) for u, v in OUTLINES[thing.shape]]
    draw.line([*corners, corners[0]], fill=background, width=round(2 * halo))
    draw.polygon(corners, fill=thing.rgb)
