"""Methods side by side: each at the same measured GFLOPs, on one model and one data set, as it is and trained alike."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed

from madtp import checkpoints
from madtp.calibration import calibrate
from madtp.cost.budget import OutOfReach
from madtp.data.faults import KINDS, Faults, lines_of
from madtp.data.sample import Data
from madtp.errors import InputError
from madtp.evaluate import batches, evaluate, places_of, timed
from madtp.files import atomic_write, write_json
from madtp.model.config import PruneConfig
from madtp.model.load import load
from madtp.prune import METHODS
from madtp.recipe import Progress, TrainConfig
from madtp.report.settings import settings
from madtp.shared import begun, read_json, trained
from madtp.soundness import Diverged
from madtp.task.base import Task
from madtp.train import Trainer

DENSE = "dense"
# Settings that a method's name may bring along, and of what type.
CHANGES: dict[str, type] = {
    "alpha": float,
    "alignment": str,
    "straight_through": float,
    "semantic_tokens": int,
    "first_block": int,
}
GUIDED = {"alpha", "alignment", "straight_through", "semantic_tokens"}  # for methods that semantic tokens guide
ROW, MARKS, RUNS = "row.json", "marks.json", "runs"


def variant(name: str) -> tuple[str, dict[str, Any]]:
    """A method's own name and the settings it is to have: `"madtp:alpha=0"` -> `("madtp", {"alpha": 0.0})`.

    Raises:
        InputError: no such method, no such setting or none of this method's, or a value that is none.
    """
    method, *said = name.split(":")
    if method not in METHODS and method != DENSE:
        raise InputError(f"unknown {method}", "--methods", f"known are {DENSE}, {', '.join(METHODS)}")
    changes = {}
    for setting in said:
        key, _, value = setting.partition("=")
        if key not in CHANGES:
            raise InputError(f"{name}: unknown setting {key!r}", "--methods", f"known are {', '.join(CHANGES)}")
        if not _reads(method, key):
            raise InputError(f"{name}: {key} is nothing for {method}", "--methods", "leave it out")
        try:
            changes[key] = CHANGES[key](value)
        except ValueError:
            raise InputError(f"{name}: {value!r} is no number", "--methods", f"e.g. {method}:{key}=1") from None
    PruneConfig(**changes)  # refuses what is out of range
    return method, changes


def _reads(method: str, setting: str) -> bool:
    if method == DENSE:
        return False
    return METHODS[method].guided if setting in GUIDED else not METHODS[method].pixels


def same_name(name: str) -> str:
    """One name for all ways to write a variant: `"madtp:alpha=0.0"` -> `"madtp:alpha=0"`. Raises as `variant`."""
    method, changes = variant(name)
    return ":".join((method, *(f"{key}={changes[key]}".removesuffix(".0") for key in CHANGES if key in changes)))


def _guided(name: str) -> bool:
    method = variant(name)[0]
    return method != DENSE and METHODS[method].guided


@dataclass(frozen=True)
class Job:
    """One row to be made.

    Attributes:
        method: key of `METHODS`, with settings maybe (see `variant`), or `DENSE`.
        budget: reduction asked for; 0 = dense.
        trained: for the comparison's epochs; else only calibrated.
        seed: of the training and of fresh semantic tokens.
    """

    method: str
    budget: float
    trained: bool
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        how = "trained" if self.trained else "untrained"
        return f"{self.method.replace(':', '+')}-{how}-{self.budget:g}-seed{self.seed}"


def plan(methods: Sequence[str], budgets: Sequence[float], seeds: int, trained: bool, drawn: bool) -> list[Job]:
    """The rows of a comparison, in order: untrained ones first, budget by budget.

    Without training a seed makes no difference but to guided methods that draw fresh semantic tokens.

    Args:
        methods: as of `Job`.
        budgets: reductions in (0, 1).
        seeds: how many, from 0.
        trained: also train every method.
        drawn: semantic tokens are fresh.
    """
    jobs = []
    for training in (False, True)[: 1 + trained]:
        for budget in (0.0, *budgets):
            for method in methods:
                if (method == DENSE) != (budget == 0):
                    continue
                fresh = drawn or "semantic_tokens" in variant(method)[1]
                differs = training or (fresh and _guided(method))
                jobs += [Job(method, budget, training, seed) for seed in range(seeds if differs else 1)]
    return jobs


@dataclass(frozen=True)
class Comparison:
    """What all rows share.

    Attributes:
        model: folder or hub id of the dense model.
        task: of the model.
        train, val, test: splits; `train` is not used where nothing is trained. Temperatures are found on `val`.
        out: folder of the comparison.
        recipe: of the training; budget and seed are those of each row.
        pruning: fields of `PruneConfig`.
        semantic_tokens: so many fresh ones; None = the model's own.
        tune: pictures of `val` to find a temperature on, without training.
        pairs: times that dense and pruned are timed in turn.
        device: "cpu" or "cuda".
        faults: what to do about samples that cannot be read; None = the first ends it.
        listen: signals let a training write its checkpoint first, and `Stopped` is raised (see `madtp.stop`).
    """

    model: str
    task: Task
    train: Data[Any] | None
    val: Data[Any]
    test: Data[Any]
    out: Path
    recipe: TrainConfig
    pruning: dict[str, Any]
    semantic_tokens: int | None = None
    tune: int = 200
    pairs: int = 7
    device: str = "cpu"
    faults: Faults | None = None
    listen: bool = False

    def folder(self, job: Job) -> Path:
        """Where a row and, if it is trained, its model are."""
        return self.out / RUNS / job.name

    def done(self, job: Job) -> bool:
        """Whether the row is there already."""
        return (self.folder(job) / ROW).is_file()

    def run(self, job: Job, report: Callable[[Progress], None] | None = None) -> dict[str, Any]:
        """Make a row, or read it where it is there; a training that was cut short goes on.

        A budget that the method cannot meet, or a training that diverges, gives a row that says so.

        Raises:
            InputError: as the trainer and `evaluate`.
        """
        folder = self.folder(job)
        if self.done(job):
            return read_json(folder / ROW)
        where = settings()
        about = {"method": job.method, "reduction_asked": job.budget, "trained": job.trained, "seed": job.seed}
        about |= {"commit": where["commit"], "hardware": where["hardware"]}
        about |= {"threads": torch.get_num_threads(), "pairs": self.pairs}
        try:
            model, more = self._trained(job, report) if job.trained else self._calibrated(job)
        except (OutOfReach, Diverged) as error:
            row: dict[str, Any] = {**about, "failed": str(error)}
        else:
            found = evaluate(model, self.task, self.test, faults=self.faults)
            answered = {prediction.image_id for prediction in found.predictions}
            readable = tuple(sample for sample in self.test if sample.image_id in answered)
            dense = None if model.pruning.widths is None else self._dense()
            took = timed(model, self.task, replace(self.test, samples=readable[:32]), pairs=self.pairs, dense=dense)
            row = {**about, "temperature": model.temperature, **found.to_dict(), **took, **more}
            places, marks = places_of(found.predictions, self.test), self.task.marks(found.scored)
            atomic_write(folder / MARKS, json.dumps({"places": places, "marks": marks}) + "\n")
        write_json(folder / ROW, row)
        checkpoints.forget(folder)  # large, and of no use any more
        return row

    def marks(self, job: Job) -> tuple[list[tuple[int, int]], list[float | None]] | None:
        """Place (sample, text) of every prediction of a row in `test`, and its mark; None where they were not kept."""
        path = self.folder(job) / MARKS
        if not path.is_file():
            return None
        told = read_json(path)
        return [(sample, text) for sample, text in told["places"]], told["marks"]

    def model_of(self, job: Job, temperature: float | None) -> Any:
        """The model of a row that is there, at the row's temperature, in evaluation mode.

        Raises:
            InputError: its folder is gone.
        """
        model = load(self.folder(job)).to(self.device).eval() if job.trained else self._start(job)
        model.temperature = temperature
        return model

    def _dense(self) -> Any:
        model: Any = load(self.model)
        return model.to(self.device).eval()

    def _start(self, job: Job) -> Any:
        """The dense model, set to a row's method."""
        set_seed(job.seed)
        model = self._dense()
        method, changes = variant(job.method)
        own = {} if method == DENSE else {"method": method, "alignment": PruneConfig().alignment, **self.pruning}
        if not _guided(job.method):
            own |= {"alpha": 0.0, "straight_through": 0.0}  # there is nothing to align or to teach
        count = changes.pop("semantic_tokens", self.semantic_tokens)
        model.pruning = replace(model.pruning, temperature=None, reduction=None, **(own | changes))
        if count is not None and _guided(job.method):
            model.renew_semantic_tokens(count)
        return model

    def _calibrated(self, job: Job) -> tuple[Any, dict[str, Any]]:
        model = self._start(job)
        if job.budget:
            some = list(batches(self.task, self.val[: self.tune], 32, model.device, self.faults))
            calibrate(model, self.task, some, job.budget, mildest=True)
            model.narrow()
        return model, {"train_seconds": None, "best_epoch": None}

    def _trained(self, job: Job, report: Callable[[Progress], None] | None) -> tuple[Any, dict[str, Any]]:
        assert self.train is not None
        folder, model = self.folder(job), self._start(job)
        resume = begun(folder)
        config = replace(self.recipe, seed=job.seed, reductions=(job.budget,) if job.budget else ())
        how: dict[str, Any] = {"device": self.device, "source": {"model": self.model, "data": self.train.name}}
        if self.faults is not None:  # its own: they are named in the row's folder, and in the comparison's
            how["faults"] = Faults("skip" if self.faults.skip else "stop", self.faults.most)
        run = Trainer(model, self.task, self.train, self.val, folder, config, report, **how)
        trained(run, resume, self.listen)
        if self.faults is not None:
            self.faults.learn([line for line in lines_of(folder) if line["kind"] in KINDS])
        best: Any = load(folder)
        return best.to(self.device).eval(), {"train_seconds": run.seconds, "best_epoch": run.best.get("epoch")}


def rows_in(out: Path) -> list[dict[str, Any]]:
    """Every row that a comparison's folder holds, whichever call made it: untrained first, then by budget."""
    rows = [read_json(path) for path in sorted((out / RUNS).glob(f"*/{ROW}"))]
    order = [DENSE, *METHODS]

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        name = row["method"]
        return row["trained"], row["reduction_asked"], order.index(variant(name)[0]), name, row["seed"]

    return sorted(rows, key=place)
