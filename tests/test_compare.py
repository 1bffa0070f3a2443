"""A comparison's rows: what is planned, what goes on where it stopped, what cannot be met."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from madtp import compare, evaluate, train
from madtp.calibration import calibrate_all, first_controllers
from madtp.compare import Comparison, Job, plan, rows_in, same_name, variant
from madtp.cost.budget import Controller
from madtp.errors import InputError
from madtp.evaluate import time_towers
from madtp.model.load import load
from madtp.model.save import save_model
from madtp.recipe import TrainConfig
from madtp.stop import Stopped
from madtp.task.vqa import VqaTask
from madtp.train import Progress
from small import contents, model_folder, nano, nano_model, nano_processor, nano_task, processor, samples, scenes

RECIPE = TrainConfig(epochs=2, batch_size=3, texts=1, lr=3e-3)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model") / "dense")


def comparison(dense: Path, out: Path, **changes: Any) -> Comparison:
    task = VqaTask(processor())
    made = Comparison(
        str(dense), task, scenes("train", 7), scenes("val", 2), scenes("test", 3), out, RECIPE, {}, pairs=1
    )
    return replace(made, **changes)


def test_plan() -> None:
    untrained = plan(["dense", "tome", "madtp"], [0.5, 0.8], 3, trained=False, drawn=False)
    assert [job.name for job in untrained] == [
        "dense-untrained-0-seed0",
        "tome-untrained-0.5-seed0",
        "madtp-untrained-0.5-seed0",
        "tome-untrained-0.8-seed0",
        "madtp-untrained-0.8-seed0",
    ]
    drawn = plan(["tome", "madtp"], [0.5], 3, trained=False, drawn=True)
    assert [(job.method, job.seed) for job in drawn] == [("tome", 0), ("madtp", 0), ("madtp", 1), ("madtp", 2)]
    both = plan(["dense", "tome"], [0.5], 2, trained=True, drawn=False)
    assert [job.trained for job in both] == [False] * 2 + [True] * 4


def test_a_method_with_settings_of_its_own(dense: Path, tmp_path: Path) -> None:
    assert variant("madtp:alpha=0:first_block=2") == ("madtp", {"alpha": 0.0, "first_block": 2})
    assert variant("madtp:alignment=contrastive") == ("madtp", {"alignment": "contrastive"})
    assert variant("tome:first_block=1") == ("tome", {"first_block": 1})
    with pytest.raises(InputError, match="unknown 'cosin'"):
        variant("madtp:alignment=cosin")
    for name, said in (
        ("tome:alpha=0.5", "alpha is nothing for tome"),  # nothing is aligned
        ("tome_dynamic:semantic_tokens=5", "semantic_tokens is nothing for tome_dynamic"),
        ("random:first_block=0:straight_through=1", "straight_through is nothing for random"),
        ("dense:first_block=1", "first_block is nothing for dense"),
        ("downsample:first_block=1", "first_block is nothing for downsample"),  # no block prunes
    ):
        with pytest.raises(InputError, match=said):
            variant(name)
    jobs = plan(["madtp:semantic_tokens=3", "madtp:first_block=1"], [0.3], 2, trained=False, drawn=False)
    assert [(job.method, job.seed) for job in jobs] == [
        ("madtp:semantic_tokens=3", 0),
        ("madtp:semantic_tokens=3", 1),
        ("madtp:first_block=1", 0),
    ]
    arena = comparison(dense, tmp_path, pruning={"alpha": 0.2})
    made = [
        arena._start(Job(name, 0.3, False, 0)).pruning for name in ("madtp:semantic_tokens=3", "madtp:alpha=1", "tome")
    ]
    assert [(p.method, p.semantic_tokens, p.alpha) for p in made] == [
        ("madtp", 3, 0.2),
        ("madtp", 5, 1.0),
        ("tome", 5, 0.0),
    ]


def test_a_variant_has_one_name() -> None:
    for name in ("madtp:alpha=0:first_block=2", "madtp:first_block=2:alpha=0.0", "madtp:alpha=0e3:first_block=02"):
        assert same_name(name) == "madtp:alpha=0:first_block=2"
    for name in ("tome", "madtp:alpha=0.123456789", "madtp:alignment=contrastive:semantic_tokens=100"):
        assert variant(same_name(name)) == variant(name)


def test_rows_align_as_they_say_whatever_the_model_did(tmp_path: Path) -> None:
    contrastive = model_folder(tmp_path / "model", alignment="contrastive")
    arena = comparison(contrastive, tmp_path / "out")
    made = [arena._start(Job(name, 0.3, True, 0)).pruning for name in ("madtp", "madtp:alignment=contrastive")]
    assert [settings.alignment for settings in made] == ["cosine", "contrastive"]


class Stop(Exception):
    """Stands for the power cut."""


class Clock:
    """Seconds that pass when it is told so, for `madtp.train`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        patch.setattr(train, "time", self)

    def perf_counter(self) -> float:
        return self.now

    def step(self, progress: Progress) -> None:
        self.now += 7


def test_a_training_that_was_cut_short_goes_on_and_ends_the_same(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, clock = Job("tome", 0.4, True, 1), Clock(monkeypatch)
    whole, broken = (comparison(dense, tmp_path / name) for name in ("whole", "broken"))
    expected = whole.run(job, clock.step)
    assert expected["train_seconds"] == 7 * 8, "six steps, two validations"

    def cut(progress: Progress) -> None:
        clock.step(progress)
        if progress.step == 5:  # in the second epoch
            raise Stop

    with pytest.raises(Stop):
        broken.run(job, cut)
    assert not broken.done(job)
    seen: list[int] = []
    clock.now += 1000

    def see(progress: Progress) -> None:
        clock.step(progress)
        seen.append(progress.step)

    row = broken.run(job, see)
    assert min(seen) == 4, "the first epoch was not trained again"
    timed = {"seconds", "ms_per_image", "speedup"}
    assert {k: v for k, v in row.items() if k not in timed} == {k: v for k, v in expected.items() if k not in timed}
    before = contents(tmp_path / "broken")
    assert broken.run(job) == row and rows_in(tmp_path / "broken") == [row]
    assert contents(tmp_path / "broken") == before


def test_a_budget_out_of_reach_is_a_row_that_says_so(dense: Path, tmp_path: Path) -> None:
    row = comparison(dense, tmp_path).run(Job("random", 0.97, False, 0))
    assert "above the most" in row["failed"] and "metrics" not in row
    trained = comparison(dense, tmp_path).run(Job("random", 0.99, True, 0))
    assert "0.99 is impossible" in trained["failed"] and "metrics" not in trained
    assert rows_in(tmp_path) == [row, trained]


def test_a_training_that_diverges_is_a_row_that_says_so(dense: Path, tmp_path: Path) -> None:
    arena = comparison(dense, tmp_path, recipe=replace(RECIPE, lr=1e30, bad_steps=2))
    row = arena.run(Job("tome", 0.4, True, 0))
    assert "2 steps in a row without a finite loss" in row["failed"] and "metrics" not in row
    assert arena.run(Job("tome", 0.4, True, 0), lambda progress: pytest.fail("trained again")) == row


def test_a_signal_lets_a_training_write_its_checkpoint(dense: Path, tmp_path: Path) -> None:
    job = Job("tome", 0.4, True, 1)
    arena = comparison(dense, tmp_path, listen=True)
    seen: list[int] = []

    def asked(progress: Progress) -> None:
        seen.append(progress.step)
        if progress.step == 2:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM: the same command goes on from the last checkpoint") as stopped:
        arena.run(job, asked)
    assert stopped.value.code == 0 and seen == [1, 2] and signal.getsignal(signal.SIGTERM) == before
    arena.run(job, lambda progress: seen.append(progress.step))
    assert seen[2] == 3


def test_a_damaged_row_is_named(dense: Path, tmp_path: Path) -> None:
    job = Job("dense", 0, False, 0)
    arena = comparison(dense, tmp_path)
    arena.run(job)
    (arena.folder(job) / "row.json").write_text("{")
    for read in (lambda: arena.run(job), lambda: rows_in(tmp_path)):
        with pytest.raises(InputError, match=r"row\.json: not JSON"):
            read()


def test_untrained_rows_are_those_of_the_model(dense: Path, tmp_path: Path) -> None:
    arena = comparison(dense, tmp_path, pruning={"first_block": 1})
    row = arena.run(Job("madtp", 0.3, False, 0))
    model = load(dense)
    assert model.pruning.first_block == 0
    assert row["reduction_asked"] == 0.3 and row["gflops"]["reduction"] == pytest.approx(0.3, abs=0.1)
    assert row["tokens"]["per_block"][0] == 49 > row["tokens"]["per_block"][1]
    fresh = replace(arena, semantic_tokens=3, out=tmp_path / "fresh")
    one, two = (fresh.run(Job("madtp", 0.3, False, seed))["tokens"] for seed in (0, 1))
    assert one != two


def test_towers_are_timed_dense_and_as_they_prune() -> None:
    model = nano_model(temperature=8.0).train()
    seen: list[float | None] = []
    model.vision_model.register_forward_hook(lambda *_: seen.append(model.temperature))
    times = time_towers(model, VqaTask(processor()), scenes("val", 2), pairs=2)
    assert seen == [None, 8.0] * 3 and len(times.contender) == 2
    assert model.temperature == 8.0 and model.training and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("kind", "trained"), [("reasoning", True), ("clip", True), ("retrieval", False), ("vqa", False)]
)
def test_upop_is_smaller_for_good(kind: str, trained: bool, tmp_path: Path) -> None:
    """Weights are gone: what is left meets the budget and loads again, and it is timed beside the dense model."""
    save_model(nano(kind), nano_processor(kind), tmp_path / "dense")
    task = "retrieval" if kind == "clip" else kind
    data = [samples(task, split, n) for split, n in (("train", 7), ("val", 3), ("test", 3))]
    recipe = replace(RECIPE, epochs=1)
    arena = Comparison(str(tmp_path / "dense"), nano_task(kind), *data, tmp_path / "out", recipe, {}, pairs=1)
    timed: list[tuple[int, int]] = []

    def spy(model: Any, *args: Any, dense: Any, **kwargs: Any) -> dict[str, float]:
        timed.append(tuple(sum(p.numel() for p in m.parameters()) for m in (model, dense)))  # type: ignore[arg-type]
        return evaluate.timed(model, *args, dense=dense, **kwargs)

    job = Job("upop", 0.4, trained, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "timed", spy)
        row = arena.run(job)
    # where answers are written their number of words is not known beforehand
    assert row["gflops"]["reduction"] == pytest.approx(0.4, abs=0.05 if kind == "vqa" else 0.02)
    ((few, many),) = timed
    assert few < 0.9 * many and row["speedup"] > 0
    assert set(row["tokens"]["per_block"]) == {49.0}, "no token is pruned"
    if trained:
        model: Any = load(arena.folder(job))
        assert sum(p.numel() for p in model.parameters()) == few
        assert model.pruning.reduction == pytest.approx(0.4, abs=0.02) and model.temperature == row["temperature"]
        again = evaluate.evaluate(model.eval(), arena.task, arena.test)
        assert again.metrics == row["metrics"] and again.reduction == row["gflops"]["reduction"]


def test_upop_trained_goes_on_where_it_stopped(dense: Path, tmp_path: Path) -> None:
    job = Job("upop", 0.4, True, 1)
    recipe = replace(RECIPE, ramp=0.7)  # 4 of 6 steps
    whole, broken = (comparison(dense, tmp_path / name, recipe=recipe) for name in ("whole", "broken"))
    met: list[tuple[float, float]] = []
    update = Controller.update

    def watched(controller: Controller, measured: float) -> float:
        met.append((controller.strength, measured))
        return update(controller, measured)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Controller, "update", watched)
        expected = whole.run(job)
    strengths, measured = zip(*met, strict=True)
    assert sorted(strengths) == list(strengths) and strengths[0] == 0.005 and len({*strengths}) == 5
    assert measured == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4], abs=0.03), "in even steps, counted as they are gone"

    def cut(progress: Progress) -> None:
        if progress.step == 4:  # in the second epoch
            raise Stop

    with pytest.raises(Stop):
        broken.run(job, cut)
    row = broken.run(job)
    took = {"seconds", "ms_per_image", "speedup", "train_seconds"}
    assert {k: v for k, v in row.items() if k not in took} == {k: v for k, v in expected.items() if k not in took}
    one, two = (contents(arena.folder(job))["model.safetensors"] for arena in (whole, broken))
    assert one == two


def test_upop_says_what_it_cannot_do(tmp_path: Path) -> None:
    """A caption's decoder is left whole, and here it is most of the work."""
    save_model(nano("caption"), nano_processor("caption"), tmp_path / "dense")
    data = [samples("caption", split, n) for split, n in (("train", 7), ("val", 3), ("test", 3))]
    arena = Comparison(str(tmp_path / "dense"), nano_task("caption"), *data, tmp_path / "out", RECIPE, {}, pairs=1)
    for trained in (False, True):
        assert "above the most" in arena.run(Job("upop", 0.8, trained, 0))["failed"]
    model = nano("vqa", method="upop")
    with pytest.raises(InputError, match="serves one budget"):
        first_controllers(model, VqaTask(processor()), [], (0.3, 0.5), 1)
    with pytest.raises(InputError, match="serves one budget"):
        calibrate_all(model, VqaTask(processor()), [], (0.3, 0.5), scenes("val", 2))
