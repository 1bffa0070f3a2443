"""Which text of a batch belongs to which image, where no text looks at an image."""

import torch
from torch import Tensor


def paired(image_index: Tensor | None, images: int, texts: int, needed: bool) -> Tensor | None:
    """`image_index [q]` on the CPU, its default filled in; None where there is none and none is needed.

    Raises:
        ValueError: it is of another length, names an image that is not there, or is needed and missing.
    """
    if image_index is not None:
        index = image_index.cpu()
        if index.shape != (texts,) or bool(((index < 0) | (index >= images)).any()):
            raise ValueError(f"image_index must hold {texts} numbers in 0..{images - 1}, got {index.tolist()[:9]}...")
        return index
    if images == texts:
        return torch.arange(images)
    if images == 1:
        return torch.zeros(texts, dtype=torch.long)
    if needed:
        raise ValueError(f"{texts} texts for {images} images: image_index must say which belongs to which")
    return None
