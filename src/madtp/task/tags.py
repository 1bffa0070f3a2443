"""Training an image tower from scratch to say what is in a picture, before anything is asked about it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from madtp.task.gather import weigh


def tagging_loss(
    model: Any, pixel_values: Tensor, tags: Sequence[Sequence[str]], vocabulary: Mapping[str, int]
) -> Tensor:
    """How well the image's pooled token tells which words are true of the picture; trains the image tower alone.

    From scratch, an image tower learns shapes late: most texts cannot be understood yet, and their gradient is noise.
    This loss asks for every word on its own (binary cross-entropy, summed over words): what is learned already stays
    out of the way of what is not. It needs no parameters of its own: the classifier is the model's word embedding.

    Args:
        model: with `see(pixel_values)`, ragged image tokens, and `word_vectors`, `[vocabulary, c]`.
        pixel_values: `[b, 3, height, width]`.
        tags: words of each picture; those outside of `vocabulary` are passed over.
        vocabulary: word -> token id.
    """
    column = {word: i for i, word in enumerate(vocabulary)}
    ids = torch.tensor(list(vocabulary.values()), device=pixel_values.device)
    present = torch.zeros(len(tags), len(column))
    for i, words in enumerate(tags):
        present[i, [column[word] for word in words if word in column]] = 1.0
    vectors = model.word_vectors.index_select(0, ids)
    logits = model.see(pixel_values).first().float() @ vectors.float().T
    present = present.to(logits.device)
    mean = F.binary_cross_entropy_with_logits(logits, present, reduction="sum") / len(present)
    return mean * weigh(len(present), mean.device)
