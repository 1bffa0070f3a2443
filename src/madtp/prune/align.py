"""MAG, multi-modality alignment guidance: semantic tokens shared by image and text (MADTP, section 3.2)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize


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


def contrastive_alignment_loss(
    image: Float[Tensor, "b k d"], text: Float[Tensor, "b k d"], picture: Int[Tensor, " b"], warmth: float = 0.07
) -> Float[Tensor, " b"]:
    """A text's own image against the other images of its batch, and the other way round; not in the paper.

    `s[i, j] = mean_k cos(F_text[i, k], F_image[j, k]) / warmth`; the loss of instance i is the mean of the
    cross-entropies of row i and of column i of `s`, whose right answer is i. Lower = better told apart.

    Args:
        image: what every text's image gathered; the same image stands once for each of its texts.
        text: what the texts gathered.
        picture: which image it is: the other texts of the same one are neither right nor wrong, and left out.
        warmth: temperature of the softmax, as in contrastive training of image and text.
    """
    count = text.shape[1]
    text, image = (normalize(feature, dim=-1).flatten(1) for feature in (text, image))
    scores = text @ image.T / (count * warmth)
    same = picture[:, None] == picture
    own = torch.eye(len(picture), dtype=torch.bool, device=picture.device)
    scores = scores.masked_fill(same & ~own, -torch.inf)
    return -(scores.log_softmax(1).diagonal() + scores.log_softmax(0).diagonal()) / 2


ALIGNMENTS = ("cosine", "contrastive")
