"""Pictures of what pruning did: which patches survive, which were merged and with what weight."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Share = npt.NDArray[np.floating]

_RESAMPLING = Image.Resampling.HAMMING  # sharp, and without the bright rims of Lanczos around flat shapes
_VEIL = np.array([36.0, 40.0, 48.0])
_DARKEST, _LIGHTEST = 0.86, 0.42  # how much of the veil lies over a merged patch: of no weight, of the largest weight
_HATCH, _HATCH_STRENGTH = 7, 0.30  # pixels between hatch lines; how white they are
_EDGE = np.array([255.0, 140.0, 0.0])


def is_kept(share: Share) -> npt.NDArray[np.bool_]:
    """Which patches are kept as themselves: a share of 1, to rounding."""
    return np.asarray(share) >= 1 - 1e-6


def patch_grid(patches: int, size: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Rows and columns of ``patches`` patches: a square where it can be, else what fits ``size`` (width, height) best.

    Raises:
        ValueError: no patches.
    """
    if patches < 1:
        raise ValueError(f"a picture needs at least one patch, got {patches}")
    side = math.isqrt(patches)
    if side * side == patches:
        return side, side
    width, height = size
    shapes = [(rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0]
    return min(shapes, key=lambda shape: abs(math.log(shape[0] * width / (shape[1] * height))))


def patch_overlay(
    image: Image.Image, share: Share, grid: tuple[int, int] | None = None, *, size: int = 160
) -> Image.Image:
    """The image with merged patches dimmed and hatched, kept patches clear and edged.

    Args:
        image: the picture the patches were cut from.
        share: ``[n_patches]``, row by row; 1 = kept as itself, less = merged, carrying this weight in its token. Among
            the merged patches the one with the largest weight is the least dimmed.
        grid: rows and columns of patches; None = `patch_grid`.
        size: longer side of the result in pixels.

    Raises:
        ValueError: ``share`` does not fill the grid.
    """
    share = np.nan_to_num(np.asarray(share, dtype=np.float64).reshape(-1))
    pixels, patch = _patches(image, share.size, grid, size)
    y, x = np.arange(patch.shape[0])[:, None], np.arange(patch.shape[1])[None, :]
    kept = is_kept(share)
    veil = np.where(kept, 0.0, _DARKEST - (_DARKEST - _LIGHTEST) * _relative(share, kept))[patch][..., None]
    pixels = (1 - veil) * pixels + veil * _VEIL
    hatched = ((x + y) % _HATCH == 0) & ~kept[patch]
    pixels[hatched] += _HATCH_STRENGTH * (255 - pixels[hatched])
    pixels[_edges(kept[patch])] = _EDGE
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def tinted(
    image: Image.Image, colour: Share, strength: Share, grid: tuple[int, int] | None = None, *, size: int = 160
) -> Image.Image:
    """The image in grey with a colour laid over every patch.

    Args:
        image: the picture the patches were cut from.
        colour: ``[n_patches, 3]``, 0..255.
        strength: ``[n_patches]``, 0..1: how much of the colour covers the image.
        grid: rows and columns of patches; None = `patch_grid`.
        size: longer side of the result in pixels.

    Raises:
        ValueError: ``strength`` does not fill the grid.
    """
    strength = np.asarray(strength, dtype=np.float64).reshape(-1)
    pixels, patch = _patches(image.convert("L"), strength.size, grid, size)
    veil = strength[patch][..., None]
    pixels = (1 - veil) * pixels + veil * np.asarray(colour, dtype=np.float64)[patch]
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _patches(
    image: Image.Image, count: int, grid: tuple[int, int] | None, size: int
) -> tuple[Share, npt.NDArray[np.integer]]:
    """The image's pixels, its longer side ``size``, and ``[height, width]`` the patch that each lies in."""
    rows, columns = grid or patch_grid(count, image.size)
    if rows * columns != count:
        raise ValueError(f"{count} patches do not fill a grid of {rows} x {columns}")
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    pixels = np.asarray(image.convert("RGB").resize((width, height), _RESAMPLING), dtype=np.float64)
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    return pixels, (y * rows // height) * columns + x * columns // width


def _relative(share: Share, kept: npt.NDArray[np.bool_]) -> Share:
    """Weight of the merged patches against the largest of them, 0..1; the root brings out small differences."""
    merged = np.where(kept, 0.0, np.clip(share, 0.0, 1.0))
    return np.sqrt(merged / max(float(merged.max(initial=0.0)), 1e-12))


def _edges(kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Kept pixels that touch a merged one: ``[height, width]``."""
    around = np.pad(kept, 1, mode="edge")
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return kept & ~inside


def strip(
    image: Image.Image, blocks: Sequence[Share], grid: tuple[int, int] | None = None, *, size: int = 160
) -> Image.Image:
    """One picture: the image itself, then what survives after each block, left to right.

    Args:
        image: the picture the patches were cut from.
        blocks: per block the shares, as in `patch_overlay`.
        grid: rows and columns of patches; None = `patch_grid`.
        size: longer side of each frame in pixels.
    """
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    plain = image.convert("RGB").resize((width, height), _RESAMPLING)
    frames = [plain, *(patch_overlay(image, share, grid, size=size) for share in blocks)]
    gap = max(2, size // 40)
    whole = Image.new("RGB", (len(frames) * (width + gap) - gap, height), "white")
    for place, frame in enumerate(frames):
        whole.paste(frame, (place * (width + gap), 0))
    return whole
