"""MAG, multi-modality alignment guidance: semantic tokens shared by image and text (MADTP, section 3.2)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def affinity(query: Float[Tensor, "... d"], semantic: Float[Tensor, "k d"]) -> Float[Tensor, "... k"]:
    """`A = q S^T`, the unscaled dot product of every token with every semantic token (the paper's token attention).

    Args:
        query: content tokens in the width of the semantic tokens.
        semantic: the K learnable tokens shared by both modalities and all layers.
    """
    return query @ semantic.T


def semantic_feature(
    affinity: Float[Tensor, "b n k"], query: Float[Tensor, "b n d"], content: Bool[Tensor, "b n"]
) -> Float[Tensor, "b k d"]:
    """`F = softmax_over_tokens(A / sqrt(D))^T q`: what each semantic token gathers from one block of one tower.

    Tokens outside `content` take no part. Summed over a tower's blocks by the caller.
    """
    # the lowest finite number, not -inf: an instance without content gives F = 0, not NaN
    lowest = torch.finfo(affinity.dtype).min
    logits = (affinity / query.shape[-1] ** 0.5).masked_fill(~content[..., None], lowest)
    return torch.softmax(logits, dim=1).transpose(1, 2) @ query.masked_fill(~content[..., None], 0.0)


def alignment_loss(image: Float[Tensor, "b k d"], text: Float[Tensor, "b k d"]) -> Float[Tensor, " b"]:
    """`L_sim = mean_k (1 - cos(F_image[k], F_text[k]))` of every instance, in [0, 2]; lower = better aligned."""
    return (1 - torch.cosine_similarity(image, text, dim=-1)).mean(-1)
