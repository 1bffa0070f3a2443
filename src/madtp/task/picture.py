"""The part of a picture that an image tower sees."""

from typing import Any

from PIL import Image


def seen(processor: Any, image: Image.Image) -> Image.Image:
    """The part that patches are cut from: of CLIP's pictures the middle, of BLIP's, which are squeezed, the whole.

    Args:
        processor: of the model.
        image: as the data has it.
    """
    how = processor.image_processor
    if not getattr(how, "do_center_crop", False):
        return image
    edge = getattr(how.size, "shortest_edge", None) if getattr(how, "do_resize", True) else None
    scale = edge / min(image.size) if edge else 1.0
    width, height = (
        min(round(getattr(how.crop_size, name) / scale), full)
        for name, full in zip(("width", "height"), image.size, strict=True)
    )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
