"""`nn.Linear` at the speed of the machine where no gradient is asked for: oneDNN on the CPU.

torch hands float32 products to its BLAS, which copies the weights into its own layout at every call. With few rows, as
pruning leaves them, that costs as much as the product itself: MKL on an AMD machine reaches 60% of its speed at 100
rows, oneDNN 95%. Packed once, weights cost nothing to lay out however few rows there are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

TYPES = (torch.float32, torch.bfloat16)
SMALL = 1 << 17  # weights: below, as in small models, calling oneDNN costs more than it saves (30 us against 10)
PART = 1024  # rows: 12 MB between the maps of BLIP's MLPs, and enough of them for the product's full speed

if torch.backends.mkldnn.is_available():  # torch's own counter knows no formula for it

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(input: Any, weight: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
        return 2 * math.prod(input) * int(out_shape[-1])


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, packed: Tensor | None = None) -> Tensor:
    """`input weight^T + bias`, as `F.linear`.

    Args:
        input: `[..., in]`.
        weight: `[out, in]`.
        bias: `[out]`.
        packed: the weight as `pack_weights` laid it out.
    """
    several = input.numel() > input.shape[-1]  # to lay weights out for one row does not pay
    fast = (several and packable(weight)) if packed is None else weight.is_cpu
    if not (fast and _apart() and input.dtype is weight.dtype):
        return F.linear(input, weight, bias)
    rows = input.shape[0]
    padded = with_spare_rows(input) if input.dim() == 2 else input
    out = product(padded, weight if packed is None else packed, bias)
    return out if out.shape[0] == rows else out[:rows]


def product(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`input weight^T + bias` by oneDNN: on the CPU, in a type that it `computes`, without a gradient.

    Args:
        input: `[..., in]`, dense or transposed, as `weight`: oneDNN reads what lies otherwise entry by entry.
        weight: `[out, in]`, or packed.
        bias: `[out]`, dense; its strides are not looked at.
    """
    out: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return out


def _apart() -> bool:
    """True where oneDNN may be called by name: neither gradients nor autocast nor a compiler are watching."""
    return not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())


def together(maps: Sequence[nn.Module], values: Tensor) -> list[Tensor]:
    """What each map makes of `values [t, c]`; rows are filled up once for all, and packed maps go as one product."""
    rows = values.shape[0]
    if not (_apart() and values.is_cpu):
        return [each(values) for each in maps]
    values = with_spare_rows(values)
    joint = _joint(maps)
    if joint is None or joint.dtype is not values.dtype:
        made = [each(values) for each in maps]
    else:
        made = list(product(values, joint.packed, joint.bias).split([len(bias) for bias in joint.biases], -1))
    return made if values.shape[0] == rows else [out[:rows] for out in made]


@dataclass(frozen=True)
class _Joint:
    """Maps that read the same tokens, packed as one, with the biases that they had then."""

    maps: tuple["FastLinear", ...]
    biases: tuple[Tensor, ...]
    packed: Tensor
    bias: Tensor
    dtype: torch.dtype

    def holds(self, maps: Sequence[nn.Module]) -> bool:
        """True of these very maps, as they were."""
        pairs = list(zip(self.maps, self.biases, maps, strict=False))
        return len(maps) == len(self.maps) and all(mine is other and mine.bias is bias for mine, bias, other in pairs)


def _joint(maps: Sequence[nn.Module]) -> _Joint | None:
    """The maps as one packed map, made at the first call, when they drop what each has; None where they cannot be one.

    They are packed and plain: with a bias, and without hooks that the one product would pass by.
    """
    first = maps[0]
    plain = [each for each in maps if type(each) is FastLinear and each.bias is not None and not _watched(each)]
    if len(plain) < len(maps) or not isinstance(first, FastLinear):
        return None
    if first.joint is None and all(each.packed is not None for each in plain):
        weight, biases = torch.cat([each.weight.detach() for each in plain]), tuple(each.bias for each in plain)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        first.joint = _Joint(tuple(plain), biases, packed, torch.cat(biases).detach(), weight.dtype)
        for each in plain:
            each.packed = None
    return first.joint if first.joint is not None and first.joint.holds(maps) else None


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def with_spare_rows(values: Tensor) -> Tensor:
    """`[t, c]` with zeros behind, to one of few numbers of rows: `spare_rows(t)` more.

    oneDNN makes a kernel for every number of rows, half a millisecond each, and ragged batches would have a new number
    almost every time.
    """
    rows = values.shape[0]
    more = spare_rows(rows)
    if not more or not computes(values.dtype):
        return values
    filled = values.new_empty(rows + more, values.shape[1])  # F.pad writes every row twice
    filled[:rows] = values
    filled[rows:] = 0
    return filled


def spare_rows(rows: int) -> int:
    """Rows to add: none to few, else an eleventh at most; none to so many that a kernel costs less."""
    for most, step in ((32, 1), (128, 4), (512, 8), (PART, 16)):
        if rows <= most:
            return -rows % step
    return 0


def in_parts(work: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """`work(values)`, for work that takes every row by itself: outside of training on the CPU, some rows at a time.

    What lies between the maps of an MLP, four times the tokens' width and more, then stays in cache and takes no memory
    that grows with the batch.

    Args:
        work: `[t, c] -> [t, c]`.
        values: `[t, c]`.
    """
    if torch.is_grad_enabled() or values.device.type != "cpu" or torch.compiler.is_compiling():
        return work(values)
    if len(values) <= PART:
        return work(with_spare_rows(values))[: len(values)]  # once for all maps within
    out = torch.empty_like(values)
    for start in range(0, len(values), PART):
        part = values[start : start + PART]
        out[start : start + PART] = work(with_spare_rows(part))[: len(part)]
    return out


def packable(weight: Tensor) -> bool:
    """True if oneDNN shall take the weight: a plain tensor on the CPU, of a type the machine computes in, not small.

    In bfloat16 torch calls oneDNN anyway, with as many rows as there are: then small ones go our way too.
    """
    return (
        weight.numel() >= (SMALL if weight.dtype is torch.float32 else 1)
        and weight.is_cpu
        and type(weight) in (Tensor, nn.Parameter)
        and computes(weight.dtype)
    )


def computes(dtype: torch.dtype) -> bool:
    """True if oneDNN is there and computes in this type on this machine."""
    if dtype not in TYPES or not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class FastLinear(nn.Linear):
    """A host's `nn.Linear`: the same parameters, the same result to rounding.

    Attributes:
        packed: the weight as oneDNN wants it, from `pack_weights`; None = laid out at every call.
        joint: of the first of several maps that `together` met: all of them packed as one.
    """

    packed: Tensor | None = None
    joint: _Joint | None = None

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in] -> [..., out]`."""
        return linear(input, self.weight, self.bias, self.packed)

    def __getstate__(self) -> dict[str, Any]:
        # copies and pickles carry the weight alone
        return {name: value for name, value in self.__dict__.items() if name not in ("packed", "joint")}


class FastPatches(nn.Conv2d):
    """A host's convolution over patches side by side: the same parameters, the same result to rounding.

    As one product it takes four fifths of the time on the CPU.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`[b, c, height, width] -> [b, out, rows, columns]`; what is left over at the right and below is not read."""
        fits = input.dim() == 4 and input.shape[1] == self.in_channels and input.dtype is self.weight.dtype
        rows, columns = (size // most for size, most in zip(input.shape[-2:], self.kernel_size, strict=False))
        if not (fits and rows and columns and _apart() and packable(self.weight)):
            return super().forward(input)  # which says what is wrong
        weight = self.weight.flatten(1)
        b, c, (high, wide) = *input.shape[:2], self.kernel_size
        whole = input[:, :, : rows * high, : columns * wide].reshape(b, c, rows, high, columns, wide)
        patches = whole.permute(0, 2, 4, 1, 3, 5).reshape(b * rows * columns, weight.shape[1])
        return product(patches, weight, self.bias).view(b, rows, columns, len(weight)).permute(0, 3, 1, 2)


def _side_by_side(patches: nn.Conv2d) -> bool:
    apart = patches.stride == patches.kernel_size and patches.padding in ("valid", (0, 0))
    return apart and patches.dilation == (1, 1) and patches.groups == 1


def hasten(model: nn.Module) -> None:
    """Make every plain `nn.Linear` of a model a `FastLinear`, and convolutions over patches `FastPatches`.

    Parameters and their names stay.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FastLinear
        elif type(module) is nn.Conv2d and _side_by_side(module):
            module.__class__ = FastPatches


def pack_weights(model: nn.Module) -> None:
    """Lay out the weights of a model for inference. They are held twice from then on, and must not change.

    Later changes of the parameters are not seen until `unpack_weights`, or a second `pack_weights`.
    """
    unpack_weights(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, FastLinear):
                weight = module.weight.detach()
                module.packed = torch.ops.mkldnn._reorder_linear_weight(weight) if packable(weight) else None


def unpack_weights(model: nn.Module) -> None:
    """Let go of what `pack_weights` made."""
    for module in model.modules():
        if isinstance(module, FastLinear):
            module.packed = module.joint = None
