"""Pairs of earlier batches, for a contrast with more of them than a batch holds."""

import torch
from torch import Tensor, nn


class PairQueue(nn.Module):
    """The last `size` pairs: features of image and text, and the image's number. Its buffers are its state.

    Args:
        size: most pairs held; 0 = none.
        width: of a feature.
    """

    image: Tensor
    text: Tensor
    ids: Tensor
    pushed: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("image", torch.zeros(size, width))
        self.register_buffer("text", torch.zeros(size, width))
        self.register_buffer("ids", torch.zeros(size, dtype=torch.long))
        self.register_buffer("pushed", torch.tensor(0))  # pairs so far, those that had to leave included

    def behind(self, image: Tensor, text: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[b, width]`, `[b, width]` and `[b]` of a batch, with the queue's pairs behind them."""
        held = min(int(self.pushed), len(self.ids))
        return (
            torch.cat([image, self.image[:held].to(image.dtype)]),
            torch.cat([text, self.text[:held].to(text.dtype)]),
            torch.cat([ids, self.ids[:held]]),
        )

    @torch.no_grad()
    def push(self, image: Tensor, text: Tensor, ids: Tensor) -> None:
        """Take in a batch of any size; the oldest pairs make way for the newest."""
        size, new = len(self.ids), len(ids)
        keep = min(new, size)
        if keep:
            place = (int(self.pushed) + torch.arange(new - keep, new, device=ids.device)) % size
            self.image[place] = image[new - keep :].to(self.image.dtype)
            self.text[place] = text[new - keep :].to(self.text.dtype)
            self.ids[place] = ids[new - keep :]
        self.pushed += new
