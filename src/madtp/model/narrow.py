"""Taking heads and MLP channels out of both towers: masks while it is decided which, then narrower weights.

What a head or an MLP channel gives on goes into one linear map, its outlet; a mask is a factor of that map's input. So
masks need no change of the blocks, and a structure whose mask is 0 can be cut out of the outlet's columns and of the
rows of the maps that feed it. Decoders, embeddings, projections and classifiers are left alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from madtp.errors import InputError
from madtp.model.config import PruneConfig
from madtp.model.linear import FastLinear, linear, unpack_weights
from madtp.model.recompute import PrunedBlock
from madtp.prune import METHODS
from madtp.prune.weights import openings, standing

RATE = 10.0  # by which masks learn faster than weights: a short training would leave them all at 1
FEEDERS = ("qkv", "query", "q_proj", "key", "k_proj", "value", "v_proj")  # of an attention, what is given on last
TEXT = 16  # tokens of the text for which structures' costs are compared; the budget itself is measured


class GatedLinear(FastLinear):
    """An outlet with masks.

    Attributes:
        gate: `[s]` a learned mask is `1 + RATE * gate`.
        open: `[s]` how far each mask is open, set with the strength of the method.
    """

    gate: nn.Parameter
    open: Tensor

    @property
    def learned(self) -> Tensor:
        """`[s]` the masks as they are learned, whatever is closed."""
        return 1 + RATE * self.gate

    def forward(self, input: Tensor) -> Tensor:
        """As `FastLinear`, on the masked input. A closed mask learns as if it were open: it may be opened again."""
        learned = self.learned
        mask = (self.open * learned).detach() + (learned - learned.detach())
        span = self.in_features // len(mask)
        return linear(input * mask.repeat_interleave(span).to(input.dtype), self.weight, self.bias, self.packed)


@dataclass(frozen=True)
class Outlet:
    """Where the heads of an attention, or the channels of an MLP, give on.

    Attributes:
        name: of the map in the model.
        out: the map; its input is the structures, side by side.
        feeders: the maps that make them, of the same order (a fused one: thrice); the last makes what is given on.
        group: tower and kind.
        block: of the tower.
        count: structures there are.
        cost: multiply-accumulates of one, for a picture and a text of `TEXT` tokens.
        attention: the module that counts its heads; None = an MLP.
    """

    name: str
    out: nn.Linear
    feeders: tuple[nn.Linear, ...]
    group: tuple[str, str]
    block: int
    count: int
    cost: int
    attention: Any = None

    def columns(self, keep: Tensor) -> Tensor:
        """Inputs of `out` that belong to the structures `keep`."""
        span = self.out.in_features // self.count
        return (keep[:, None] * span + torch.arange(span, device=keep.device)).view(-1)

    def importance(self) -> Tensor:
        """`[s]` of each structure: its learned mask times the norms of what it is made by and of what becomes of it."""
        with torch.no_grad():
            source = self.feeders[-1].weight[-self.out.in_features :].float().view(self.count, -1)
            goes = self.out.weight.float().T.reshape(self.count, -1)
            size = source.norm(dim=1) * goes.norm(dim=1)
            return size * self.out.learned.float().abs() if isinstance(self.out, GatedLinear) else size

    def cut(self, keep: Tensor) -> None:
        """Leave the structures `keep` alone, by number, in place."""
        columns, width = self.columns(keep), self.out.in_features
        for feeder in self.feeders:
            rows = torch.cat([columns + start for start in range(0, feeder.out_features, width)])
            _replace(feeder, feeder.weight[rows], None if feeder.bias is None else feeder.bias[rows])
        _replace(self.out, self.out.weight[:, columns], self.out.bias)
        for name in ("num_heads", "num_attention_heads"):
            if hasattr(self.attention, name):
                setattr(self.attention, name, len(keep))
        if hasattr(self.attention, "all_head_size"):
            self.attention.all_head_size = len(columns)


def _replace(module: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    module.out_features, module.in_features = weight.shape
    module.weight = nn.Parameter(weight.detach().clone(), module.weight.requires_grad)
    if bias is not None and module.bias is not None:
        module.bias = nn.Parameter(bias.detach().clone(), module.bias.requires_grad)


def outlets(model: Any) -> list[Outlet]:
    """Of both towers, whole as they were built, in the model's order."""
    names = {module: name for name, module in model.named_modules()}
    return [outlet for module in names if isinstance(module, PrunedBlock) for outlet in _of_block(model, module, names)]


def _of_block(model: Any, block: Any, names: dict[nn.Module, str]) -> Iterator[Outlet]:
    tower = "vision" if names[block].startswith("vision_model.") else "text"
    vision = model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    tokens = patches if tower == "vision" else TEXT
    place: int = block.index if hasattr(block, "index") else block.layer_num

    def heads(attention: Any, out: nn.Linear, kind: str = "attention") -> Outlet:
        count: int = getattr(attention, "num_heads", None) or attention.num_attention_heads
        made: tuple[Any, ...] = tuple(
            getattr(attention, part) for part in FEEDERS if isinstance(getattr(attention, part, None), nn.Linear)
        )
        span, width, seen = out.in_features // count, out.out_features, patches if kind == "cross" else tokens
        cost = 2 * span * (tokens * width + seen * made[-1].in_features + tokens * seen)
        return Outlet(names[out], out, made, (tower, kind), place, count, cost, attention)

    def channels(first: nn.Linear, out: nn.Linear) -> Outlet:
        cost = tokens * (first.in_features + out.out_features)
        return Outlet(names[out], out, (first,), (tower, "mlp"), place, out.in_features, cost)

    if hasattr(block, "self_attn"):
        own = block.self_attn
        yield heads(own, own.projection if hasattr(own, "projection") else own.out_proj)
        yield channels(block.mlp.fc1, block.mlp.fc2)
        return
    yield heads(block.attention.self, block.attention.output.dense)
    cross: Any = getattr(block, "crossattention", None)
    if hasattr(cross, "self0"):
        yield heads(cross.self0, cross.output.dense0, "cross")
        yield heads(cross.self1, cross.output.dense1, "cross")
    elif cross is not None:
        yield heads(cross.self, cross.output.dense, "cross")
    yield channels(block.intermediate.dense, block.output.dense)


def follow(model: Any, settings: PruneConfig) -> None:
    """Give a model the masks that its settings ask for, as open as its weights say; or take them away."""
    if not METHODS[settings.method].weights:
        if _gated(model):
            unpack_weights(model)
            for outlet in outlets(model):
                _ungate(outlet.out)
        return
    every = outlets(model)
    gates = [_gate(outlet) for outlet in every]
    for gate in gates:
        gate.open.fill_(1.0)
    if settings.temperature is None or any(gate.weight.is_meta for gate in gates):  # weights yet to be loaded
        return
    later = [i for i, outlet in enumerate(every) if outlet.block >= settings.first_block]
    for i, opening in zip(later, _openings([every[i] for i in later], settings.temperature), strict=True):
        gates[i].open.copy_(opening)


def _openings(some: list[Outlet], share: float) -> list[Tensor]:
    if not some:
        return []
    kinds = sorted({outlet.group for outlet in some})
    counts = torch.tensor([outlet.count for outlet in some])

    def each(values: list[int]) -> Tensor:
        return torch.tensor(values).repeat_interleave(counts)

    importance = torch.cat([outlet.importance().cpu() for outlet in some])
    score = standing(importance, each([kinds.index(outlet.group) for outlet in some]))
    cost = each([outlet.cost for outlet in some]).double()
    return list(openings(score, cost, share).split(counts.tolist()))


def _gated(model: Any) -> bool:
    return any(isinstance(module, GatedLinear) for module in model.modules())


def _gate(outlet: Outlet) -> GatedLinear:
    """The outlet with masks; with fresh ones where it has none, or they are as yet without memory."""
    out: Any = outlet.out
    if not isinstance(out, GatedLinear) or out.gate.device != out.weight.device:
        out.__class__ = GatedLinear
        out.gate = nn.Parameter(out.weight.new_zeros(outlet.count))
        out.register_buffer("open", out.weight.new_ones(outlet.count))
    gated: GatedLinear = out
    return gated


@torch.no_grad()
def _ungate(out: Any, mask: Tensor | None = None) -> None:
    """A plain map again, its masks in its weights; by default as learned, whatever is closed."""
    mask = out.learned if mask is None else mask
    # not in place: a stock model may share it
    weight = out.weight * mask.repeat_interleave(out.in_features // len(mask))
    out.weight = nn.Parameter(weight, out.weight.requires_grad)
    del out.gate, out.open
    out.__class__ = FastLinear


def open_of(model: Any) -> dict[str, int]:
    """Structures that are left, by outlet's name; what is whole is left out."""
    gated = {name: m for name, m in model.named_modules() if isinstance(m, GatedLinear)}
    counts = {name: (int((m.open > 0).sum()), len(m.open)) for name, m in gated.items()}
    return {name: left for name, (left, of) in counts.items() if left < of}


@torch.no_grad()
def narrow(model: Any) -> dict[str, int] | None:
    """Cut out, in place, all structures whose masks are closed; the other masks become part of the weights.

    Returns:
        Structures that are left, by outlet's name; None where there were no masks.
    """
    if not _gated(model):
        return None
    unpack_weights(model)
    every = outlets(model)
    left = {outlet.name: outlet.count for outlet in every} | open_of(model)
    for outlet in every:
        out: Any = outlet.out
        keep = (out.open > 0).nonzero().view(-1)
        _ungate(out, out.open * out.learned)
        outlet.cut(keep)
    return left


def fit(model: Any, widths: dict[str, int]) -> None:
    """Make a freshly built model as narrow as `widths`, from `narrow`, to be filled with its weights.

    Raises:
        InputError: they are not of such a model.
    """
    known = {outlet.name: outlet for outlet in outlets(model)}
    for name, left in widths.items():
        if name not in known or left > known[name].count:
            most = f"at most {known[name].count}" if name in known else "no such part in this model"
            raise InputError(f"{name}: {left}, {most}", "madtp.widths", "keep config.json and weights of one model")
        known[name].cut(torch.arange(left, device=known[name].out.weight.device))
