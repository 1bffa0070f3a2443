"""Smaller pictures: which grid a share gives, and what becomes of the pixels."""

import torch

from instances import batch, evidence, features
from madtp.prune import METHODS
from madtp.prune.downsample import downsample, grid


def test_grids_by_hand() -> None:
    assert [grid(4, 4, s) for s in (0.0, 0.25, 0.26, 0.5, 0.9, 0.99)] == [
        (4, 4),
        (3, 4),
        (3, 3),
        (2, 3),
        (1, 1),
        (1, 1),
    ]
    assert [grid(16, 16, s) for s in (0.01, 0.1, 0.5)] == [(15, 16), (15, 15), (11, 11)]
    assert [grid(4, 8, s) for s in (0.0, 0.2, 0.3)] == [(4, 8), (3, 8), (3, 7)]


def test_more_share_never_leaves_more() -> None:
    left = [rows * columns for rows, columns in (grid(13, 13, s / 100) for s in range(100))]
    assert left[0] == 169 and left == sorted(left, reverse=True)
    assert all(n <= (1 - s / 100) * 169 + 1e-6 for s, n in enumerate(left[:99]))
    assert len(set(left)) == 25  # 13 x 13, 12 x 13, 12 x 12, ... 1 x 1


def test_pixels_are_averaged_and_every_picture_is_its_own() -> None:
    pixels = torch.rand(3, 3, 20, 20)
    small, patches = downsample(pixels, 5, 0.7)
    assert small.shape == (3, 3, 10, 10) and patches == 16
    torch.testing.assert_close(small.mean((2, 3)), pixels.mean((2, 3)), atol=0.03, rtol=0)
    torch.testing.assert_close(downsample(pixels[1:2], 5, 0.7)[0][0], small[1], rtol=0, atol=1e-6)
    flat = torch.full((1, 3, 20, 20), 0.7, dtype=torch.bfloat16)
    assert downsample(flat, 5, 0.7)[0].dtype == torch.bfloat16
    torch.testing.assert_close(downsample(flat, 5, 0.7)[0], flat[..., :10, :10])
    assert downsample(pixels, 5, 0.0)[0] is pixels


def test_its_blocks_prune_nothing() -> None:
    instances = batch()
    x = features(instances)
    assert METHODS["downsample"].decide(evidence(instances), 0.5, False).selection.apply(x) is x
