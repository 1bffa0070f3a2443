"""The one training loop, on accelerate: dense models from scratch or fine-tuned, and compression to a budget."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from madtp.cost.budget import Controller, OutOfReach
from madtp.cost.flops import reduction
from madtp.data.sample import Data
from madtp.errors import InputError
from madtp.evaluate import Evaluation, batches, calibrate, check_reach, evaluate, to_device
from madtp.model.load import load
from madtp.model.save import save_model
from madtp.prune import METHODS
from madtp.recipe import TrainConfig, learning_rate, make_optimizer
from madtp.resume import LOG, load_state, save_state
from madtp.task.base import Task, cost
from madtp.task.distill import Teacher
from madtp.task.gather import averages, gather
from madtp.task.step import SPREAD, TrainingStep, order_of_epoch, prepared, steps_of_epoch


@dataclass(frozen=True)
class Progress:
    """Where a run is, for a display."""

    step: int
    steps: int
    epoch: int
    loss: float
    note: str = ""


class Trainer:
    """One run: `Trainer(...).run()`, in one process or in each of several (torchrun), which then share `out`.

    Args:
        model: to train, in place.
        task: loss, batching, metric.
        train, val: splits; the best model is chosen on `val`.
        out: folder for the model, its processor, `log.jsonl` and the checkpoint.
        config: settings.
        report: called after every step.
        device: "cpu" or "cuda"; "auto" = accelerate's choice.
        source: what the run starts from (model, data); a resumed run must have the same.
        teacher: a dense model to stay near to.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        train: Data[Any],
        val: Data[Any],
        out: Path,
        config: TrainConfig,
        report: Callable[[Progress], None] | None = None,
        device: str = "auto",
        source: dict[str, Any] | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.accelerator = Accelerator(
            mixed_precision=config.precision,
            cpu=device == "cpu",
            gradient_accumulation_steps=config.accumulate,
            kwargs_handlers=[SPREAD],
        )
        if len(train) < self.accelerator.num_processes:
            raise InputError(f"{len(train)} pictures for more processes", f"{train.name} {train.split}")
        for part in (train, val):
            if part.hidden:
                said = f"{part.hidden} {task.text_name} without truth"
                raise InputError(said, f"{part.name} {part.split}", "train and validate on what is known")
        self.task, self.train, self.out, self.config, self.report = task, train, out, config, report
        per_image = config.texts or None
        self.dataset = task.dataset(train, training=True, per_image=per_image, seed=config.seed, shift=config.shift)
        self.place = self.accelerator.process_index, self.accelerator.num_processes
        self.per_epoch = steps_of_epoch(len(train), config.batch_size, self.place[1])
        self.helper = task.helper(model, config.seed, self.per_epoch)
        if self.helper is not None:
            self.helper.to(self.accelerator.device)
        self.teacher = teacher
        if teacher is not None:
            teacher.to(self.accelerator.device)
        self.optimizer = self.accelerator.prepare_optimizer(make_optimizer(self._trained(model), config))
        self.model = prepared(self.accelerator, TrainingStep(model, task, self.helper, teacher))
        self.bare = model
        self.steps = self.per_epoch * config.epochs
        self.val = val[: config.val_images] if config.val_images else val
        self.val_batches = list(batches(task, self.val[:200], 64, self.bare.device)) if config.reductions else []
        self.controllers: list[Controller | None] = []  # one a budget; None = a dense step
        self.step, self.prepared = 0, False
        self.best: dict[str, Any] = {}
        keys = ("method", "alpha", "straight_through", "semantic_tokens", "first_block")
        own = {key: getattr(self.bare.pruning, key) for key in keys}
        self.source = (source or {}) | own | {"images": len(train), "asked": train.n_texts} | task.settings()
        self.source |= {"processes": self.place[1]}
        if self.place[0]:  # other draws (dropout, random pruning) for other pictures
            torch.manual_seed(config.seed * 1_000_003 + self.place[0])

    def _trained(self, model: Any) -> dict[str, Any]:
        mine = dict(model.named_parameters())
        beside = (
            {} if self.helper is None else dict(self.helper.named_parameters())
        )  # the model's own may be among them
        seen = {id(p) for p in mine.values()}
        return mine | {f"helper.{n}": p for n, p in beside.items() if p.requires_grad and id(p) not in seen}

    def named_parameters(self) -> list[tuple[str, Any]]:
        """All that is trained: the model's parameters, and what the task trains beside it."""
        return list(self._trained(self.bare).items())

    def run(self, resume: bool = False) -> Evaluation:
        """Train to the end; returns the evaluation of the best model by validation, which is then in `out`.

        Args:
            resume: continue from the checkpoint in `out`.

        Raises:
            InputError: nothing to resume, or other settings than the checkpoint's; an unreachable reduction.
        """
        if resume:
            load_state(self)
        elif not self.prepared:
            self.prepare()
        begin = time.perf_counter()
        for epoch in range(self.step // self.per_epoch, self.config.epochs):
            self._epoch(epoch)
            last = epoch + 1 == self.config.epochs
            tagging = epoch < self.config.tag_epochs
            if last or ((epoch + 1) % self.config.eval_every == 0 and not tagging):
                self._validate(epoch, time.perf_counter() - begin)
            self._save()
        return self._finish()

    def prepare(self) -> None:
        """Look at the first pictures and set up the budgets; nothing is written yet.

        Every budget starts from a mild one, at the temperature that meets it before any training.

        Raises:
            InputError: a picture cannot be read; a reduction that no temperature could reach.
        """
        self.prepared = True
        some = list(batches(self.task, self.train[:128], 64, self.bare.device))
        if self.config.reductions:
            check_reach(self.bare, self.task, some[:1], max(self.config.reductions))
        for target in self.config.reductions:
            if target == 0:
                self.controllers.append(None)
                continue
            start = min(target, 0.3)
            try:
                found = calibrate(self.bare, self.task, some, start, tolerance=0.02)
            except OutOfReach:  # the mildest this model can do is more than that
                start = target
                try:
                    found = calibrate(self.bare, self.task, some, target, tolerance=0.02)
                except OutOfReach as error:  # training may bring it within
                    found = error.nearest
            bounds = METHODS[self.bare.pruning.method].bounds
            ramp = int(self.config.ramp * self.steps / len(self.config.reductions))
            self.controllers.append(Controller(found.strength, target, bounds, start=start, ramp=ramp))

    def _batches(self, epoch: int) -> Iterator[dict[str, Any]]:
        self.dataset.epoch = epoch
        config = self.config
        groups = order_of_epoch(len(self.dataset), config.batch_size, self.place, config.seed, epoch)
        groups = groups[self.step - epoch * self.per_epoch :]
        # Its own generator: else the loader takes a draw from torch's at every start, and a resumed run one more.
        own = torch.Generator()
        loader = DataLoader(self.dataset, batch_sampler=groups, collate_fn=self.task.collate, generator=own)
        for batch in loader:
            yield to_device(batch, self.accelerator.device)

    def _epoch(self, epoch: int) -> None:
        self.model.train()
        for batch in self._batches(epoch):
            with self.accelerator.accumulate(self.model):
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(self.step, self.steps, self.config)
                controller = self.controllers[self.step % len(self.controllers)] if self.controllers else None
                if self.controllers:
                    self.bare.temperature = None if controller is None else controller.strength
                with self.accelerator.autocast():
                    loss, logs, trace = self.model(batch, tagging=epoch < self.config.tag_epochs)
                logs = averages({"loss": float(loss.detach()), **logs}, loss.device)
                if not math.isfinite(value := logs.pop("loss")):
                    raise InputError(f"the loss is {value} in step {self.step + 1}", self.out, "use a lower --lr")
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.bare.parameters(), self.config.clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
            if controller is not None and trace is not None:
                run, full = cost(self.bare, self.task.expect(trace, batch))
                logs["reduction"] = reduction(*(gather(x.total.to(loss.device)).cpu() for x in (run, full)))
                logs["temperature"] = controller.strength
                controller.update(logs["reduction"])
            self.step += 1
            if self.step % 20 == 0 or self.step == 1:
                self._log({"step": self.step, "epoch": epoch, "loss": value, **logs})
            if self.report is not None:
                note = f"reduction {controller.smooth or 0:.3f}" if controller is not None else ""
                self.report(Progress(self.step, self.steps, epoch, value, note))
            ended = self.step % self.per_epoch == 0  # saved after its validation
            if self.step % self.config.save_every == 0 and not ended:
                self._save()

    def _validate(self, epoch: int, seconds: float) -> None:
        """Evaluate at every budget; the mean decides which epoch's model is kept."""
        results, met = [], True
        for controller in self.controllers or [None]:
            if controller is not None:
                try:
                    self._meet(self.bare, self.val_batches, controller.target, controller.strength)
                except OutOfReach:  # but training may yet bring it within
                    if epoch + 1 == self.config.epochs and not self.best:
                        raise
                    self.bare.temperature, met = controller.strength, False
            elif self.controllers:
                self.bare.temperature = None
            results.append(evaluate(self.bare, self.task.quick(), self.val, batch_size=64))
            entry = {"step": self.step, "epoch": epoch, "val": results[-1].metrics, "reduction": results[-1].reduction}
            self._log({**entry, "temperature": self.bare.temperature, "seconds": round(seconds, 1)})
        value = sum(result.metrics[self.task.higher_is_better] for result in results) / len(results)
        if self.report is not None:
            note = f"validation {self.task.higher_is_better} {100 * value:.2f}%"
            self.report(Progress(self.step, self.steps, epoch, float("nan"), note))
        # A model cut less than asked for while the target still rises must not win.
        ramped = all(controller is None or controller.step >= controller.ramp for controller in self.controllers)
        if ramped and met and value >= self.best.get("value", -1.0):
            self.best = {"value": value, "epoch": epoch}
            self._write_model(self.bare)

    def _write_model(self, model: Any) -> None:
        if self.accelerator.is_main_process:
            save_model(model, self.task.processor, self.out)
        self.accelerator.wait_for_everyone()

    def _meet(self, model: Any, some: list[dict[str, Any]], target: float, near: float | None) -> None:
        """The temperature that meets a budget; one that saves more, where the model cannot save as little."""
        calibrate(model, self.task, some, target, near=near, mildest=True)

    def _finish(self) -> Evaluation:
        best = load(self.out).to(self.bare.device)
        if any(self.config.reductions):
            some = list(batches(self.task, self.val, 64, self.bare.device))
            self._meet(best, some, self.config.reductions[-1], best.temperature)
            self._write_model(best)
        self.bare.pruning = best.pruning  # what `out` holds
        result = evaluate(best, self.task.quick(), self.val, batch_size=64)
        self._log({"done": True, "best_epoch": self.best.get("epoch"), **result.to_dict()})
        return result

    def _log(self, entry: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            try:
                with open(self.out / LOG, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry, allow_nan=False) + "\n")
            except OSError as error:
                raise InputError(f"cannot write: {error.strerror}", self.out / LOG, "free the disk") from error

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_state(self)
