"""Steps whose loss or gradient is not finite: left out, counted, and too many in a row end the run."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from madtp.errors import InputError


class Diverged(InputError):
    """Too many steps in a row without a finite loss and gradient."""


@dataclass
class Bad:
    """Steps of a run that were left out.

    Attributes:
        total: of the run.
        row: the last so many, without a good one between.
        what: of the batches since the last step: "loss" or "gradient" where one is not finite, else "".
        ids: the samples of those batches, of this process's parts of them.
    """

    total: int = 0
    row: int = 0
    what: str = ""
    ids: list[str] = field(default_factory=list)

    def see(self, loss: float, batch: dict[str, Any]) -> None:
        """Take in a batch of the step; `loss` the mean over the processes, which is not finite where any is not."""
        self.ids += [sample.image_id for sample in batch["samples"]]
        if not math.isfinite(loss):
            self.what = "loss"

    def leave_out(self, norm: float, step: int, most: int, tell: Callable[[dict[str, Any]], None]) -> bool:
        """Judge the step by its batches' losses and the norm of its gradient; True = it is to be left out.

        Args:
            norm: of the gradient, the same in every process.
            step: number of the step, from 1.
            most: so many in a row end the run.
            tell: gets a line about a step that is left out.

        Raises:
            Diverged: too many in a row.
        """
        what = self.what or ("" if math.isfinite(norm) else "gradient")
        ids, self.ids, self.what = self.ids, [], ""
        self.row = self.row + 1 if what else 0
        if not what:
            return False
        self.total += 1
        tell({"kind": "step", "split": "train", "id": str(step), "error": f"{what} is not finite", "samples": ids})
        if self.row >= most:
            said = f"{self.row} steps in a row without a finite loss and gradient, the last ({what}) is step {step}"
            raise Diverged(said, "train", "their samples are named in errors.jsonl; use a lower --lr")
        return True
