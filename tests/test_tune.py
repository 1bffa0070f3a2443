"""The search: trials are proposed, stopped early, cut short and gone on with; the best is kept, and nothing is lost."""

import json
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

from madtp import tune
from madtp.errors import InputError
from madtp.knobs import KNOBS, Knob, how_many, parse_space
from madtp.model.load import load
from madtp.recipe import Progress, TrainConfig
from madtp.stop import Stopped
from madtp.tune import ROW, RUNS, Search
from small import contents, model_folder, nano_task, samples


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model") / "dense")


def search(model: Path, out: Path, space: str = "lr=1e-4..1e-2 alpha=0,0.3 semantic_tokens=7", **recipe: Any) -> Search:
    recipe = {"epochs": 2, "batch_size": 3, "texts": 1, "reductions": (0.4,), **recipe}
    data = (samples("vqa", split, count) for split, count in (("train", 5), ("val", 3)))
    return Search(str(model), nano_task("vqa"), *data, out, TrainConfig(**recipe), parse_space(space))


def test_what_may_be_searched() -> None:
    assert parse_space("alpha lr") == {"alpha": KNOBS["alpha"], "lr": KNOBS["lr"]}
    space = parse_space("lr=1e-4..1e-3 semantic_tokens=16,64 distill=0.5 alpha=0,0")
    assert space["lr"] == Knob(low=1e-4, high=1e-3)
    assert space["semantic_tokens"].values == (16, 64)
    assert space["distill"].values == (0.5,) and space["alpha"].values == (0.0,)
    assert how_many(space.values()) == float("inf") and how_many(parse_space("alpha first_block=1,2").values()) == 10
    for wrong, said in (
        ("", "names no setting"),
        ("temperature", "unknown setting 'temperature'"),
        ("lr=", "no values"),
        ("lr=0", "no values"),
        ("lr=nan", "no values"),
        ("alpha=-1,0", "no values"),
        ("alpha=0..1", "no values"),  # a logarithmic scale has no 0
        ("lr=1e-3..1e-4", "no values"),
        ("semantic_tokens=0", "no values"),
        ("semantic_tokens=1.5", "no values"),
        ("semantic_tokens=1..5", "no values"),
    ):
        with pytest.raises(InputError, match=said):
            parse_space(wrong)


def test_trials_differ_and_the_best_is_kept(dense: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    def tell(trial: int, progress: Progress) -> None:
        if progress.value is not None:
            seen.append((trial, progress.value))

    run = search(dense, tmp_path / "out")
    rows = run.run(3, tell)
    assert [row["trial"] for row in rows] == [0, 1, 2]
    assert len({row["settings"]["lr"] for row in rows}) == 3
    for row in rows:
        assert row["state"] == "done" and row["epochs"] == 2
        assert 1e-4 <= row["settings"]["lr"] <= 1e-2 and row["settings"]["alpha"] in (0.0, 0.3)
        assert row["settings"]["semantic_tokens"] == 7
        assert row["value"] == row["metrics"]["accuracy"]
        assert [trial for trial, _ in seen].count(row["trial"]) == 2
        assert row["gflops"]["reduction"] == pytest.approx(0.4, abs=0.12)
    best = max(rows, key=lambda row: (row["value"], -row["trial"]))
    for row in rows:
        folder = tmp_path / "out" / row["folder"]
        assert (folder / "model.safetensors").is_file() == (row is best)
        assert not list(folder.glob("checkpoint*")) and (folder / "log.jsonl").is_file()
    kept = load(tmp_path / "out" / best["folder"]).pruning
    assert kept.semantic_tokens == 7 and kept.alpha == best["settings"]["alpha"]
    assert kept.temperature == best["temperature"]

    # the same call changes nothing, a larger number goes on
    before = contents(tmp_path / "out" / RUNS)
    assert search(dense, tmp_path / "out").run(3) == rows
    assert contents(tmp_path / "out" / RUNS) == before
    more = search(dense, tmp_path / "out").run(4)
    assert more[:3] == rows and more[3]["trial"] == 3


def test_a_search_cut_short_goes_on_as_if_it_had_not_been(dense: Path, tmp_path: Path) -> None:
    whole = search(dense, tmp_path / "whole", save_every=1).run(2)

    class Cut(Exception):
        pass

    def cut(trial: int, progress: Progress) -> None:
        if trial == 1 and progress.step == 3:
            raise Cut

    with pytest.raises(Cut):
        search(dense, tmp_path / "cut", save_every=1).run(2, cut)
    steps = []
    rows = search(dense, tmp_path / "cut", save_every=1).run(
        2, lambda trial, progress: steps.append((trial, progress.step))
    )
    assert {trial for trial, _ in steps} == {2} and min(step for _, step in steps) > 1, "from its checkpoint"
    assert [row["trial"] for row in rows] == [0, 2]
    left = [{**row, "trial": None} for row in rows]
    assert left == [{**row, "trial": None} for row in whole]
    assert search(dense, tmp_path / "cut", save_every=1).run(2) == rows


def test_trials_that_fall_behind_are_stopped(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(self: optuna.pruners.MedianPruner, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number == 1

    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", worse)
    done, stopped = search(dense, tmp_path / "out").run(2)
    assert done["state"] == "done" and stopped["state"] == "stopped" and stopped["epochs"] == 1
    assert stopped["value"] is not None and "metrics" not in stopped
    assert not (tmp_path / "out" / stopped["folder"] / ROW).exists()
    assert not list((tmp_path / "out" / stopped["folder"]).glob("*.safetensors"))


def test_settings_that_cannot_meet_the_budget_fail_alone(dense: Path, tmp_path: Path) -> None:
    # from its last block on, next to nothing can be saved
    rows = search(dense, tmp_path / "out", "first_block=0,2", reductions=(0.4,), epochs=1).run(5)
    by_block = {row["settings"]["first_block"]: row for row in rows}
    assert by_block[0]["state"] == "done"
    assert by_block[2]["state"] == "failed" and "reduction" in by_block[2]["reason"]


def test_a_training_that_diverges_fails_alone(dense: Path, tmp_path: Path) -> None:
    run = search(dense, tmp_path / "out", "lr=1e-3,1e30 alpha=0", epochs=1, batch_size=1, bad_steps=2)
    by_rate = {row["settings"]["lr"]: row for row in run.run(5)}
    assert by_rate[1e-3]["state"] == "done"
    assert by_rate[1e30]["state"] == "failed" and "2 steps in a row" in by_rate[1e30]["reason"]


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_settings_are_tried_once_however_they_ended(
    state: str, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where all have been, the search is over."""
    first: list[int] = []

    def first_alone(self: optuna.pruners.MedianPruner, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        first.append(trial.number)
        return trial.number == first[0]

    if state == "stopped":
        monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", first_alone)
    space = "alpha=0,0.3" if state == "stopped" else "first_block=0,2"
    trained: set[int] = set()
    run = search(dense, tmp_path / "out", space, epochs=1)
    rows = run.run(40, lambda trial, progress: trained.add(trial))
    assert {row["state"] for row in rows} == {"done", state} and len(rows) < 40
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(row["folder"], []).append({**row, "trial": None, "epochs": None})
    assert len(kinds) == len(trained) == 2
    assert all(same == alike[0] for alike in kinds.values() for same in alike)
    assert run.run(41, lambda trial, progress: pytest.fail("trained again")) == rows


@pytest.mark.parametrize("budgets", [(0.0, 0.4), (0.4,)])
def test_of_several_budgets_the_mean_is_the_value(
    budgets: tuple[float, ...], dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what validation chose the model by. Nano models are as good at all budgets, so it is set here."""
    whole = tune.trained

    def told(run: Any, *how: Any) -> Any:
        found = whole(run, *how)
        run.best["value"] = 0.625
        return found

    monkeypatch.setattr(tune, "trained", told)
    (row,) = search(dense, tmp_path / "out", "lr=1e-3", epochs=1, reductions=budgets).run(1)
    assert row["value"] == (0.625 if len(budgets) > 1 else row["metrics"]["accuracy"])
    assert row["metrics"]["accuracy"] != 0.625


def test_a_signal_lets_a_trial_write_its_checkpoint(dense: Path, tmp_path: Path) -> None:
    whole = search(dense, tmp_path / "whole").run(1)
    data = search(dense, tmp_path / "out")
    listening = Search(**{**vars(data), "listen": True})

    def asked(trial: int, progress: Progress) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match="SIGINT: the same command goes on") as stopped:
        listening.run(1, asked)
    assert stopped.value.code == 130
    steps: list[int] = []
    (row,) = listening.run(1, lambda trial, progress: steps.append(progress.step))
    assert steps[0] == 4 and {**row, "trial": 0} == whole[0]


def test_what_is_not_searched_is_what_compress_makes_of_it(tmp_path: Path) -> None:
    """Whatever the model was trained with; so the command in best.json makes the same model."""
    tuned = model_folder(tmp_path / "tuned", alpha=0.7, straight_through=0.5, alignment="contrastive", first_block=1)
    (row,) = search(tuned, tmp_path / "out", "lr=1e-3", epochs=1, reductions=(0.2,)).run(1)
    made = load(tmp_path / "out" / row["folder"]).pruning
    assert (made.alpha, made.straight_through, made.alignment, made.first_block) == (0.1, 0.0, "cosine", 1)


def test_told_after_every_trial_and_nothing_of_others_is_let_go(dense: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out" / "runs" / "mine" / "weights.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep")
    (tmp_path / "out" / "runs" / "notes.txt").write_text("keep")
    told: list[int] = []

    def ended(rows: list[dict[str, Any]]) -> None:
        told.append(len(rows))
        assert (tmp_path / "out" / rows[-1]["folder"] / "model.safetensors").is_file(), "not let go yet"

    search(dense, tmp_path / "out", epochs=1).run(3, ended=ended)
    assert told == [1, 2, 3]
    assert mine.read_text() == "keep" and (tmp_path / "out" / "runs" / "notes.txt").read_text() == "keep"


def test_the_same_settings_are_not_trained_twice(dense: Path, tmp_path: Path) -> None:
    trained = []
    rows = search(dense, tmp_path / "out", "alpha=0.1", epochs=1).run(
        3, lambda trial, progress: trained.append((trial, progress.step))
    )
    assert {trial for trial, _ in trained} == {0}
    assert len(rows) == 1, "there are no others"
    (row,) = (tmp_path / "out" / "runs").glob(f"*/{ROW}")
    assert json.loads(row.read_text())["settings"] == {"alpha": 0.1}
