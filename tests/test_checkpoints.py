"""Checkpoint files: the last few are kept, a damaged one is passed over, a full disk costs none."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from madtp import checkpoints
from madtp.checkpoints import STATE, forget, is_there, older, read, write
from madtp.errors import InputError
from madtp.resume import load_state, random_states, save_state, set_random_states
from small import small_disk
from test_train import CONFIG, Stop, after, assert_same_run, power_cut, start


def state(step: int) -> dict[str, Any]:
    return {"config": {}, "step": step, "optimizer": {"a": torch.full((101, 7), float(step))}, "gradients": {}}


def steps(folder: Path) -> list[int]:
    """Of the checkpoints that are there, newest first."""
    return [torch.load(path, weights_only=True)["step"] for path in (folder / STATE, *older(folder))]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_few_are_kept(keep: int, tmp_path: Path) -> None:
    for step in range(5):
        write(tmp_path, state(step), keep)
        assert steps(tmp_path) == list(range(step, max(-1, step - keep), -1))
    assert len(list(tmp_path.iterdir())) == keep
    write(tmp_path, state(7), 1)
    assert steps(tmp_path) == [7], "fewer may be asked for later"
    forget(tmp_path)
    assert not is_there(tmp_path) and not list(tmp_path.iterdir())


def test_without_links_the_last_few_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(checkpoints.os, "link", none)
    for step in range(3):
        write(tmp_path, state(step), 2)
    assert steps(tmp_path) == [2, 1]
    (tmp_path / STATE).unlink()  # killed between the two renames
    assert is_there(tmp_path) and read(tmp_path)["step"] == 1


@pytest.mark.parametrize("place", [0, 100, 0.3, 0.5, 0.9, -90, -2])
def test_one_wrong_bit_is_found_and_the_one_before_is_used(
    place: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (3, 5):
        write(tmp_path, state(step), 2)
    size = (tmp_path / STATE).stat().st_size
    flip(tmp_path / STATE, int(place * size) if isinstance(place, float) else place)
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path)["step"] == 3
    first, second = caplog.messages
    assert f"{tmp_path / STATE}: damaged, cut short" in first
    assert second == f"going on from the checkpoint before: {tmp_path / 'checkpoint-1.pt'}, step 3"


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_half_a_file_is_passed_over(share: float, tmp_path: Path) -> None:
    for step in (3, 5):
        write(tmp_path, state(step), 2)
    content = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(content[: int(share * len(content))])
    assert read(tmp_path)["step"] == 3


def test_where_none_is_whole_the_newest_is_told_of(tmp_path: Path) -> None:
    for step in (3, 5):
        write(tmp_path, state(step), 2)
    for path in (tmp_path / STATE, tmp_path / "checkpoint-1.pt"):
        flip(path, 1000)
    with pytest.raises(InputError, match=r"/checkpoint\.pt: damaged"):
        read(tmp_path)


def test_a_file_without_a_sum_is_one_of_an_earlier_version(tmp_path: Path) -> None:
    torch.save(state(3), tmp_path / STATE)
    assert read(tmp_path)["step"] == 3


def test_a_full_disk_costs_no_checkpoint(tmp_path: Path) -> None:
    for step in (3, 5):
        write(tmp_path, state(step), 2)
    big = {**state(7), "model": torch.zeros(100_003)}
    with (
        small_disk(200_000),
        pytest.raises(InputError, match=r"checkpoint\.pt: cannot write the checkpoint: the d"),
    ):
        write(tmp_path, big, 2)
    assert steps(tmp_path) == [5, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_on_a_full_disk_stops_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    config = replace(CONFIG, epochs=1)
    start(whole, config).run()
    with pytest.raises(Stop):
        start(out, config, report=after(3, power_cut)).run()
    with small_disk(100_000), pytest.raises(InputError, match="free the disk"):
        start(out, config).run(resume=True)
    start(out, config).run(resume=True)
    assert_same_run(out, whole)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    config = replace(CONFIG, epochs=1)
    start(whole, config).run()
    with pytest.raises(Stop):
        start(out, config, report=after(5, power_cut)).run()
    assert steps(out) == [4, 2]
    flip(out / STATE, 4321)
    start(out, config).run(resume=True)
    assert any("checkpoint-1.pt, step 2" in message for message in caplog.messages)
    assert_same_run(out, whole)


def test_every_random_state_comes_back(tmp_path: Path) -> None:
    import random

    def draws() -> tuple[float, ...]:
        return float(torch.rand(())), random.random(), float(np.random.rand()), random.gauss(0, 1)  # noqa: NPY002

    random.gauss(0, 1)  # leaves half of a pair
    write(tmp_path, {**state(1), "random": random_states()}, 1)
    first = draws()
    assert draws() != first
    set_random_states(read(tmp_path)["random"])
    assert draws() == first


def test_the_loss_scaler_comes_back(tmp_path: Path) -> None:
    """That of fp16, which a run has on a GPU alone; here it is put into one."""
    runs = [start(tmp_path, CONFIG), start(tmp_path, CONFIG)]
    for run, scale in zip(runs, (512.0, 2.0), strict=True):
        run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=7)
    save_state(runs[0])
    assert runs[1].accelerator.scaler.get_scale() == 2.0
    load_state(runs[1])
    assert runs[1].accelerator.scaler.get_scale() == 512.0
