"""The training loop: a run that was killed goes on bit for bit, the schedule, and which epoch's model is kept."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors.torch import load_file

from madtp import calibration
from madtp import train as module
from madtp.checkpoints import STATE
from madtp.cost.budget import Found, OutOfReach
from madtp.data.faults import Faults
from madtp.data.load import load_data
from madtp.errors import InputError
from madtp.evaluate import batches, measure_reduction
from madtp.model.curve import BudgetCurve
from madtp.model.load import load
from madtp.recipe import TrainConfig, learning_rate
from madtp.resume import LOG, load_state
from madtp.task.step import order_of_epoch
from madtp.task.vqa import VqaTask
from madtp.train import Progress, Trainer
from small import data_folder, nano_model, processor, scenes

# 5 steps an epoch, the last of one image; a checkpoint in mid-epoch at 2, 4, 6 and 8, and one after each validation.
CONFIG = TrainConfig(epochs=2, batch_size=3, texts=1, lr=3e-3, shift=1, seed=7, save_every=2)
BUDGETS: dict[str, tuple[TrainConfig, dict[str, Any]]] = {
    "dense": (CONFIG, {}),
    "madtp": (replace(CONFIG, reductions=(0.5,)), {}),
    "random, dense": (replace(CONFIG, reductions=(0.0, 0.4)), {"method": "random"}),
    "accumulated": (replace(CONFIG, accumulate=3, save_every=1, tag_epochs=1), {}),
}


class Stop(Exception):
    """Stands for the power cut."""


def start(
    out: Path, config: TrainConfig, resume: bool = False, report: Callable[[Progress], None] | None = None, **madtp: Any
) -> Trainer:
    """As the command line does it: seed, model, trainer."""
    out.mkdir(parents=True, exist_ok=True)
    set_seed(config.seed)
    model = nano_model(config.seed, **madtp)
    return Trainer(model, VqaTask(processor()), scenes("train", 13), scenes("val", 2, 1), out, config, report, "cpu")


def after(calls: int, act: Callable[[], None]) -> Callable[[Progress], None]:
    """Acts at the so manieth report; every step reports once, and every validation."""
    left = [calls]

    def report(_: Progress) -> None:
        left[0] -= 1
        if left[0] == 0:
            act()

    return report


def power_cut() -> None:
    raise Stop


def log_of(out: Path) -> list[dict[str, Any]]:
    """The log without the wall times."""
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def same(left: Any, right: Any) -> bool:
    """Bit for bit, through all containers."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


def assert_same_run(out: Path, whole: Path) -> None:
    state, expected = (torch.load(folder / STATE, weights_only=True) for folder in (out, whole))
    for content in (state, expected):  # others in this process draw from Python's, a run does not
        content["config"]["workers"] = content["seconds"] = None
        for drawn in content["random"] if content["config"]["processes"] > 1 else [content["random"]]:
            drawn["python"] = None
    for key in expected:
        assert same(state[key], expected[key]), f"{key} differs"
    saved, wanted = (load_file(folder / "model.safetensors") for folder in (out, whole))
    assert same(saved, wanted)
    assert (out / "config.json").read_text() == (whole / "config.json").read_text()
    assert log_of(out) == log_of(whole)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a run to the end, made when first asked for."""
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / "run"
            config, madtp = BUDGETS[name]
            start(made[name], config, **madtp).run()
        return made[name]

    return run


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("dense", (4, 3)),  # before the checkpoint that was due, then in what remains
        ("dense", (6,)),  # in the first validation, its log line written
        pytest.param("dense", (3,), marks=pytest.mark.slow),  # a step past the checkpoint
        pytest.param("dense", (12,), marks=pytest.mark.slow),  # in the last validation
        ("madtp", (4,)),
        pytest.param("madtp", (8, 3), marks=pytest.mark.slow),
        ("random, dense", (4,)),
        ("accumulated", (3,)),
        pytest.param("accumulated", (8,), marks=pytest.mark.slow),
    ],
)
def test_resuming_is_bit_for_bit(
    name: str, stops: tuple[int, ...], tmp_path: Path, unbroken: Callable[[str], Path]
) -> None:
    whole, out = unbroken(name), tmp_path / "run"
    config, madtp = BUDGETS[name]
    for i, stop in enumerate(stops):
        torch.manual_seed(1000 + i)  # whatever else the new process drew before
        with pytest.raises(Stop):
            start(out, config, report=after(stop, power_cut), **madtp).run(resume=i > 0)
    trainer = start(out, config, **madtp)
    torch.manual_seed(99)
    result = trainer.run(resume=True)
    assert_same_run(out, whole)
    assert result.to_dict()["metrics"] == log_of(whole)[-1]["metrics"]


def test_a_batch_that_cannot_be_read_amid_a_step_of_several_is_remembered(tmp_path: Path) -> None:
    """It is none of the step's three; a run that goes on behind it takes the same three."""
    config = replace(CONFIG, accumulate=3, save_every=1)
    broken = order_of_epoch(13, config.batch_size, (0, 1), config.seed, 0)[1]

    def tolerant(out: Path, **more: Any) -> Trainer:
        trainer = start(out, config, **more)
        trainer.faults = Faults("skip", 0.5)

        class Torn(type(trainer.dataset)):  # type: ignore[misc]
            def __getitem__(self, index: int) -> Any:
                if index in broken:
                    raise InputError("cannot be read", str(index))
                return super().__getitem__(index)

        trainer.dataset.__class__ = Torn
        return trainer

    whole, out = tmp_path / "whole", tmp_path / "run"
    tolerant(whole).run()
    with pytest.raises(Stop):
        tolerant(out, report=after(2, power_cut)).run()
    assert torch.load(out / STATE, weights_only=True)["step"] == 2
    trainer = tolerant(out)
    trainer.run(resume=True)
    assert trainer.faults.counts() == {"train": 3}
    assert_same_run(out, whole)


def test_the_comparison_can_fail(tmp_path: Path, unbroken: Callable[[str], Path]) -> None:
    one, other = (torch.load(unbroken(name) / STATE, weights_only=True) for name in ("dense", "accumulated"))
    assert same(one["model"], one["model"]) and not same(one["model"], other["model"])
    nudged = {**one["model"], "madtp_guidance.semantic_tokens": one["model"]["madtp_guidance.semantic_tokens"] + 1e-6}
    assert not same(one["model"], nudged)


def test_a_finished_run_resumed_is_the_same_run(tmp_path: Path, unbroken: Callable[[str], Path]) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken("dense"), out)
    start(out, CONFIG).run(resume=True)
    assert_same_run(out, unbroken("dense"))


def test_of_the_log_only_lines_up_to_the_checkpoint_stay(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    kept = (tmp_path / LOG).read_text()
    with open(tmp_path / LOG, "a") as file:
        file.write('{"step": 3, "epoch": 0}\n{"done": true}\n{"step": 4, "epo')
    load_state(start(tmp_path, CONFIG))
    assert (tmp_path / LOG).read_text() == kept and json.loads(kept)["step"] == 1


KILLED = """
import os, signal, sys
from pathlib import Path
import test_train
config, madtp = test_train.BUDGETS["madtp"]
kill = test_train.after(8, lambda: os.kill(os.getpid(), signal.SIGKILL))
test_train.start(Path(sys.argv[1]), config, report=kill, **madtp).run()
"""


@pytest.mark.slow
def test_killed_for_good_and_resumed(tmp_path: Path, unbroken: Callable[[str], Path]) -> None:
    out, here = tmp_path / "run", Path(__file__).parent
    path = os.pathsep.join([str(here.parent / "src"), str(here)])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(out)], env={**os.environ, "PYTHONPATH": path}, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert (out / STATE).is_file() and not any(line.get("done") for line in log_of(out))
    config, madtp = BUDGETS["madtp"]
    start(out, config, **madtp).run(resume=True)
    assert_same_run(out, unbroken("madtp"))
    assert [p.name for p in out.iterdir() if p.name.startswith(".")] == []


def test_a_compressed_model_meets_its_budget(unbroken: Callable[[str], Path]) -> None:
    done = log_of(unbroken("madtp"))[-1]
    assert done["done"] and done["gflops"]["reduction"] == pytest.approx(0.5, abs=0.05)
    model = load(unbroken("madtp"))
    assert model.pruning.reduction == pytest.approx(0.5, abs=0.05)
    first = log_of(unbroken("madtp"))[0]
    assert {"step", "epoch", "loss", "loss_task", "loss_align", "reduction", "temperature"} == set(first)


def test_several_budgets_are_taken_in_turn(unbroken: Callable[[str], Path]) -> None:
    """A validation line for each, the dense one among them; dense steps have no controller."""
    validations = [line for line in log_of(unbroken("random, dense")) if "val" in line]
    assert [line["temperature"] is None for line in validations] == [True, False] * 2
    assert [line["reduction"] for line in validations[::2]] == [0.0, 0.0]
    assert [line["reduction"] for line in validations[1::2]] == pytest.approx([0.4, 0.4], abs=0.05)
    state = torch.load(unbroken("random, dense") / STATE, weights_only=True)
    assert state["controllers"][0] is None and state["controllers"][1]["step"] == 5


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Stop):
        start(out, CONFIG, report=after(3, power_cut)).run()
    return out


def test_other_settings_are_refused(stopped: Path) -> None:
    before = (stopped / STATE).read_bytes()
    other = replace(CONFIG, lr=1e-2, seed=8)
    with pytest.raises(InputError, match=r"lr 0\.003 -> 0\.01, seed 7 -> 8; resume with the same settings"):
        start(stopped, other).run(resume=True)
    assert (stopped / STATE).read_bytes() == before


def test_another_start_is_refused(stopped: Path) -> None:
    """Other weights, data or method would be another run under the same name."""
    trainer = start(stopped, CONFIG, method="random", alpha=7.0)
    trainer.source["size"] = "tiny"
    with pytest.raises(InputError, match=r"alpha 0\.1 -> 7\.0, method 'madtp' -> 'random', size None -> 'tiny'; res"):
        trainer.run(resume=True)
    with pytest.raises(InputError, match="semantic_tokens 5 -> 7"):
        start(stopped, CONFIG, semantic_tokens=7).run(resume=True)


@pytest.fixture
def other_precision() -> Iterator[None]:
    """Accelerate takes one precision a process; the tests before and after have another."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("method", ["madtp", "random"])
def test_compression_in_bfloat16(method: str, tmp_path: Path, other_precision: None) -> None:
    """Autocast must not reach the scores, nor the statistics they are made of."""
    config = replace(CONFIG, precision="bf16", reductions=(0.5,), batch_size=13)
    start(tmp_path, config, method=method).run()
    assert all(math.isfinite(line["loss"]) for line in log_of(tmp_path) if "loss" in line)
    assert log_of(tmp_path)[-1]["gflops"]["reduction"] == pytest.approx(0.5, abs=0.05)


def test_autocast_does_not_reach_the_thresholds() -> None:
    model, task = nano_model(temperature=2.5), VqaTask(processor())
    batch = task.collate([task.dataset(scenes("val", 2, 1))[0]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        trace = model.encode(**task.inputs(batch)).trace
    assert [block.threshold.dtype for block in trace.blocks if block.threshold is not None] == [torch.float32] * 5


def test_a_model_for_several_budgets_carries_the_curve_of_its_own_weights(tmp_path: Path) -> None:
    config = replace(CONFIG, reductions=(0.0, 0.4, 0.5), batch_size=13)
    trainer = start(tmp_path, config, curve=BudgetCurve(((1.0, 0.1), (2.0, 0.9)), "others", 7))
    trainer.run()
    model = load(tmp_path)
    curve = model.pruning.curve
    assert curve is not None and curve.data != "others" and curve.n == trainer.val.n_texts
    assert (model.temperature, model.pruning.reduction) in curve.points
    some = list(batches(trainer.task, trainer.val, 64, model.device))
    for temperature, reduction in curve.points:
        model.temperature = temperature
        assert measure_reduction(model, trainer.task, some) == pytest.approx(reduction, abs=1e-9)


def test_an_impossible_reduction_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"0\.99 is impossible: two tokens .* would save 0\.\d+; ask for less than 0\."
    ):
        start(tmp_path, replace(CONFIG, reductions=(0.5, 0.99))).run()
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_may_come_at_another_pace(stopped: Path, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes((stopped / STATE).read_bytes())
    with pytest.raises(Stop):
        start(tmp_path, replace(CONFIG, save_every=50), report=after(1, power_cut)).run(resume=True)


def test_a_damaged_checkpoint_is_refused(stopped: Path, tmp_path: Path) -> None:
    whole = (stopped / STATE).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x00" * 99):
        (tmp_path / STATE).write_bytes(content)
        with pytest.raises(
            InputError, match=r"checkpoint\.pt: damaged, cut short or not .*; remove it, or start"
        ) as error:
            start(tmp_path, CONFIG).run(resume=True)
        assert "\n" not in str(error.value)
    torch.save({"model": {}}, tmp_path / STATE)
    with pytest.raises(InputError, match="not a checkpoint of this program"):
        start(tmp_path, CONFIG).run(resume=True)


def test_nothing_to_resume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing to resume: no checkpoint; start without --resume"):
        start(tmp_path, CONFIG).run(resume=True)


def test_the_schedule_is_what_the_optimizer_gets(tmp_path: Path) -> None:
    seen: list[float] = []
    trainer = start(tmp_path, replace(CONFIG, warmup=0.3))
    trainer.report = lambda _: seen.append(trainer.optimizer.param_groups[1]["lr"])
    trainer._epoch(0)
    assert seen == pytest.approx([learning_rate(i, 10, trainer.config) for i in range(5)])
    assert seen[0] < seen[2] == pytest.approx(3e-3)


def scripted(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> None:
    """Validations that give these accuracies, one after another."""
    left = list(accuracies)

    def evaluate(*_: Any, **__: Any) -> Any:
        value = left.pop(0) if left else 0.0
        return SimpleNamespace(metrics={"accuracy": value}, reduction=0.0, to_dict=dict)

    monkeypatch.setattr(module, "evaluate", evaluate)


def weights_after_validations(trainer: Trainer) -> list[dict[str, torch.Tensor]]:
    """Copies of the weights, one a validation."""
    copies: list[dict[str, torch.Tensor]] = []

    def report(progress: Progress) -> None:
        if math.isnan(progress.loss):
            copies.append({name: value.clone() for name, value in trainer.bare.state_dict().items()})

    trainer.report = report
    return copies


@pytest.mark.parametrize(("accuracies", "best"), [((0.2, 0.7, 0.4), 1), ((0.5, 0.2, 0.5), 2), ((0.9, 0.3, 0.2), 0)])
def test_the_best_epoch_by_validation_is_kept(
    accuracies: tuple[float, ...], best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, *accuracies)
    trainer = start(tmp_path, replace(CONFIG, epochs=3, batch_size=13))
    copies = weights_after_validations(trainer)
    trainer.run()
    assert trainer.best == {"value": max(accuracies), "epoch": best, "temperature": None}
    assert log_of(tmp_path)[-1]["best_epoch"] == best
    saved = load(tmp_path).state_dict()
    assert [same(copy, saved) for copy in copies] == [i == best for i in range(3)]


def test_a_model_cut_less_than_asked_for_cannot_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the target still rises, its accuracy is that of another budget."""
    scripted(monkeypatch, 0.9, 0.1)
    for place in (module, calibration):
        monkeypatch.setattr(place, "calibrate", lambda *_, **__: Found(2.0, 0.4, ()))
    trainer = start(tmp_path, replace(CONFIG, batch_size=13, reductions=(0.5,), ramp=1.0))
    trainer.run()
    assert (trainer.best["value"], trainer.best["epoch"]) == (0.1, 1)
    assert [c.ramp for c in trainer.controllers if c] == [2]


def out_of_reach(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Calibrations that succeed but for the given ones; the first is that of the start."""
    done = [-1]

    def calibrate(*_: Any, **__: Any) -> Found:
        done[0] += 1
        if done[0] in calls:
            error = OutOfReach("0.5 is above the most this model reaches, 0.450", "--reduction", "ask for at most 0.45")
            error.nearest = Found(3.0, 0.45, ())
            raise error
        return Found(2.0, 0.5, ())

    for place in (module, calibration):  # of validations, and of the start
        monkeypatch.setattr(place, "calibrate", calibrate)


def test_a_budget_out_of_reach_at_first_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 0.9, 0.1)
    out_of_reach(monkeypatch, 1)
    trainer = start(tmp_path, replace(CONFIG, batch_size=13, reductions=(0.5,), ramp=0.0))
    trainer.run()
    assert (trainer.best["value"], trainer.best["epoch"]) == (0.1, 1)


def test_a_budget_never_reached_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 0.9, 0.1)
    out_of_reach(monkeypatch, 1, 2)
    with pytest.raises(InputError, match=r"ask for at most 0\.45"):
        start(tmp_path, replace(CONFIG, batch_size=13, reductions=(0.5,), ramp=0.0)).run()


@pytest.mark.parametrize(("calls", "begin", "strength"), [((), 0.3, 2.0), ((0,), 0.5, 2.0), ((0, 1), 0.5, 3.0)])
def test_a_model_that_cannot_prune_little_starts_at_its_target_or_near_it(
    calls: tuple[int, ...], begin: float, strength: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_reach(monkeypatch, *calls)
    trainer = start(tmp_path, replace(CONFIG, reductions=(0.5,)))
    trainer.prepare()
    (controller,) = trainer.controllers
    assert controller is not None
    assert (controller.strength, controller.start, controller.target, controller.ramp) == (strength, begin, 0.5, 3)


def test_validation_comes_every_so_many_epochs_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 0.1, 0.2, 0.3)
    start(tmp_path, replace(CONFIG, epochs=3, batch_size=13, eval_every=2)).run()
    assert [line["epoch"] for line in log_of(tmp_path) if "val" in line] == [1, 2]


def test_validation_and_test_images_are_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder without val a tenth of train is held out. Every other image is seen once an epoch, in a new order."""
    scripted(monkeypatch, 0.1, 0.2)
    folder = data_folder(tmp_path / "data")
    for file in sorted((folder / "val").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (folder / "val").rmdir()
    training, val = load_data("vqa", folder, "train"), load_data("vqa", folder, "val")
    assert len(training) == 10 and len(val) == 1
    task, seen = VqaTask(processor()), list[list[str]]()
    loss = task.loss

    def recording(model: Any, batch: Any, helper: Any, teacher: Any) -> Any:
        seen.append([sample.image_id for sample in batch["samples"]])
        assert len(batch["image_index"]) == len(batch["texts"]) == 3 * len(batch["samples"])
        return loss(model, batch, helper, teacher)

    monkeypatch.setattr(task, "loss", recording)
    (tmp_path / "run").mkdir()
    config = replace(CONFIG, batch_size=4, texts=3)
    Trainer(nano_model(), task, training, val, tmp_path / "run", config, None, "cpu").run()
    assert [len(ids) for ids in seen] == [4, 4, 2] * 2
    epochs = [list(chain(*seen[:3])), list(chain(*seen[3:]))]
    everything = sorted(sample.image_id for sample in training)
    assert [sorted(epoch) for epoch in epochs] == [everything] * 2
    assert epochs[0] != epochs[1] and val[0].image_id not in everything


def test_first_epochs_for_the_image_tower_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not validated, and the text encoder does not move."""
    scripted(monkeypatch, 0.1, 0.2)
    trainer = start(tmp_path, replace(CONFIG, epochs=3, batch_size=13, tag_epochs=1))
    before = {name: value.clone() for name, value in trainer.bare.state_dict().items()}
    moved: list[set[str]] = []

    def report(progress: Progress) -> None:
        now = trainer.bare.state_dict()
        moved.append({name.split(".")[0] for name in now if not torch.equal(now[name], before[name])})

    trainer.report = report
    trainer.run()
    assert moved[0] == {"vision_model", "text_decoder"}
    assert "text_encoder" in moved[1]
    assert [line["epoch"] for line in log_of(tmp_path) if "val" in line] == [1, 2]
    assert "loss_tags" in log_of(tmp_path)[0]


def test_fewer_validation_images_if_asked(tmp_path: Path) -> None:
    assert len(start(tmp_path, CONFIG).val) == 2 and len(start(tmp_path, replace(CONFIG, val_images=1)).val) == 1


def test_accumulated_batches_make_one_step(tmp_path: Path) -> None:
    """Nothing moves before the second of two batches, then all at once."""
    moved: list[bool] = []
    trainer = start(tmp_path, replace(CONFIG, accumulate=2, texts=0))
    before = {name: value.clone() for name, value in trainer.bare.state_dict().items()}
    trainer.report = lambda _: moved.append(not same(before, trainer.bare.state_dict()))
    trainer._epoch(0)
    assert moved == [False, True, True, True, True]
