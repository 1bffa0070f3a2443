"""The part of a picture that the towers see, against what the processors make of it."""

import numpy as np
import pytest
import torch
from PIL import Image

from madtp.task.picture import seen
from small import nano_processor


@pytest.mark.parametrize("size", [(63, 21), (21, 63), (42, 42), (50, 23)])
@pytest.mark.parametrize("kind", ["vqa", "clip"])
def test_the_part_seen_gives_the_same_pixels(kind: str, size: tuple[int, int]) -> None:
    ramp = np.add.outer(np.arange(size[1]) * 2, np.arange(size[0]) * 1).astype(np.uint8)  # tells every place apart
    image = Image.fromarray(np.stack([ramp] * 3, -1))
    processor = nano_processor(kind)

    def pixels(of: Image.Image) -> torch.Tensor:
        values: torch.Tensor = processor.image_processor(of, return_tensors="pt")["pixel_values"][0]
        return values

    part = seen(processor, image)
    assert (part.size == image.size) is (kind == "vqa" or size[0] == size[1])
    # a pixel of the picture at most, where its middle does not fall on one
    torch.testing.assert_close(pixels(part), pixels(image), atol=0.06, rtol=0)
