"""Which text of a batch looks at which image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from madtp.model.ragged import Ragged


@dataclass(frozen=True)
class Gaze:
    """Every text of a batch looks at one image; several may look at the same one.

    Attributes:
        image: the images looked at, each once.
        index: `[q]` which of them each text looks at, CPU.
        order: `[q]` the texts, sorted by their image; None = they are sorted as they stand.
    """

    image: Ragged
    index: Tensor
    order: Tensor | None

    @classmethod
    def of(cls, image: Ragged, index: Tensor) -> "Gaze":
        """Texts that look at `index [q]` (CPU, any order) of `image`; what nobody looks at is left out."""
        looked_at, index = index.unique(return_inverse=True)
        if len(looked_at) < len(image.lengths):
            image = image.select(looked_at)
        order = None if bool((index.diff() >= 0).all()) else index.argsort(stable=True)
        return cls(image, index, order)

    def queries(self, lengths: Tensor) -> Tensor:
        """`[b]` queries of each image, given the tokens `[q]` of each text."""
        return torch.zeros_like(self.image.lengths).index_add_(0, self.index, lengths)


def one_image(image_index: Tensor | None, images: int, texts: int, what: str = "questions") -> Tensor:
    """`image_index [q]` on the CPU, its default filled in: one text an image, in order.

    Raises:
        ValueError: it descends, names an image that is not there, or is needed and missing.
    """
    if image_index is None:
        if images != texts:
            raise ValueError(f"{texts} {what} for {images} images: image_index must say which belongs to which")
        return torch.arange(images)
    index = image_index.cpu()
    if index.shape != (texts,) or bool((index.diff() < 0).any()):
        some = index.tolist()[:9]
        raise ValueError(f"image_index must hold {texts} image numbers in ascending order, got {some}...")
    return _in_range(index, images)


def paired(image_index: Tensor | None, images: int, texts: int, needed: bool) -> Tensor | None:
    """`image_index [q]` on the CPU in any order, its default filled in: one text an image, or all of a single image.

    None where the numbers differ, none is given and none is needed.

    Raises:
        ValueError: it is of another length, names an image that is not there, or is needed and missing.
    """
    if image_index is not None:
        index = image_index.cpu()
        if index.shape != (texts,):
            raise ValueError(f"image_index must hold {texts} image numbers, got {list(index.shape)}")
        return _in_range(index, images)
    if images == texts:
        return torch.arange(images)
    if images == 1:
        return torch.zeros(texts, dtype=torch.long)
    if needed:
        raise ValueError(f"{texts} texts for {images} images: image_index must say which belongs to which")
    return None


def two_images(image_index: Tensor | None, images: int, texts: int) -> Tensor:
    """`image_index [q, 2]` on the CPU, its default filled in: images 2i and 2i + 1 for text i.

    Raises:
        ValueError: it names an image that is not there, has another shape, or is needed and missing.
    """
    if image_index is None:
        if images != 2 * texts:
            raise ValueError(f"{texts} statements for {images} images: image_index must say which two each is about")
        return torch.arange(images).view(texts, 2)
    index = image_index.cpu()
    if index.shape != (texts, 2):
        raise ValueError(f"image_index must hold two image numbers for {texts} statements, got {list(index.shape)}")
    return _in_range(index, images)


def _in_range(index: Tensor, images: int) -> Tensor:
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < images:
        raise ValueError(f"image_index must lie in 0..{images - 1}, got {int(index.min())}..{int(index.max())}")
    return index
