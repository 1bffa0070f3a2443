"""Which text looks at which image: any order, what nobody looks at left out. Wrong calls: the models' own tests."""

import torch

from madtp.model.gaze import Gaze, one_image, paired, two_images
from madtp.model.ragged import Ragged

IMAGE = Ragged(torch.arange(11.0)[:, None], torch.tensor([2, 1, 3, 5]))


def test_by_hand() -> None:
    gaze = Gaze.of(IMAGE, torch.tensor([3, 0, 3, 2]))
    assert gaze.image.lengths.tolist() == [2, 3, 5]
    assert gaze.image.values[:, 0].tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert gaze.index.tolist() == [2, 0, 2, 1]
    assert gaze.order is not None
    assert gaze.order.tolist() == [1, 3, 0, 2]
    assert gaze.queries(torch.tensor([7, 13, 17, 19])).tolist() == [13, 19, 24]


def test_sorted_texts_and_images_that_all_are_looked_at_stay_as_they_are() -> None:
    gaze = Gaze.of(IMAGE, torch.tensor([0, 1, 1, 2, 3]))
    assert gaze.image is IMAGE
    assert gaze.order is None
    assert gaze.index.tolist() == [0, 1, 1, 2, 3]


def test_defaults() -> None:
    assert one_image(None, 3, 3).tolist() == [0, 1, 2]
    assert two_images(None, 6, 3).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert paired(None, 3, 3, needed=True).tolist() == [0, 1, 2]
    assert paired(None, 1, 3, needed=True).tolist() == [0, 0, 0]
    assert paired(None, 2, 3, needed=False) is None
    assert paired(torch.tensor([1, 0, 1]), 2, 3, needed=False).tolist() == [1, 0, 1]
