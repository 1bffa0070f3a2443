"""Training on streamed shards: a run that was killed in mid-shard goes on bit for bit; processes share the shards."""

import os
import random
import signal
import socket
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import set_seed

from madtp.cli.lost import leave
from madtp.data.faults import Faults
from madtp.data.load import load_data, load_stream
from madtp.errors import InputError
from madtp.recipe import Progress, TrainConfig
from madtp.stop import Stopped
from madtp.train import Trainer
from small import nano, nano_task
from tars import write_scenes
from test_train import Stop, after, assert_same_run, power_cut

# 7 steps an epoch, the last of one picture; a checkpoint in mid-shard at 3, 6, 9 and 12.
SIZES = (7, 2, 5, 5)
CONFIG = TrainConfig(epochs=2, batch_size=3, texts=1, lr=3e-3, shift=1, seed=7, save_every=3)
TASKS = {"vqa": "vqa", "caption": "caption", "retrieval": "retrieval", "clip": "retrieval"}
OPTIONS: dict[str, dict[str, Any]] = {
    "caption": {"beams": 1, "longest": 11},
    "retrieval": {"queue": 5, "momentum": 0.9, "k_test": 3},
    "clip": {"queue": 5, "momentum": 0.9},
}


# Of machines with one core, where a test has two.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of shards for a task, made when first asked for."""
    made: dict[str, Path] = {}

    def folder(task: str) -> Path:
        if task not in made:
            made[task] = write_scenes(tmp_path_factory.mktemp(task) / "big", SIZES, task)
            write_scenes(made[task], (5,), task, "val")
        return made[task]

    return folder


def start(
    out: Path, data: Path, kind: str = "vqa", report: Any = None, buffer: int = 5, faults: Any = None, **settings: Any
) -> Trainer:
    """As the command line does it."""
    out.mkdir(parents=True, exist_ok=True)
    config = replace(CONFIG, **settings)
    set_seed(config.seed)
    task = TASKS[kind]
    train = load_stream(task, data, buffer=buffer, faults=faults)
    work, val = nano_task(kind, **OPTIONS.get(kind, {})), load_data(task, data, "val", faults=faults)
    return Trainer(nano(kind, config.seed), work, train, val, out, config, report, "cpu", faults=faults)


@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        ("vqa", 2),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("caption", 0), ("clip", 1), ("retrieval", 2))),
    ],
)
def test_a_killed_run_goes_on_in_mid_shard(
    shards: Callable[[str], Path], tmp_path: Path, kind: str, workers: int
) -> None:
    """After the checkpoint of step 3 or later: bit for bit, of the second epoch, too."""
    data, settings = shards(TASKS[kind]), {"workers": workers, "reductions": () if kind == "vqa" else (0.4,)}
    start(tmp_path / "whole", data, kind, **settings).run()
    for calls in (5, 12):
        with suppress(Stop):
            start(tmp_path / "run", data, kind, after(calls, power_cut), **settings).run(resume=calls > 5)
        torch.manual_seed(calls)  # whatever a new process has drawn
        random.seed(calls)
    start(tmp_path / "run", data, kind, **settings).run(resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_other_orders_are_not_gone_on_with(shards: Callable[[str], Path], tmp_path: Path) -> None:
    data = shards("vqa")
    with suppress(Stop):
        start(tmp_path, data, report=after(5, power_cut), workers=1).run()
    for other in ({"buffer": 7}, {"workers": 2}):
        with pytest.raises(InputError, match=r"settings differ from the checkpoint's: stream \{"):
            start(tmp_path, data, **other).run(resume=True)
    both = (load_data("vqa", data, split) for split in ("train", "val"))
    plain = Trainer(nano("vqa"), nano_task("vqa"), *both, tmp_path, CONFIG)
    with pytest.raises(InputError, match="-> None"):
        plain.run(resume=True)
    start(tmp_path, data, workers=0).run(resume=True)  # one loader is one, in a process of its own or not


def test_an_epoch_sees_every_sample_once(shards: Callable[[str], Path], tmp_path: Path) -> None:
    trainer = start(tmp_path, shards("vqa"), workers=2)
    assert trainer.per_epoch == 7
    seen = []
    for epoch in (0, 0, 1):
        trainer.step = 7 * epoch
        samples = [sample for batch in trainer._batches(epoch) for sample in batch["samples"]]
        seen.append(list(dict.fromkeys(sample.image_id for sample in samples)))
    assert len(seen[0]) == sum(SIZES)
    assert seen[0] == seen[1] != seen[2] and sorted(seen[1]) == sorted(seen[2])


def test_pictures_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "big", SIZES, "vqa")
    write_scenes(data, (5,), "vqa", "val")
    path = data / "train-002.tar"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"IHDR", b"IDHR", 2))
    with pytest.raises(InputError, match=r"train-002\.tar, 00\d\.png: is "):
        list(start(tmp_path / "stop", data)._batches(0))
    faults = Faults("skip", 0.2)
    trainer = start(tmp_path / "skip", data, faults=faults, workers=2)
    faults.attach(trainer.out)
    seen = {sample.image_id for batch in trainer._batches(0) for sample in batch.get("samples", ())}
    assert len(seen) == sum(SIZES) - 2
    assert faults.counts() == {"train": 2}
    assert {line.split('"id": "')[1][:13] for line in (trainer.out / "errors.jsonl").read_text().splitlines()} == {
        "train-002.tar"
    }


def process(rank: int, port: int, home: Path, data: dict[str, Path]) -> None:
    """One of two: a run of uneven shards, the same stopped and gone on with, one of a single shard; what it saw."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of [1, 1, c]: the same memory
    warnings.filterwarnings("ignore", "This DataLoader will create")
    torch.multiprocessing.set_start_method("fork", force=True)  # of its loaders, as under torchrun
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    os.environ["OMP_NUM_THREADS"] = "1"
    told: dict[str, Any] = {}
    settings: dict[str, Any] = {"batch_size": 2, "accumulate": 2}

    def report(progress: Progress) -> None:
        if rank and progress.step == 3:
            signal.raise_signal(signal.SIGTERM)

    for name, source, told_of, workers in (
        ("whole", "uneven", None, 2),
        ("stopped", "uneven", report, 2),
        ("stopped", "uneven", None, 2),
        ("single", "single", None, 0),
    ):
        resume = name in told
        torch.manual_seed(11)
        trainer = start(home / name, data[source], report=told_of, workers=workers, **settings)
        steps = [[sample.image_id for sample in batch["samples"]] for batch in trainer._batches(0)]
        with suppress(Stopped), trainer.stop.listening():
            trainer.run(resume)
        model = {key: value.clone() for key, value in trainer.bare.state_dict().items()}
        told[name] = {"steps": steps, "model": model, "step": trainer.step, "per_epoch": trainer.per_epoch}
    torch.save(told, home / f"{rank}.pt")
    leave(0)


def test_two_processes_share_uneven_shards_and_a_single_one(
    shards: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step waits for a process that has nothing left; stopped by a signal to one, both go on in mid-shard."""
    single = write_scenes(tmp_path / "single", (11,), "vqa")
    write_scenes(single, (2,), "vqa", "val")
    data = {"uneven": shards("vqa"), "single": single}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(process, (port, tmp_path, data), nprocs=2)
    both = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    for name, count, per_epoch in (("whole", sum(SIZES), 5), ("stopped", sum(SIZES), 5), ("single", 11, 3)):
        seen = [image_id for told in both for step in told[name]["steps"] for image_id in step]
        assert len(seen) == len(set(seen)) == count
        for told in both:
            assert told[name]["step"] == 2 * per_epoch == 2 * told[name]["per_epoch"] == 2 * len(told[name]["steps"])
            same = {key: torch.equal(value, both[0][name]["model"][key]) for key, value in told[name]["model"].items()}
            assert all(same.values())
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
