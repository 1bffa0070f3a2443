"""Overlays: clear where kept, dimmed by weight and hatched where merged."""

import numpy as np
import pytest
from PIL import Image

from madtp.report import patch_overlay, strip
from madtp.report.view import patch_grid

WHITE = Image.new("RGB", (60, 40), "white")


def brightness(picture: Image.Image, grid: tuple[int, int]) -> np.ndarray:
    """Median grey value by patch: [rows, columns]; the median sees neither hatch nor edge."""
    pixels = np.asarray(picture.convert("L"), dtype=float)
    rows = np.array_split(pixels, grid[0], axis=0)
    return np.array([[np.median(patch) for patch in np.array_split(row, grid[1], axis=1)] for row in rows])


def test_all_kept_is_the_image_itself() -> None:
    overlay = patch_overlay(WHITE, np.ones(6), (2, 3), size=60)
    assert overlay.size == (60, 40)
    assert np.array_equal(np.asarray(overlay), np.asarray(WHITE))


def test_merged_patches_are_dimmed_by_their_weight() -> None:
    share = np.array([1.0, 0.5, 0.3, 0.1, 0.0, 1.0])  # row by row
    seen = brightness(patch_overlay(WHITE, share, (2, 3), size=300), (2, 3)).reshape(-1)
    assert seen[0] == seen[5] == 255
    assert 255 > seen[1] > seen[2] > seen[3] > seen[4] > 20


def test_merged_patches_are_hatched_and_kept_ones_edged() -> None:
    pixels = np.asarray(patch_overlay(WHITE, np.array([1.0, 0.5]), (1, 2), size=200))
    kept, merged = np.split(pixels, 2, axis=1)
    assert len(np.unique(merged.reshape(-1, 3), axis=0)) == 2  # the veil, and the lines of the hatch
    assert {tuple(colour) for colour in np.unique(kept.reshape(-1, 3), axis=0)} == {(255, 255, 255), (255, 140, 0)}
    assert (kept[:, -1] == (255, 140, 0)).all()  # the edge lies along the border only
    assert (kept[:, :-1] == 255).all()


def test_the_place_of_a_patch() -> None:
    share = np.zeros(15)
    share[1 * 5 + 3] = 1.0  # row 1, column 3 of 3 x 5
    seen = brightness(patch_overlay(Image.new("RGB", (50, 30), "white"), share, (3, 5), size=250), (3, 5))
    assert np.argwhere(seen == 255).tolist() == [[1, 3]]


def test_shares_that_are_no_weights_are_drawn_as_none() -> None:
    odd = patch_overlay(WHITE, np.array([1.0, np.nan, -0.5, 0.2, 0.1, 0.3]), (2, 3))
    plain = patch_overlay(WHITE, np.array([1.0, 0.0, 0.0, 0.2, 0.1, 0.3]), (2, 3))
    assert np.array_equal(np.asarray(odd), np.asarray(plain))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_mode_of_image(mode: str) -> None:
    assert patch_overlay(WHITE.convert(mode), np.zeros(4, dtype=np.float32)).mode == "RGB"


def test_grid() -> None:
    assert patch_grid(576) == (24, 24)
    assert patch_grid(144, (640, 480)) == (12, 12)  # square pictures are what the models see
    assert patch_grid(6, (60, 40)) == (2, 3)
    assert patch_grid(6, (40, 60)) == (3, 2)
    assert patch_grid(7) in {(1, 7), (7, 1)}
    with pytest.raises(ValueError, match="at least one patch"):
        patch_grid(0)
    with pytest.raises(ValueError, match="5 patches do not fill a grid of 2 x 3"):
        patch_overlay(WHITE, np.zeros(5), (2, 3))


def test_strip_holds_the_image_and_a_frame_for_each_block() -> None:
    blocks = [np.ones(6), np.zeros(6)]
    picture = np.asarray(strip(WHITE, blocks, (2, 3), size=80))
    assert picture.shape == (53, 3 * 80 + 2 * 2, 3)
    assert np.array_equal(picture[:, :80], picture[:, 82:162])
    assert np.array_equal(picture[:, 164:], np.asarray(patch_overlay(WHITE, blocks[1], (2, 3), size=80)))
