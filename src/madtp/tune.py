"""A search for the settings with which a dense model is best compressed to a budget; on validation data alone.

Trials are proposed by optuna (TPE) and stopped early by it where they fall behind the others' median. What was tried is
in a journal in the search's folder, so that a search that was cut short goes on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
from accelerate.utils import set_seed
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from madtp import checkpoints
from madtp.cost.budget import OutOfReach
from madtp.data.sample import Data
from madtp.files import write_json
from madtp.knobs import WHOLE, Knob, how_many
from madtp.model.config import PruneConfig
from madtp.model.load import load
from madtp.recipe import Progress, TrainConfig
from madtp.shared import begun, read_json, trained
from madtp.soundness import Diverged
from madtp.task.base import Task
from madtp.task.distill import Teacher
from madtp.train import Trainer

RUNS, JOURNAL, ROW = "runs", "journal.log", "trial.json"
STARTUP = 3  # trials that are drawn at random, and never stopped early, before others are measured against them


@dataclass(frozen=True)
class Search:
    """A search: what all of its trials share.

    Attributes:
        model: folder or hub id of the dense model.
        task: of the model.
        train, val: splits; every trial trains on the one, and is judged by the task's main metric on the other.
        out: folder of the search.
        recipe: of the training, its budgets among them; a trial's own learning rate and distillation go before it.
        space: knobs by name.
        device: "cpu" or "cuda".
        listen: signals let a trial write its checkpoint first, and `Stopped` is raised (see `madtp.stop`).
    """

    model: str
    task: Task
    train: Data[Any]
    val: Data[Any]
    out: Path
    recipe: TrainConfig
    space: Mapping[str, Knob]
    device: str = "cpu"
    listen: bool = False

    def run(
        self,
        trials: int,
        report: Callable[[int, Progress], None] | None = None,
        ended: Callable[[list[dict[str, Any]]], object] | None = None,
    ) -> list[dict[str, Any]]:
        """Go on until there are `trials`, those of earlier calls included; returns their rows (see `rows`).

        Where every setting of the space has been tried it ends before.

        The model of the best (`best_of`) stays in its folder; weights of the others are let go.

        Args:
            trials: ended ones, early-stopped and failed ones included; so is one of the settings of another, which
                ends as that did and is not trained again.
            report: told the trial's number and where it is.
            ended: told the rows after every trial, before any weights are let go.

        Raises:
            InputError: as the trainer; a budget that is out of reach, or a training that diverges, makes the trial
                fail alone.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.out.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(self.out / JOURNAL)))
        study = optuna.create_study(
            storage=storage,
            study_name="madtp",
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        )
        for left in study.get_trials(states=(TrialState.RUNNING,)):  # cut short: done again, from its checkpoint
            study.tell(left.number, state=TrialState.FAIL)
            study.enqueue_trial(left.params, user_attrs={"seen": sorted(left.intermediate_values.items())})
        every = how_many(self.space.values())
        while (done := len(past := _ended(study))) < trials and len(_tried(past)) < every:
            # a sampler of its own for every trial: a search that was cut short proposes what it would have
            study.sampler = optuna.samplers.TPESampler(seed=self.recipe.seed + done, n_startup_trials=STARTUP)
            trial = study.ask()
            self._trial(study, trial, report)
            rows = self.rows(study)
            if ended is not None:
                ended(rows)
            self._tidy(rows)
        return self.rows(study)

    def _trial(self, study: optuna.Study, trial: optuna.Trial, report: Callable[[int, Progress], None] | None) -> None:
        settings = {name: knob.suggest(name, trial) for name, knob in self.space.items()}
        settings |= {name: int(settings[name]) for name in WHOLE if name in settings}
        folder = self._folder(settings)
        trial.set_user_attr("folder", folder.name)
        trial.set_user_attr("settings", settings)
        if (known := _tried(_ended(study)).get(folder.name)) is not None:
            _end_as(study, trial, known)
            return
        if (folder / ROW).is_file():  # it was cut short when all was done
            study.tell(trial, read_json(folder / ROW)["value"])
            return

        for epoch, value in trial.user_attrs.get("seen", ()):
            trial.report(value, epoch)

        def see(progress: Progress) -> None:
            if report is not None:
                report(trial.number, progress)
            if progress.value is not None:
                trial.report(progress.value, progress.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        try:
            row = self._train(settings, folder, see)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
            return
        except (OutOfReach, Diverged) as error:  # with these settings; others may do better
            trial.set_user_attr("failed", str(error))
            study.tell(trial, state=TrialState.FAIL)
            return
        write_json(folder / ROW, row)
        study.tell(trial, row["value"])

    def _folder(self, settings: Mapping[str, float]) -> Path:
        name = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        return self.out / RUNS / name

    def _train(self, settings: dict[str, float], folder: Path, see: Callable[[Progress], None]) -> dict[str, Any]:
        set_seed(self.recipe.seed)
        model: Any = load(self.model)
        model.to(self.device).eval()
        recipe = replace(
            self.recipe,
            lr=settings.get("lr", self.recipe.lr),
            distill=settings.get("distill", self.recipe.distill),
        )
        teacher = Teacher(model, recipe.distill) if recipe.distill else None
        # What is not searched is what `madtp compress` makes of it, whatever the model was trained with.
        own: dict[str, Any] = {
            name: getattr(PruneConfig(), name) for name in ("alpha", "alignment", "straight_through")
        }
        own |= {name: settings[name] for name in (*own, "first_block") if name in settings}
        model.pruning = replace(model.pruning, method="madtp", temperature=None, reduction=None, **own)
        if "semantic_tokens" in settings:
            model.renew_semantic_tokens(int(settings["semantic_tokens"]))
        resume = begun(folder)
        source = {"model": self.model, "data": self.train.name}
        trainer = Trainer(
            model, self.task, self.train, self.val, folder, recipe, see,
            device=self.device, source=source, teacher=teacher,
        )  # fmt: skip
        found = trained(trainer, resume, self.listen)
        several = len(recipe.reductions) > 1  # their mean, as in validation; what is evaluated at the end is the last
        value = trainer.best["value"] if several else found.metrics[self.task.higher_is_better]
        return {"value": value, "temperature": trainer.bare.temperature, "settings": settings, **found.to_dict()}

    def _tidy(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep the best trial's model; of the others what was measured."""
        best = best_of(rows)
        for name in {row["folder"] for row in rows}:
            folder = self.out / name
            if best is not None and name == best["folder"]:
                checkpoints.forget(folder)
                continue
            for file in folder.iterdir() if folder.is_dir() else ():
                if file.is_file() and file.name != ROW and file.suffix != ".jsonl":
                    file.unlink()

    def rows(self, study: optuna.Study) -> list[dict[str, Any]]:
        """One row a trial that ended, in their order.

        `trial` its number; `state` "done", "stopped" (early) or "failed" (`reason`: the budget is out of reach
        so, or the training diverged); `value` of the task's main metric at the end (of several budgets the mean), or
        the best before it was stopped; `epochs` validated; `settings`; `folder`; of trials that are done also metrics,
        GFLOPs and temperature, at the last budget.
        """
        rows = []
        for trial in _ended(study):
            state = {TrialState.COMPLETE: "done", TrialState.PRUNED: "stopped"}.get(trial.state, "failed")
            seen = trial.intermediate_values
            row: dict[str, Any] = {
                "trial": trial.number,
                "state": state,
                "value": trial.value if state == "done" else max(seen.values(), default=None),
                "epochs": len(seen),
                "settings": trial.user_attrs["settings"],
                "folder": f"{RUNS}/{trial.user_attrs['folder']}",
            }
            if state == "done":
                told = read_json(self.out / row["folder"] / ROW)
                row |= {key: told[key] for key in ("metrics", "gflops", "temperature")}
            if state == "failed":
                row["reason"] = trial.user_attrs["failed"]
            rows.append(row)
        return rows


def best_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the highest value, of equals the first; None if no trial was done."""
    done = [row for row in rows if row["state"] == "done"]
    return max(done, key=lambda row: (row["value"], -row["trial"]), default=None)


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that need not be done again: all but those that were cut short."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    some = study.get_trials(deepcopy=False, states=states)
    return [trial for trial in some if trial.state != TrialState.FAIL or "failed" in trial.user_attrs]


def _tried(trials: Sequence[FrozenTrial]) -> dict[str, FrozenTrial]:
    """The first trial of each settings, by its folder's name."""
    return {trial.user_attrs["folder"]: trial for trial in reversed(trials)}


def _end_as(study: optuna.Study, trial: optuna.Trial, known: FrozenTrial) -> None:
    """End a trial as another with the same settings ended."""
    if known.state == TrialState.COMPLETE:
        study.tell(trial, known.value)
        return
    for epoch, value in known.intermediate_values.items():
        trial.report(value, epoch)
    if known.state == TrialState.FAIL:
        trial.set_user_attr("failed", known.user_attrs["failed"])
    study.tell(trial, state=known.state)
