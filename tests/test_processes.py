"""Two processes on gloo are one process with the global batch: losses, weights, budgets, queues, metrics."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

import processes
from madtp.task.step import order_of_epoch, steps_of_epoch
from small import KINDS, samples
from test_train import assert_same_run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what each of two processes left."""
    return start(tmp_path_factory.mktemp("two"), processes.DONE)


@pytest.fixture(scope="module")
def two_slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `two`, of the slow runs."""
    return start(tmp_path_factory.mktemp("two"), processes.SLOW)


@pytest.fixture(scope="module")
def two_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `two`, the model shared out to both."""
    return start(tmp_path_factory.mktemp("parts"), processes.PARTS)


@pytest.fixture(scope="module")
def two_parts_slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `two_parts`, of the slow runs."""
    return start(tmp_path_factory.mktemp("parts"), processes.SLOW_PARTS)


def start(folder: Path, runs: list[tuple[str, str]]) -> Path:
    """Train in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(processes.process, (port, str(folder), runs), nprocs=2)
    return folder


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))


def of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{name}.{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize(("kind", "run"), processes.DONE)
def test_training_is_that_of_one_process(kind: str, run: str, two: Path, tmp_path: Path) -> None:
    compare(kind, run, two, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "run"), processes.SLOW)
def test_training_with_more_to_it_is_too(kind: str, run: str, two_slow: Path, tmp_path: Path) -> None:
    """With a dense teacher; with several batches a step, after epochs of tagging."""
    compare(kind, run, two_slow, tmp_path)


@pytest.mark.parametrize(("kind", "run"), processes.PARTS)
def test_training_in_parts_is_too(kind: str, run: str, two_parts: Path, tmp_path: Path) -> None:
    compare(kind, run, two_parts, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "run"), processes.SLOW_PARTS)
def test_training_in_parts_is_too_for_every_task(kind: str, run: str, two_parts_slow: Path, tmp_path: Path) -> None:
    """Also with gradient checkpointing and several batches a step."""
    compare(kind, run, two_parts_slow, tmp_path)


@pytest.mark.parametrize("kind", ["vqa", *processes.FOLLOWED])
def test_a_run_in_parts_goes_on_as_if_never_stopped(kind: str, two_parts: Path) -> None:
    """Each process holds half, of momentum towers too; the checkpoint is whole, and like that of any run."""
    both = of(two_parts, f"stopped-{kind}")
    for done in both:
        assert [done[name]["step"] for name in ("whole", "stopped", "resumed")] == [6, 3, 6]
        for part in ("model", "helper"):
            assert same(done["whole"][part], done["resumed"][part])
            assert same(done["whole"][part], done["stopped"][part]) == (not done["whole"][part])
            assert same(both[0]["resumed"][part], both[1]["resumed"][part])
    assert_same_run(two_parts / f"parts-stopped-{kind}", two_parts / f"parts-whole-{kind}")
    state = torch.load(two_parts / f"parts-stopped-{kind}" / "checkpoint.pt", weights_only=True)
    total = sum(value.numel() for value in state["model"].values())
    towers = {name: value for name, value in (state["helper"] or {}).items() if name.startswith("towers.")}
    assert bool(towers) == (kind in processes.FOLLOWED)
    for done in both:
        assert 0.4 * total < done["resumed"]["parts"] < 0.6 * total
        assert 0.8 * total < done["resumed"]["held"] < 1.2 * total, "two moments of half of the weights"
        count = sum(value.numel() for value in towers.values())
        assert 0.4 * count <= done["resumed"]["towers"] <= 0.6 * count
        assert towers.keys() <= {*done["resumed"]["helper"]}
    sizes = [entry["exp_avg"].numel() for entry in state["optimizer"]["state"].values()]
    assert sum(sizes) > 0.9 * total


@pytest.mark.parametrize("kind", ["vqa", *processes.FOLLOWED])
def test_parts_of_which_one_process_prunes_and_the_other_does_not(kind: str, two_parts: Path) -> None:
    """Backward asks for the blocks alike in both, those of momentum towers too."""
    both = of(two_parts, f"uneven-{kind}")
    assert [done["pruned"] for done in both] == [True, False]
    mean = (both[0]["whole"] + both[1]["whole"]) / 2
    assert mean.abs().sum() > 0
    for done in both:
        torch.testing.assert_close(done["parts"], mean)


def compare(kind: str, run: str, two: Path, tmp_path: Path) -> None:
    """One process against each of two."""
    alone = processes.train(kind, run, tmp_path / "run", 1)
    both = of(two, f"{kind}-{run}")
    assert len(alone["losses"]) == 6 and len(set(alone["losses"])) == 6
    for done in both:
        assert done["losses"] == pytest.approx(alone["losses"], rel=1e-5, abs=1e-5)
        for part in ("model", "helper"):  # hard negatives and queue among it: they shape every later loss
            assert done[part].keys() == alone[part].keys()
            for name, value in alone[part].items():
                # Keys' biases change no attention: their gradient is rounding, of which Adam makes whole steps.
                if value.numel() and not name.endswith(("key.bias", "qkv.bias", "k_proj.bias")):
                    assert float((done[part][name].double() - value.double()).abs().mean()) < 3e-4, name
        assert done["metrics"] == pytest.approx(alone["metrics"], abs=1e-5)
        assert done["reduction"] == pytest.approx(alone["reduction"], abs=1e-4)
    for name in ("strengths", "smooth", "temperature", "metrics", "losses", "reduction"):
        assert both[0][name] == both[1][name], f"{name} is the same on all ranks, to the last bit"
    for name, value in both[0]["model"].items():
        assert torch.equal(value, both[1]["model"][name])
    if (processes.RUNS.get(run) or processes.SHARDED[run]).get("reductions"):
        assert both[0]["reduction"] == pytest.approx(processes.TARGET, abs=0.05)
        ends = [done["strengths"][-1] for done in (*both, alone)]
        assert ends == pytest.approx([ends[0]] * 3, rel=1e-4)
    else:
        assert both[0]["strengths"] == []


def test_trouble_of_one_process_is_met_by_all_alike(two: Path) -> None:
    """A loss that is not finite, a part of a batch that cannot be read: the step is left out everywhere, said once."""
    both = of(two, "troubled")
    for name in ("bad", "torn", "whole", "stopped", "again", "resumed"):
        a, b = (dict(done[name]) for done in both)
        assert same(a.pop("model"), b.pop("model")), name
        assert a == b, name
    done = both[0]
    assert (done["bad"]["bad"], done["torn"]["bad"], done["bad"]["step"]) == (1, 0, 6)
    parts = [order_of_epoch(processes.IMAGES, 2, (rank, 2), processes.CONFIG.seed, 0)[1] for rank in (0, 1)]
    images = [sample.image_id for sample in samples("vqa", "train", processes.IMAGES).samples]
    (line,) = lines(two / "bad")
    assert (line["id"], line["samples"]) == ("2", [images[i] for part in parts for i in part])
    assert done["torn"]["skipped"] == {"train": 2}
    assert sorted(line["id"] for line in lines(two / "torn")) == sorted(images[i] for i in parts[1])


def test_all_stop_where_one_process_is_asked_to_and_go_on_as_if_never_stopped(two: Path) -> None:
    """Bit for bit, amid steps of several batches: after the one that is under way, and at an epoch's end."""
    for done in of(two, "troubled"):
        for name, step in (("stopped", 2), ("again", 3)):
            said = f"stopped by SIGTERM: the checkpoint of step {step} is written; go on with --resume"
            assert (done[name]["step"], done[f"{name}, said"]) == (step, said)
        assert done["resumed"]["step"] == 6
        assert same(done["resumed"]["model"], done["whole"]["model"])
    assert_same_run(two / "stopped", two / "whole")
    state = torch.load(two / "stopped" / "checkpoint.pt", weights_only=True)
    first, second = state["random"]
    assert not torch.equal(first["torch"], second["torch"])


def test_a_process_that_is_left_alone_says_so(two: Path) -> None:
    said = (two / "left-alone.txt").read_text()
    assert said.startswith("madtp: process 0 of 2: another process of the run is gone (connection ")
    assert said.count("\n") == 1


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_drops_and_doubles_nothing(kind: str, two: Path) -> None:
    """5 pictures in batches of 2: two batches for one process, one for the other."""
    alone = processes.answer(kind)
    assert len(alone["answers"]) >= processes.VAL
    for done in of(two, kind):
        assert done == alone


@pytest.mark.parametrize(
    ("images", "size", "count"), [(11, 2, 2), (13, 2, 3), (7, 2, 3), (12, 2, 2), (5, 7, 3), (29, 3, 1)]
)
def test_every_picture_once_an_epoch_and_every_process_at_every_step(images: int, size: int, count: int) -> None:
    parts = [order_of_epoch(images, size, (rank, count), 3, 1) for rank in range(count)]
    steps = steps_of_epoch(images, size, count)
    assert {len(part) for part in parts} == {steps}
    assert all(rows for part in parts for rows in part)
    whole = [[row for part in parts for row in part[step]] for step in range(steps)]
    assert sorted(row for rows in whole for row in rows) == list(range(images))
    if images % (size * count) in (0, *range(count, size * count)):
        assert whole == order_of_epoch(images, size * count, (0, 1), 3, 1)
