import hashlib
import json
import math
from collections import Counter
from typing import Any

import pytest

from madtp.data.scene import COLOR_JITTER, COLORS, SHAPES, Scene, SceneSettings, Stream, make_scene
from madtp.errors import InputError

SCENES = [make_scene(3, "train", i) for i in range(307)]


def test_same_key_same_scene_and_no_two_keys_alike() -> None:
    assert make_scene(3, "train", 11) == SCENES[11]
    assert len(set(SCENES)) == len(SCENES)
    others = {make_scene(seed, split, 11) for seed in (3, 5) for split in ("train", "val", "test")}
    assert len(others) == 6


def test_scenes_never_move() -> None:
    """Published figures are made from these scenes: they are the same on every machine and with every numpy."""
    text = json.dumps([scene.to_dict() for scene in SCENES[:97]])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e5b856a416d1dd70"


def test_facts_are_in_range() -> None:
    for scene in SCENES:
        assert 1 <= len(scene.objects) <= 8
        assert scene.side == 64
        for thing in scene.objects:
            assert thing.shape in SHAPES
            assert thing.color in COLORS
            assert 0.08 < thing.size <= 0.32
            for place in (thing.x, thing.y):
                assert thing.size / 2 <= place <= 1 - thing.size / 2
            assert all(abs(a - b) <= COLOR_JITTER for a, b in zip(thing.rgb, COLORS[thing.color], strict=True))


def test_every_number_shape_and_color_is_about_as_common() -> None:
    numbers = Counter(len(scene.objects) for scene in SCENES)
    assert sorted(numbers) == list(range(1, 9))
    assert min(numbers.values()) > 307 / 8 / 2
    things = [thing for scene in SCENES for thing in scene.objects]
    for counts, n in ((Counter(t.shape for t in things), 5), (Counter(t.color for t in things), 8)):
        assert len(counts) == n
        assert max(counts.values()) < 1.5 * len(things) / n


def test_colors_are_told_apart() -> None:
    values = list(COLORS.values())
    gaps = [math.dist(a, b) for i, a in enumerate(values) for b in values[:i]]
    assert min(gaps) > 4 * COLOR_JITTER


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_discs_hide_no_more_than_asked(overlap: float) -> None:
    settings = SceneSettings(objects=(8, 8), overlap=overlap)
    touching = 0
    for i in range(53):
        things = make_scene(7, "train", i, settings).objects
        for a in things:
            covered = [b for b in things if b is not a and math.hypot(a.x - b.x, a.y - b.y) < (a.size + b.size) / 2]
            assert len(covered) <= 1  # what hides a shape is one other, so the share below is all that is hidden
            touching += len(covered)
            for b in covered:
                assert _covered(a.size / 2, b.size / 2, math.hypot(a.x - b.x, a.y - b.y)) <= overlap + 0.001
    assert (touching > 0) == (overlap > 0)


def _covered(r: float, other: float, d: float) -> float:
    """Share of a disc of radius r that lies under one of radius ``other`` at distance d (area of the lens)."""
    alpha = math.acos((d * d + r * r - other * other) / (2 * d * r))
    beta = math.acos((d * d + other * other - r * r) / (2 * d * other))
    lens = r * r * (alpha - math.sin(2 * alpha) / 2) + other * other * (beta - math.sin(2 * beta) / 2)
    return lens / (math.pi * r * r)


def test_settings_are_obeyed() -> None:
    settings = SceneSettings(side=97, objects=(2, 3), sizes=(0.2, 0.21), clutter=0.0)
    for i in range(31):
        scene = make_scene(0, "val", i, settings)
        assert scene.side == 97
        assert len(scene.objects) in (2, 3)
        assert not scene.lines
        assert scene.noise == 0
        assert all(0.2 <= round(thing.size, 3) <= 0.21 for thing in scene.objects)


def test_crowds_of_big_shapes_are_shrunk_until_they_fit() -> None:
    scene = make_scene(0, "train", 0, SceneSettings(objects=(8, 8), sizes=(0.5, 0.5), overlap=0.0))
    assert len(scene.objects) == 8
    assert max(thing.size for thing in scene.objects) < 0.4


def test_side_changes_nothing_but_the_side() -> None:
    small, large = make_scene(2, "test", 5), make_scene(2, "test", 5, SceneSettings(side=128))
    assert small.to_dict() | {"side": 128} == large.to_dict()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("side", 8),
        ("objects", (0, 3)),
        ("objects", (3, 2)),
        ("objects", (1, 9)),
        ("sizes", (0.3, 0.2)),
        ("sizes", (0.1, 0.9)),
        ("overlap", 0.5),
        ("overlap", float("nan")),
        ("clutter", -0.1),
        ("questions", 0),
    ],
)
def test_settings_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"scene settings, {field}: is .*; use "):
        SceneSettings(**{field: value})


def test_scene_survives_json() -> None:
    for scene in SCENES[:13]:
        again = Scene.from_dict(json.loads(json.dumps(scene.to_dict())))
        assert again == scene
        assert hash(again) == hash(scene)


@pytest.mark.parametrize("spoil", [{"objects": None}, {"objects": [{"shape": "star"}]}, {"extra": 1}, {"lines": 3}])
def test_what_is_no_scene_is_refused(spoil: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is not a scene"):
        Scene.from_dict(SCENES[0].to_dict() | spoil)
    with pytest.raises(InputError, match="is not a scene"):
        Scene.from_dict({})


def test_stream() -> None:
    assert [Stream(1, 2).random() for _ in range(2)] == [Stream(1, 2).random()] * 2
    stream = Stream(1, 0, 2, 0)
    drawn = [stream.below(7) for _ in range(1009)]  # runs past one refill
    assert set(drawn) == set(range(7))
    assert max(Counter(drawn).values()) < 200
    assert all(2 <= stream.uniform(2, 3) < 3 for _ in range(101))
    firsts = Counter(tuple(stream.shuffled("abc")) for _ in range(601))
    assert len(firsts) == 6
    assert min(firsts.values()) > 60
    assert stream.choice(["a"]) == "a"
    assert stream.shuffled([]) == []
