"""A comparison's rows: what is planned, what goes on where it stopped, what cannot be met."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from madtp.compare import Comparison, Job, check_settings, plan, rows_in, variant
from madtp.errors import InputError
from madtp.evaluate import time_towers
from madtp.model.load import load
from madtp.recipe import TrainConfig
from madtp.task.vqa import VqaTask
from madtp.train import Progress
from small import contents, model_folder, nano_model, processor, scenes

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


class Stop(Exception):
    """Stands for the power cut."""


def test_a_training_that_was_cut_short_goes_on_and_ends_the_same(dense: Path, tmp_path: Path) -> None:
    job = Job("tome", 0.4, True, 1)
    whole, broken = (comparison(dense, tmp_path / name) for name in ("whole", "broken"))
    expected = whole.run(job)

    def cut(progress: Progress) -> None:
        if progress.step == 5:  # in the second epoch
            raise Stop

    with pytest.raises(Stop):
        broken.run(job, cut)
    assert not broken.done(job)
    seen: list[int] = []
    row = broken.run(job, lambda progress: seen.append(progress.step))
    assert min(seen) == 4, "the first epoch was not trained again"
    timed = {"seconds", "ms_per_image", "speedup", "train_seconds"}
    assert {k: v for k, v in row.items() if k not in timed} == {k: v for k, v in expected.items() if k not in timed}
    before = contents(tmp_path / "broken")
    assert broken.run(job) == row and rows_in(tmp_path / "broken") == [row]
    assert contents(tmp_path / "broken") == before


def test_a_budget_out_of_reach_is_a_row_that_says_so(dense: Path, tmp_path: Path) -> None:
    row = comparison(dense, tmp_path).run(Job("random", 0.97, False, 0))
    assert "above the most" in row["failed"] and "metrics" not in row


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


def test_settings_must_be_the_same(tmp_path: Path) -> None:
    check_settings(tmp_path / "a", {"lr": 1})
    check_settings(tmp_path / "a", {"lr": 1})
    with pytest.raises(InputError, match="lr 1 -> 2"):
        check_settings(tmp_path / "a", {"lr": 2})
    (tmp_path / "a" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        check_settings(tmp_path / "a", {"lr": 1})
    (tmp_path / "b").write_text("")
    with pytest.raises(InputError, match="something else"):
        check_settings(tmp_path / "b", {})


def test_towers_are_timed_dense_and_as_they_prune() -> None:
    model = nano_model(temperature=8.0).train()
    seen: list[float | None] = []
    model.vision_model.register_forward_hook(lambda *_: seen.append(model.temperature))
    times = time_towers(model, VqaTask(processor()), scenes("val", 2), pairs=2)
    assert seen == [None, 8.0] * 3 and len(times.contender) == 2
    assert model.temperature == 8.0 and model.training and not torch.is_inference_mode_enabled()
