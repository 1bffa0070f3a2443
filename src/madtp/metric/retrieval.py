"""Image-text retrieval: the best k of a collection, and recall at k, in memory that does not grow with the collection.

The names are BLIP's: ``txt_r1`` is the share of images for which a text of theirs is retrieved first, ``img_r1`` the
share of texts for which their image is.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

KS = (1, 5, 10)
CHUNK = 512  # with its copies such a square of scores is some 20 MB; larger ones are no faster
_LOW = 2**32 - 1  # the lower half of 64 bits


class Ranking(NamedTuple):
    """For each query, candidates and what they scored, in any order."""

    indices: Int[Tensor, "q k"]
    scores: Float[Tensor, "q k"]

    def best(self, k: int) -> Int[Tensor, "q n"]:
        """The ``k`` best candidates, best first; of equal scores the one of lower index comes first, NaN last."""
        by_index = self.indices.argsort(dim=1)
        scores = self.scores.gather(1, by_index).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        order = by_index.gather(1, scores.argsort(dim=1, descending=True, stable=True))
        return self.indices.gather(1, order)[:, :k]


@torch.no_grad()
def topk_chunked(queries: Float[Tensor, "q d"], keys: Float[Tensor, "n d"], k: int, *, chunk: int = CHUNK) -> Ranking:
    """The ``k`` keys of largest dot product with each query, best first, or all where there are fewer.

    Exact. Of equal scores the one of lower index is the better, as a stable sort of the whole row would have it; NaN is
    the worst. At most ``chunk * (chunk + k)`` scores exist at a time, whatever q and n are.

    Args:
        queries, keys: features on one device; multiplied and compared as float32.
        k: at least 1.
        chunk: queries and keys taken at a time.
    """
    if k < 1 or chunk < 1:
        raise ValueError(f"k: {k}, chunk: {chunk}, expected at least 1")
    k = min(k, len(keys))
    blocks = []
    for some in queries.split(chunk):
        best = torch.empty(len(some), 0, dtype=torch.int64, device=queries.device)
        for start in range(0, len(keys), chunk):
            scores = some.float() @ keys[start : start + chunk].float().T
            sortable = torch.cat([best, _sortable(scores, start)], 1)
            best = sortable.topk(min(k, sortable.shape[1]), dim=1).values
        blocks.append(best)
    best = torch.cat(blocks) if blocks else torch.empty(0, k, dtype=torch.int64, device=queries.device)
    return Ranking(_LOW - (best & _LOW), _score(best))


def _sortable(scores: Float[Tensor, "q n"], start: int) -> Int[Tensor, "q n"]:
    """Score and index of each key in one integer, larger = better: no two are equal, so that any top-k is stable.

    The bits of a positive float, read as an integer, are in the order of the floats; those of a negative one are in the
    reverse order, which flipping all but the sign mends.
    """
    scores = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) + 0.0  # -0.0 becomes 0.0
    bits = scores.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    indices = torch.arange(start, start + scores.shape[1], device=scores.device)
    return (ordered.long() << 32) + (_LOW - indices)


def _score(sortable: Int[Tensor, "q k"]) -> Float[Tensor, "q k"]:
    ordered = (sortable >> 32).int()
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


def recall_from_ranking(
    ranking: Ranking, query_group: Int[Tensor, " q"], key_group: Int[Tensor, " n"], *, ks: Sequence[int] = KS
) -> dict[int, float]:
    """Share of queries that have a key of their group among their ``k`` best candidates, 0..1, higher = better.

    A query whose group has no key at all does not count. A candidate that is not in the ranking is never found: where k
    is more than the candidates, recall is a lower bound. Of equal scores the key of lower index comes first, NaN last.

    Args:
        ranking: candidates, e.g. of `topk_chunked`, with the scores to rank them by, e.g. of a matching head.
        query_group: what each query belongs to: for texts as queries, the image.
        key_group: what each key belongs to. Nothing belongs to a negative number.

    Raises:
        ValueError: no query has anything to find.
    """
    scored = (query_group >= 0) & torch.isin(query_group, key_group)
    if not scored.any():
        raise ValueError("recall of no queries is not defined")
    found = key_group[ranking.best(max(ks))] == query_group[:, None]
    return {k: found[scored, :k].any(1).double().mean().item() for k in ks}


def recalls_of_rankings(
    texts: Ranking, images: Ranking, text_image: Int[Tensor, " m"], *, ks: Sequence[int] = KS
) -> dict[str, float]:
    """Recall both ways from rankings, e.g. re-ranked ones.

    Args:
        texts: for each of n images, candidate texts.
        images: for each of m texts, candidate images.
        text_image: the image of each text; -1 = of none of these, a distractor.

    Returns:
        ``txt_r1``, ``txt_r5``, ... (texts for an image), ``txt_r_mean``, the same with ``img_`` (images for a text),
        and ``r_mean``, the mean of the two means. Shares 0..1, higher = better.

    Raises:
        ValueError: no image has a text.
    """
    image = torch.arange(len(texts.indices), device=text_image.device)
    both = {
        "txt": recall_from_ranking(texts, image, text_image, ks=ks),
        "img": recall_from_ranking(images, text_image, image, ks=ks),
    }
    named: dict[str, float] = {}
    for way, recall in both.items():
        named |= {f"{way}_r{k}": share for k, share in recall.items()} | {f"{way}_r_mean": fmean(recall.values())}
    return named | {"r_mean": fmean([named["txt_r_mean"], named["img_r_mean"]])}


def recalls(
    image_features: Float[Tensor, "n d"],
    text_features: Float[Tensor, "m d"],
    text_image: Int[Tensor, " m"],
    *,
    ks: Sequence[int] = KS,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """Recall both ways of features compared by dot product, several texts an image; see `recalls_of_rankings`.

    Args:
        image_features, text_features: normalised where the model compares by cosine.
        text_image: the image of each text, in -1 .. n-1; -1 = of none of these, a distractor.
        chunk: see `topk_chunked`.

    Raises:
        ValueError: no image has a text, or a text is of an image that is not there.
    """
    if len(text_image) and int(text_image.max()) >= len(image_features):
        raise ValueError(f"a text belongs to image {int(text_image.max())} of {len(image_features)}")
    texts = topk_chunked(image_features, text_features, max(ks), chunk=chunk)
    images = topk_chunked(text_features, image_features, max(ks), chunk=chunk)
    return recalls_of_rankings(texts, images, text_image, ks=ks)
