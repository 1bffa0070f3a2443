"""`config.madtp`: how a model prunes, saved with it."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from transformers import BlipConfig, CLIPConfig

from madtp.errors import InputError
from madtp.model.attention import BACKENDS
from madtp.model.curve import BudgetCurve
from madtp.prune import ALIGNMENTS, METHODS

_NUMBER = (int, float)
_TYPES: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "temperature": (*_NUMBER, type(None)),
    "semantic_tokens": (int,),
    "alpha": _NUMBER,
    "alignment": (str,),
    "straight_through": _NUMBER,
    "first_block": (int,),
    "attention": (str,),
    "reduction": (*_NUMBER, type(None)),
}


@dataclass(frozen=True)
class PruneConfig:
    """How a model prunes.

    Attributes:
        method: key of `madtp.prune.METHODS`.
        temperature: the one knob of the compute budget; None = dense. For most comparators it is the share of the
            content tokens that every block prunes (`Method.knob` says which).
        semantic_tokens: K, number of semantic tokens shared by both modalities.
        alpha: weight of the alignment loss in training.
        alignment: that loss: "cosine" as in the paper, or "contrastive" over the batch (`madtp.prune.align`).
        straight_through: in training, weight of the gradient that the scores get from tokens that are kept (see
            `madtp.prune.merge.Gate`); 0 = none, as in the paper.
        first_block: the first block of each tower that prunes, from 0.
        attention: backend, see `madtp.model.attention`.
        reduction: 1 - GFLOPs(pruned) / GFLOPs(dense) measured at `temperature` when it was chosen; None = not measured.
        curve: what several temperatures save, measured (`set_reduction` reads it); None = not measured.
        widths: heads and MLP channels that are left, by the name of the map they give on to, where a method has taken
            weights out (see `madtp.model.narrow`); None = it has not.
    """

    method: str = "madtp"
    temperature: float | None = None
    semantic_tokens: int = 100
    alpha: float = 0.1
    alignment: str = "cosine"
    straight_through: float = 0.0
    first_block: int = 0
    attention: str = "auto"
    reduction: float | None = None
    curve: BudgetCurve | None = None
    widths: dict[str, int] | None = None

    def __post_init__(self) -> None:
        for name, allowed in _TYPES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, allowed):
                raise InputError(f"{value!r} is of the wrong type", f"madtp.{name}", "see docs/json.md")
        if self.curve is not None:  # a config file's is a dictionary
            object.__setattr__(self, "curve", BudgetCurve.of(self.curve))
        if self.method not in METHODS:
            raise InputError(f"unknown pruning method {self.method!r}", "madtp.method", f"one of {', '.join(METHODS)}")
        if self.alignment not in ALIGNMENTS:
            raise InputError(f"unknown {self.alignment!r}", "madtp.alignment", f"one of {', '.join(ALIGNMENTS)}")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise InputError(
                f"temperature {self.temperature} is not above 0 and finite", "madtp.temperature", "use None for dense"
            )
        if METHODS[self.method].knob == "prune_share" and self.temperature is not None and self.temperature >= 1:
            raise InputError(
                f"{self.method} prunes a share of the tokens, got {self.temperature}", "madtp.temperature", "use 0..1"
            )
        if self.widths is not None:
            self._check_widths()
        for name in ("alpha", "straight_through"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{getattr(self, name)} is not 0 or above, and finite", f"madtp.{name}")
        if self.semantic_tokens < 1:
            raise InputError(f"{self.semantic_tokens} semantic tokens", "madtp.semantic_tokens", "use 1 or more")
        if self.first_block < 0:
            raise InputError(f"no block has the number {self.first_block}", "madtp.first_block", "use 0 or more")
        if self.attention not in BACKENDS:
            raise InputError(
                f"unknown attention {self.attention!r}", "madtp.attention", f"one of {', '.join(BACKENDS)}"
            )

    def _check_widths(self) -> None:
        whole = isinstance(self.widths, dict) and all(type(n) is int and n >= 0 for n in self.widths.values())
        if not whole:
            raise InputError("holds no names with numbers", "madtp.widths")
        if not METHODS[self.method].weights or self.temperature is None:
            said = "weights have been taken out of this model: it has no dense form, and takes no other method"
            raise InputError(said, "madtp.widths", "start from the dense model that it was made of")

    @classmethod
    def of(cls, value: "PruneConfig | dict[str, Any] | None") -> "PruneConfig":
        """From what a config file holds; an unknown key is refused."""
        if isinstance(value, PruneConfig):
            return value
        if value is not None and not isinstance(value, dict):
            raise InputError(f"{value!r} is no object", "config.madtp")
        given: dict[str, Any] = value or {}
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(given) - known)
        if unknown:
            raise InputError(
                f"unknown keys {', '.join(unknown)}", "config.madtp", f"known are {', '.join(sorted(known))}"
            )
        return cls(**given)

    def of_training(self) -> dict[str, Any]:
        """What decides how a training goes; temperatures and what was measured come out of it."""
        keys = ("method", "alpha", "alignment", "straight_through", "semantic_tokens", "first_block")
        return {key: getattr(self, key) for key in keys}

    def to_dict(self) -> dict[str, Any]:
        whole = {**asdict(self), "curve": None if self.curve is None else self.curve.to_dict()}
        if self.widths is None:  # as good as all models
            del whole["widths"]
        return whole


# Of an output, what the stock Trainer leaves out of its predictions.
_NOT_PREDICTED = ["loss_task", "loss_align", "trace", "encoded"]


class MadtpBlipConfig(BlipConfig):
    """A `BlipConfig` with one more field, `madtp`: the dictionary form of `PruneConfig`."""

    model_type = "madtp_blip"
    keys_to_ignore_at_inference = _NOT_PREDICTED
    madtp: dict[str, Any] | None = None


class MadtpCLIPConfig(CLIPConfig):
    """A `CLIPConfig` with two more fields.

    Attributes:
        madtp: the dictionary form of `PruneConfig`.
        semantic_width: D, width of the semantic tokens; None = the text tower's.
    """

    model_type = "madtp_clip"
    keys_to_ignore_at_inference = _NOT_PREDICTED
    madtp: dict[str, Any] | None = None
    semantic_width: int | None = None
