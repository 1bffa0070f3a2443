import hashlib
from dataclasses import replace

import numpy as np
import pytest

from madtp.data.scene import COLORS, SHAPES, Scene, SceneObject, SceneSettings, make_scene
from madtp.data.scene_draw import OUTLINES, draw_scene


def plain(*objects: SceneObject, side: int = 64) -> Scene:
    return Scene(side, objects, (255, 255, 255), (), 0.0, 0)


def thing(shape: str, x: float = 0.5, y: float = 0.5, size: float = 0.5, angle: float = 0.0) -> SceneObject:
    return SceneObject(shape, "red", x, y, size, angle, (255, 0, 0))


def mask(scene: Scene, rgb: tuple[int, int, int] = (255, 0, 0)) -> np.ndarray:
    return np.asarray((np.asarray(draw_scene(scene)) == rgb).all(-1))


def test_mode_and_size() -> None:
    for side in (16, 61, 64):
        image = draw_scene(make_scene(0, "train", 0, SceneSettings(side=side)))
        assert image.mode == "RGB"
        assert image.size == (side, side)


def test_drawing_is_the_same_each_time_and_seeded_by_the_scene() -> None:
    scene = make_scene(0, "train", 3)
    first, second, other = (draw_scene(s).tobytes() for s in (scene, scene, replace(scene, noise_seed=1)))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    assert first != other


@pytest.mark.parametrize(
    ("shape", "share"),
    # Areas in units of the squared radius, by hand: pi; 2; 3 sqrt(3) / 4; two bars 2a by 2 sqrt(1 - a^2) less the
    # (2a)^2 they share, a = 0.34; ten triangles of sides 1 and 0.45 at 36 degrees.
    [("circle", 3.1416), ("square", 2.0), ("triangle", 1.2990), ("cross", 2.0955), ("star", 1.3225)],
)
@pytest.mark.parametrize("angle", [0.0, 13.0])
def test_area(shape: str, share: float, angle: float) -> None:
    side = 512
    area = mask(plain(thing(shape, angle=angle), side=side)).sum()
    assert area == pytest.approx(share * (side * 0.25) ** 2, rel=0.03)


def test_place_and_directions() -> None:
    """x grows to the right, y downwards; the triangle points up; a positive angle turns counter-clockwise."""
    rows, columns = np.nonzero(mask(plain(thing("circle", x=0.25, y=0.75, size=0.2))))
    assert columns.mean() == pytest.approx(15.5, abs=0.6)
    assert rows.mean() == pytest.approx(47.5, abs=0.6)
    upright = mask(plain(thing("triangle")))
    assert upright[:32].sum() < upright[32:].sum()
    assert upright[:, :32].sum() == pytest.approx(upright[:, 32:].sum(), rel=0.1)
    top = np.nonzero(mask(plain(thing("triangle", angle=18.0))).any(1))[0][0]
    assert np.nonzero(mask(plain(thing("triangle", angle=18.0)))[top])[0].mean() < 31


def test_later_objects_are_in_front_and_set_off() -> None:
    behind = thing("square", x=0.4)
    front = SceneObject("square", "red", 0.62, 0.5, 0.3, 0.0, (255, 0, 0))
    # Along the middle: red, a light rim, red again.
    row = np.asarray(draw_scene(plain(behind, front, side=128)))[64, :, 1]
    inside = row[int(0.35 * 128) : int(0.7 * 128)]
    assert inside.max() > 150
    assert inside[0] == inside[-1] == 0
    hidden = mask(plain(replace(front, rgb=(0, 0, 255)), replace(behind, size=0.9)), (0, 0, 255))
    assert not hidden.any()


def test_every_object_shows_at_least_three_fifths() -> None:
    for i in range(43):
        scene = make_scene(5, "train", i, SceneSettings(objects=(5, 8)))
        flat = [replace(o, rgb=(20 * k + 20, 0, 0)) for k, o in enumerate(scene.objects)]
        together = np.asarray(draw_scene(plain(*flat, side=192)))
        for o in flat:
            assert (together == o.rgb).all(-1).sum() > 0.6 * mask(plain(o, side=192), o.rgb).sum()


def test_every_object_is_big_enough_to_see() -> None:
    for i in range(61):
        for o in make_scene(5, "test", i, SceneSettings(objects=(8, 8))).objects:
            assert (np.asarray(draw_scene(plain(replace(o, rgb=(255, 0, 0)))))[..., 1] < 128).sum() >= 20


def test_clutter_is_faint() -> None:
    scene = make_scene(1, "train", 0)
    assert scene.lines
    assert scene.noise > 0
    bare = np.asarray(draw_scene(replace(scene, noise=0.0, lines=()))).astype(int)
    full = np.asarray(draw_scene(scene)).astype(int)
    assert 0 < np.abs(bare - full).max() < 60


def test_all_shapes_are_known() -> None:
    assert {"circle", *OUTLINES} == set(SHAPES)
    assert len(COLORS) == 8
    assert all(np.hypot(*np.transpose(corners)).max() == pytest.approx(1) for corners in OUTLINES.values())
