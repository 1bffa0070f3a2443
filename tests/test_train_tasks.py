"""The training loop with every task: budgets met, runs resumed bit for bit, nothing saved but the model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from madtp.checkpoints import STATE
from madtp.errors import InputError
from madtp.evaluate import evaluate
from madtp.model.load import load
from madtp.recipe import TrainConfig
from madtp.task.distill import Teacher
from madtp.train import Progress, Trainer
from small import nano, nano_task, samples
from test_train import Stop, after, assert_same_run, log_of, power_cut, same

# 3 steps an epoch, the last of one picture; a checkpoint in mid-epoch at 2 and 4, and one after each validation.
CONFIG = TrainConfig(epochs=2, batch_size=3, texts=1, lr=3e-3, shift=1, seed=7, save_every=2)
OPTIONS: dict[str, dict[str, Any]] = {
    "reasoning": {},
    "caption": {"beams": 1, "longest": 11},
    "retrieval": {"queue": 5, "momentum": 0.9},  # the queue goes round in the second step
    "clip": {"queue": 5, "momentum": 0.9},
}
KINDS = pytest.mark.parametrize("kind", OPTIONS)
CONTRAST = pytest.mark.parametrize("kind", ["retrieval", "clip"])
TARGET = 0.4


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Captions are scored without the Java programs, which take longer than all the rest."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))


def start(
    kind: str, out: Path, config: TrainConfig = CONFIG, report: Any = None, distill: float = 0.0, **options: Any
) -> Trainer:
    """As the command line does it: seed, model, trainer."""
    out.mkdir(parents=True, exist_ok=True)
    task = nano_task(kind, **{**OPTIONS[kind], **options})
    train, val = (samples(task.name, split, count) for split, count in (("train", 7), ("val", 3)))
    model = nano(kind, config.seed)
    teacher = Teacher(model, distill) if distill else None
    return Trainer(model, task, train, val, out, config, report, "cpu", teacher=teacher)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a compression to the end, made when first asked for."""
    made: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "run"
            start(kind, made[kind], replace(CONFIG, reductions=(TARGET,))).run()
        return made[kind]

    return run


@KINDS
def test_compression_meets_its_budget(kind: str, whole: Callable[[str], Path]) -> None:
    lines = log_of(whole(kind))
    assert [line["epoch"] for line in lines if "val" in line] == [0, 1]
    assert lines[-1]["done"] and lines[-1]["gflops"]["reduction"] == pytest.approx(TARGET, abs=0.05)
    assert load(whole(kind)).pruning.reduction == pytest.approx(TARGET, abs=0.05)
    assert nano_task(kind).higher_is_better in lines[-1]["metrics"]
    assert any(name.startswith("loss_") for name in lines[0]) and 0 < lines[0]["reduction"] < 1


@KINDS
def test_everything_of_the_model_is_trained_and_nothing_else_is_saved(kind: str, whole: Callable[[str], Path]) -> None:
    """Momentum towers, queue and the temperature of the contrast are in the checkpoint alone."""
    fresh = nano(kind, CONFIG.seed)
    saved = load_file(whole(kind) / "model.safetensors")
    assert saved.keys() <= fresh.state_dict().keys()
    assert dict(fresh.named_parameters()).keys() - saved.keys() == set()
    still = {name for name, p in fresh.named_parameters() if torch.equal(saved[name], p)}
    guide = "madtp_guidance" if kind == "caption" else "nothing"  # no text tower to align with
    assert {name for name in still if not name.startswith(guide)} <= {"vision_model.embeddings.position_ids"}, still
    state = torch.load(whole(kind) / STATE, weights_only=True)
    if kind in ("retrieval", "clip"):
        names = set(state["helper"])
        assert {"temp", "step", "queue.image", "queue.ids"} <= names and any(n.startswith("towers.") for n in names)
        assert int(state["helper"]["step"]) == 6 and int(state["helper"]["queue.pushed"]) == 14
        assert not any(name.startswith("model.") for name in names), "the model is there once"
    else:
        assert state["helper"] is None


@pytest.mark.parametrize(
    ("kind", "stops"), [("retrieval", (3,)), ("clip", (2, 3)), ("reasoning", (3,)), ("caption", (6,))]
)
def test_resuming_is_bit_for_bit(
    kind: str, stops: tuple[int, ...], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    """With momentum towers, queue and learned temperature; stopped past a checkpoint, before one, and in both."""
    out, config = tmp_path / "run", replace(CONFIG, reductions=(TARGET,), save_every=1 if len(stops) > 1 else 2)
    for i, stop in enumerate(stops):
        torch.manual_seed(1000 + i)  # whatever else the new process drew before
        with pytest.raises(Stop):
            start(kind, out, config, after(stop, power_cut)).run(resume=i > 0)
    torch.manual_seed(99)
    start(kind, out, config).run(resume=True)
    state = torch.load(out / STATE, weights_only=True)
    state["config"]["save_every"] = 2  # which alone may differ
    torch.save(state, out / STATE)
    assert_same_run(out, whole(kind))


@pytest.mark.parametrize("kind", ["caption", "retrieval"])
def test_a_teacher_is_followed_resumed_and_not_saved(kind: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    config = replace(CONFIG, reductions=(TARGET,))
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    start(kind, unbroken, config, distill=2.0).run()
    with pytest.raises(Stop):
        start(kind, broken, config, after(3, power_cut), distill=2.0).run()
    start(kind, broken, config, distill=2.0).run(resume=True)
    assert_same_run(broken, unbroken)
    assert log_of(unbroken)[0]["loss_distill"] > 0 and "loss_distill" not in log_of(whole(kind))[0]
    without, taught = (load_file(folder / "model.safetensors") for folder in (whole(kind), unbroken))
    assert without.keys() == taught.keys() and not same(without, taught)


@CONTRAST
def test_without_its_momentum_towers_a_resumed_run_would_be_another(
    kind: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    """What shows that the comparison sees them."""
    out, config = tmp_path / "run", replace(CONFIG, reductions=(TARGET,))
    with pytest.raises(Stop):
        start(kind, out, config, after(3, power_cut)).run()
    state = torch.load(out / STATE, weights_only=True)
    state["helper"]["queue.image"].mul_(-1)
    torch.save(state, out / STATE)
    start(kind, out, config).run(resume=True)
    ends = [torch.load(folder / STATE, weights_only=True)["model"] for folder in (out, whole(kind))]
    assert not same(*ends)


@CONTRAST
def test_another_queue_or_momentum_is_another_run(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        start(kind, tmp_path, report=after(3, power_cut)).run()
    for name, was, value in (("queue", 5, 7), ("momentum", 0.9, 0.8), ("momentum", 0.9, 0)):
        with pytest.raises(InputError, match=rf"settings differ from the checkpoint's: {name} {was} -> {value}; "):
            start(kind, tmp_path, **{name: value}).run(resume=True)


@pytest.mark.parametrize("momentum", [0.9, 0])
def test_clip_scales_its_logits_by_the_temperature_that_is_learned(momentum: float, tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []

    def report(progress: Progress) -> None:
        if progress.loss == progress.loss:
            seen.append((float(trainer.bare.logit_scale.detach().exp()), float(trainer.helper.temp.detach())))  # type: ignore[union-attr]

    trainer = start("clip", tmp_path, momentum=momentum, report=report)
    before = float(trainer.bare.logit_scale.detach().exp())
    trainer.run()
    used = [1 / before, *(temperature for _, temperature in seen[:-1])]  # of a step: what the one before it left
    assert [scale for scale, _ in seen] == pytest.approx([1 / temperature for temperature in used], rel=1e-5)
    assert len({round(temperature, 6) for _, temperature in seen}) == 6, "it is learned"


@KINDS
def test_what_is_not_known_is_neither_trained_nor_validated_on(kind: str, tmp_path: Path) -> None:
    task = nano_task(kind)
    data = samples(task.name, "train", 3)
    first = data.samples[0]
    unknown: Any = (
        replace(first, statements=tuple(replace(s, label=None) for s in first.statements))
        if kind == "reasoning"
        else replace(first, captions=())
    )
    hidden = replace(data, samples=(unknown, *data.samples[1:]))
    for train, val in ((hidden, data), (data, hidden)):
        with pytest.raises(InputError, match=rf"scenes:3:8000 train: \d {task.text_name} without truth; train and"):
            Trainer(nano(kind), task, train, val, tmp_path, CONFIG, None, "cpu")


@KINDS
def test_the_last_figures_are_those_of_evaluate(kind: str, whole: Callable[[str], Path]) -> None:
    """Of the quick one, which chose the epoch: a match of every candidate is left to `madtp evaluate`."""
    task = nano_task(kind, **OPTIONS[kind])
    result = evaluate(load(whole(kind)), task.quick(), samples(task.name, "val", 3))
    last = log_of(whole(kind))[-1]
    assert (last["metrics"], last["gflops"]["reduction"]) == (result.metrics, result.reduction)
