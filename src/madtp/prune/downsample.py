"""Fewer pixels for the dense model: the comparator that every pruning method must beat."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from madtp.prune.merge import Selection
from madtp.prune.step import Decision, Evidence


def grid(rows: int, columns: int, share: float) -> tuple[int, int]:
    """Rows and columns of patches left of `rows x columns`: the largest grid that lacks `share` of them or more.

    The rows shrink in proportion to the columns, or are one fewer: 16 x 16, 15 x 16, 15 x 15, 14 x 15, ...
    """
    most = (1 - share) * rows * columns + 1e-6
    for width in range(columns, 0, -1):
        height = max(1, round(rows * width / columns))
        for left in (height, max(1, height - 1)):
            if left * width <= most:
                return left, width
    return 1, 1


def downsample(
    pixels: Float[Tensor, "b c height width"], patch: int, share: float
) -> tuple[Float[Tensor, "b c low narrow"], int]:
    """The pictures with `share` of their patches fewer, and how many patches they had.

    Args:
        pixels: as the image tower takes them.
        patch: side of a patch in pixels.
        share: of the patches to save, in [0, 1).
    """
    rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    left, width = grid(rows, columns, share)
    if (left, width) == (rows, columns):
        return pixels, rows * columns
    # float32: half precision has no antialiasing everywhere
    wide = pixels if pixels.element_size() > 4 else pixels.float()
    small = interpolate(wide, (left * patch, width * patch), mode="bicubic", antialias=True)
    return small.to(pixels.dtype), rows * columns


def whole(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """Every token stays: what a method prunes are pictures, or weights."""
    return Decision(Selection(lengths=evidence.lengths))
