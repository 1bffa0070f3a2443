"""The one training loop, on accelerate: dense models from scratch or fine-tuned, and compression to a budget."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from madtp.calibration import calibrate, calibrate_all, first_controllers
from madtp.cost.budget import Controller, OutOfReach
from madtp.cost.flops import reduction
from madtp.data.faults import Faults
from madtp.data.sample import Data
from madtp.data.stream import Stream
from madtp.evaluate import Evaluation, batches, evaluate, to_device
from madtp.files import append_line
from madtp.model.load import load
from madtp.recipe import Progress, TrainConfig, learning_rate, make_optimizer
from madtp.resume import LOG, level, load_state, may_save, random_states, save_state, set_random_states
from madtp.soundness import Bad
from madtp.stop import Stop, Stopped, deaf
from madtp.task.base import Task, cost
from madtp.task.distill import Teacher
from madtp.task.gather import averages, gather, largest, together
from madtp.task.sharded import apart, clip_parts, gather_weights, shard
from madtp.task.step import SPREAD, TrainingStep, check_run, prepared, rest_of_epoch, steps_of_epoch, write_model
from madtp.task.tolerant import everywhere, stream


class Trainer:
    """One run: `Trainer(...).run()`, in one process or in each of several (torchrun), which then share `out`.

    Args:
        model: to train, in place; sharded (`config.fsdp`), it takes over what was trained at every validation.
        task: loss, batching, metric.
        train, val: splits; the best model is chosen on `val`.
        out: folder for the model, its processor, `log.jsonl` and the checkpoint.
        config: settings.
        report: called after every step.
        device: "cpu" or "cuda"; "auto" = accelerate's choice.
        source: what the run starts from (model, data); a resumed run must have the same.
        teacher: a dense model to stay near to.
        faults: what to do about samples that cannot be read; None = the first stops the run.

    Attributes:
        bare: the model, whole.
        trained: what steps train: the model, or its sharded copy.
        stop: whether the run is to stop, in all processes; it then writes its checkpoint and raises `Stopped`.
        bad, spent: steps that were left out; seconds before the checkpoint that it goes on from.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        train: Data[Any] | Stream,
        val: Data[Any],
        out: Path,
        config: TrainConfig,
        report: Callable[[Progress], None] | None = None,
        device: str = "auto",
        source: dict[str, Any] | None = None,
        teacher: Teacher | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.bad, self.faults = Bad(), Faults() if faults is None else faults
        self.accelerator = Accelerator(
            mixed_precision=config.precision,
            cpu=device == "cpu",
            gradient_accumulation_steps=config.accumulate,
            kwargs_handlers=[SPREAD],
        )
        check_run(self.accelerator.num_processes, model, task, train, val)
        self.task, self.train, self.out, self.config, self.report = task, train, out, config, report
        drawn = {"per_image": config.texts or None, "seed": config.seed, "shift": config.shift}
        streamed = train.settings(config.workers) if isinstance(train, Stream) else None
        self.dataset = task.dataset(train, training=True, cache=streamed is None, **drawn)
        self.place = self.accelerator.process_index, self.accelerator.num_processes
        self.stop = Stop((lambda asked: largest([asked], self.accelerator.device)[0]) if self.place[1] > 1 else None)
        self.per_epoch = steps_of_epoch(len(train), config.batch_size, self.place[1])
        if config.gradient_checkpointing:
            model.checkpoint_blocks()
        self.bare = model
        self.trained = apart(self.accelerator, model) if config.fsdp else model
        self.helper = task.helper(self.trained, config.seed, self.per_epoch)
        if self.helper is not None and not config.fsdp:
            self.helper.to(self.accelerator.device)
        self.teacher = teacher
        if teacher is not None:
            teacher.to(self.accelerator.device)
        step = TrainingStep(self.trained, task, self.helper, teacher)
        self.model = (shard if config.fsdp else prepared)(self.accelerator, step)
        self.bare.to(self.accelerator.device)
        self.optimizer = self.accelerator.prepare_optimizer(make_optimizer(dict(self.named_parameters()), config))
        self.steps = self.per_epoch * config.epochs
        self.val = val[: config.val_images] if config.val_images else val
        self.val_batches = self._some(self.val[:200]) if config.reductions else []
        self.controllers: list[Controller | None] = []  # one a budget; None = a dense step
        self.step, self.prepared, self.owed = 0, False, False  # a checkpoint is owed
        self.due = False  # the epoch is over, its validation is not
        self.best: dict[str, Any] = {}
        self.spent, self._began = 0.0, time.perf_counter()
        own = self.bare.pruning.of_training()
        own |= {"images": len(train), "asked": train.n_texts, "processes": self.place[1], "stream": streamed}
        self.source = (source or {}) | own | task.settings()
        if self.place[0]:  # other draws (dropout, random pruning) for other pictures
            torch.manual_seed(config.seed * 1_000_003 + self.place[0])

    def named_parameters(self) -> list[tuple[str, Any]]:
        """All that is trained: the model's parameters, and what the task trains beside it."""
        mine = dict(self.trained.named_parameters())
        beside = {} if self.helper is None else dict(self.helper.named_parameters())
        seen = {id(p) for p in mine.values()}  # the model's own may be among them
        mine |= {f"helper.{n}": p for n, p in beside.items() if p.requires_grad and id(p) not in seen}
        return list(mine.items())

    @property
    def seconds(self) -> float:
        """Of training, validations included; not what was lost with a run that was cut short."""
        return self.spent + time.perf_counter() - self._began

    def run(self, resume: bool = False) -> Evaluation:
        """Train to the end; returns the evaluation of the best model by validation, which is then in `out`.

        Args:
            resume: continue from the checkpoint in `out`.

        Raises:
            InputError: nothing to resume, or other settings than the checkpoint's; an unreachable reduction; too many
                samples that cannot be read, or steps without a finite loss.
            Stopped: it was asked to; the checkpoint is written.
        """
        if resume:
            load_state(self)
        elif not self.prepared:
            self.prepare()
        self.faults.attach(self.out, self.accelerator.is_main_process)
        self._began = time.perf_counter()
        for epoch in range(self.step // self.per_epoch - self.due, self.config.epochs):
            if not self.due:
                self._epoch(epoch)
            last = epoch + 1 == self.config.epochs
            tagging = epoch < self.config.tag_epochs
            if last or ((epoch + 1) % self.config.eval_every == 0 and not tagging):
                self._validated(epoch)
            self._save()
        with self.stop.at_once():
            return self._finish()

    def _validated(self, epoch: int) -> None:
        """Validate; a run that is asked to stop meanwhile does it anew when it is resumed."""
        self.due, drawn = True, random_states()
        try:
            with self.stop.at_once():
                self._validate(epoch)
        except Stopped:
            set_random_states(drawn)
            self._save()
        self.due = False

    def prepare(self) -> None:
        """Look at the first pictures and set up the budgets; nothing is written yet.

        Every budget starts from a mild one, at the temperature that meets it before any training.

        Raises:
            InputError: a picture cannot be read; a reduction that no temperature could reach.
        """
        self.prepared = True
        some, budgets = self._some(self.train[:128]), self.config.reductions
        ramp = int(self.config.ramp * self.steps / max(1, len(budgets)))
        self.controllers = first_controllers(self.bare, self.task, some, budgets, ramp)

    def _some(self, data: Data[Any]) -> list[dict[str, Any]]:
        return list(batches(self.task, data, 64, self.bare.device, self.faults))

    def _batches(self, epoch: int) -> Iterator[dict[str, Any]]:
        self.dataset.epoch = epoch
        config, done = self.config, self.step - epoch * self.per_epoch
        rest = rest_of_epoch(self.train, config.batch_size, self.place, config.seed, epoch, done, config.workers)
        # Its own generator: else the loader takes a draw from torch's at every start, and a resumed run one more.
        own = torch.Generator()
        rest |= {"generator": own, "num_workers": config.workers, "worker_init_fn": deaf}
        for batch in stream(self.dataset, self.task, self.faults, **rest):
            yield to_device(batch, self.accelerator.device)

    def _epoch(self, epoch: int) -> None:
        self.model.train()
        if self.trained is not self.bare:
            self.bare.cpu()  # until it is asked for
        for batch in self._batches(epoch):
            self._step(epoch, batch)
            self.owed |= self.step % self.config.save_every == 0
            # the last of an epoch is saved after its validation
            if self.step % self.per_epoch and may_save(self) and (self.stop.wanted() or self.owed):
                self._save()
        level(self)

    def _step(self, epoch: int, batch: dict[str, Any]) -> None:
        device, train = self.accelerator.device, self.train
        if not everywhere(batch, self.faults, train.split, len(train), device):  # none of some part could be read
            self.step += 1
            return
        with self.accelerator.accumulate(self.model):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.steps, self.config)
            controller = self.controllers[self.step % len(self.controllers)] if self.controllers else None
            if self.controllers:
                self.bare.temperature = None if controller is None else controller.strength
            with self.accelerator.autocast():
                loss, logs, trace = self.model(batch, tagging=epoch < self.config.tag_epochs)
            logs = averages({"loss": float(loss.detach()), **logs}, device)
            self.bad.see(value := logs.pop("loss"), batch)
            self.accelerator.backward(loss)
            left_out = False
            if self.accelerator.sync_gradients:
                norm = self._clip()
                left_out = self.bad.leave_out(norm, self.step + 1, self.config.bad_steps, self._tell)
            if not left_out or self.accelerator.scaler is not None:  # a scaler leaves it out too, and learns from it
                self.optimizer.step()
            self.optimizer.zero_grad()
        if controller is not None and trace is not None and math.isfinite(value):
            both = cost(self.bare, self.task.expect(trace, batch))
            logs["reduction"] = reduction(*(gather(x.total.to(device)).cpu() for x in both))
            logs["temperature"] = controller.strength
            controller.update(logs["reduction"])
        self.step += 1
        if self.step % 20 == 0 or self.step == 1 or left_out:
            more = {"bad_steps": self.bad.total} if self.bad.total else {}
            self._log({"step": self.step, "epoch": epoch, "loss": value, **logs, **more})
        if self.report is not None:
            note = "" if controller is None else f"reduction {controller.smooth or 0:.3f}"
            self.report(Progress(self.step, self.steps, epoch, value, note))

    def _clip(self) -> float:
        """Clip the gradient of the model; its norm before."""
        if self.trained is self.bare:
            return float(self.accelerator.clip_grad_norm_(self.bare.parameters(), self.config.clip))
        return clip_parts([p for _, p in self.named_parameters()], self.trained.parameters(), self.config.clip)

    def _tell(self, line: dict[str, Any]) -> None:
        """Of a step that is left out; it was of the samples of all processes."""
        samples = [name for part in together([line["samples"]]) for name in part]
        self.faults.write({**line, "samples": samples})

    def _validate(self, epoch: int) -> None:
        """Evaluate at every budget; the mean decides which epoch's model is kept."""
        gather_weights(self.bare, self.trained)
        self.bare.to(self.accelerator.device)
        results, met = [], True
        for controller in self.controllers or [None]:
            if controller is not None:
                near = controller.strength
                try:
                    calibrate(self.bare, self.task, self.val_batches, controller.target, near=near, mildest=True)
                except OutOfReach:  # but training may yet bring it within
                    if epoch + 1 == self.config.epochs and not self.best:
                        raise
                    self.bare.temperature, met = controller.strength, False
            elif self.controllers:
                self.bare.temperature = None
            results.append(evaluate(self.bare, self.task.quick(), self.val, batch_size=64, faults=self.faults))
            entry = {"step": self.step, "epoch": epoch, "val": results[-1].metrics, "reduction": results[-1].reduction}
            self._log({**entry, "temperature": self.bare.temperature, "seconds": round(self.seconds, 1)})
        value = sum(result.metrics[self.task.higher_is_better] for result in results) / len(results)
        if self.report is not None:
            note = f"validation {self.task.higher_is_better} {100 * value:.2f}%"
            self.report(Progress(self.step, self.steps, epoch, math.nan, note, value))
        # A model cut less than asked for while the target still rises must not win.
        ramped = all(controller is None or controller.step >= controller.ramp for controller in self.controllers)
        if ramped and met and value >= self.best.get("value", -1.0):
            self.best = {"value": value, "epoch": epoch, "temperature": self.bare.temperature}
            write_model(self.accelerator, self.bare, self.task.processor, self.out)

    def _finish(self) -> Evaluation:
        best = load(self.out).to(self.bare.device)
        targets = list(filter(None, self.config.reductions))
        if targets and best.pruning.widths is None:  # one that saves more, where it cannot save as little
            # from where validation found it, not from the file's: a run killed right here does the same again
            near = self.best.get("temperature", best.temperature)
            calibrate_all(best, self.task, self._some(self.val), targets, self.val, near=near, lenient=True)
            write_model(self.accelerator, best.narrow(), self.task.processor, self.out)
        self.bare.pruning = best.pruning  # what `out` holds
        result = evaluate(best, self.task.quick(), self.val, batch_size=64, faults=self.faults)
        self._log({"done": True, "best_epoch": self.best.get("epoch"), **result.to_dict()})
        return result

    def _log(self, entry: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            append_line(self.out / LOG, entry)

    def _save(self) -> None:
        """Write the checkpoint; here a run ends that was asked to stop."""
        save_state(self)
        self.owed = False
        if wanted := self.stop.wanted():
            raise Stopped(wanted, f"the checkpoint of step {self.step} is written; go on with --resume")
