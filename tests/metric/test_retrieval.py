"""Retrieval in chunks: against the whole matrix, by hand, and under ties."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from madtp.metric.retrieval import Ranking, recall_from_ranking, recalls, recalls_of_rankings, topk_chunked


def whole(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best keys by a stable sort of the full matrix."""
    scores, indices = torch.sort(queries @ keys.T, dim=1, descending=True, stable=True)
    return scores[:, :k], indices[:, :k]


def naive_recalls(images: Tensor, texts: Tensor, text_image: list[int], ks: tuple[int, ...]) -> dict[str, float]:
    """Loops over the full matrix."""
    hits: dict[str, list[list[bool]]] = {"txt": [], "img": []}
    for i, image in enumerate(images):
        order = sorted(range(len(texts)), key=lambda j: (-float(image @ texts[j]), j))
        if i in text_image:
            hits["txt"].append([any(text_image[j] == i for j in order[:k]) for k in ks])
    for j, text in enumerate(texts):
        order = sorted(range(len(images)), key=lambda i: (-float(images[i] @ text), i))
        if text_image[j] >= 0:
            hits["img"].append([text_image[j] in order[:k] for k in ks])
    return {
        f"{way}_r{k}": sum(found[n] for found in rows) / len(rows)
        for way, rows in hits.items()
        for n, k in enumerate(ks)
    }


@given(
    st.integers(0, 2**31),
    st.integers(1, 23),
    st.integers(1, 29),
    st.integers(1, 11),
    st.integers(1, 31),
    st.integers(1, 3),
)
def test_equals_a_stable_sort_whatever_the_chunk(seed: int, q: int, n: int, k: int, chunk: int, largest: int) -> None:
    """Small integers: sums are exact, ties and zeros of both signs are common."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-largest, largest + 1, (q, 3), generator=generator).float()
    keys = torch.randint(-largest, largest + 1, (n, 3), generator=generator).float() * 0.5
    scores, indices = whole(queries, keys, k)
    ranking = topk_chunked(queries, keys, k, chunk=chunk)
    assert torch.equal(ranking.indices, indices)
    assert torch.equal(ranking.scores, scores)


@given(
    st.integers(0, 2**31),
    st.integers(2, 13),
    st.integers(1, 37),
    st.integers(1, 17),
    st.booleans(),
)
def test_recalls_equal_loops_over_the_matrix(seed: int, n: int, m: int, chunk: int, ties: bool) -> None:
    """Several texts an image, images without any, distractors that belong to none."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-2, 3, (n, 5), generator=generator).float()
    text_image = torch.randint(-1, n - 1, (m,), generator=generator)  # the last image has no text
    text_image[0] = 0
    noise = torch.randint(-1, 2, (m, 5), generator=generator)
    texts = images[text_image] * (2 - ties) + noise
    got = recalls(images, texts, text_image, ks=(1, 2, 7), chunk=chunk)
    expected = naive_recalls(images, texts, text_image.tolist(), (1, 2, 7))
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert got["txt_r1"] <= got["txt_r2"] <= got["txt_r7"]


def test_by_hand() -> None:
    """Three images, four texts. Texts 0 and 1 are of image 0, 2 of image 1, 3 of none; image 2 has none."""
    images = torch.eye(3)
    texts = torch.tensor([[3.0, 1, 0], [0, 2, 1], [0, 1, 0], [0, 0, 5]])
    got = recalls(images, texts, torch.tensor([0, 0, 1, -1]), ks=(1, 2))
    assert got == pytest.approx(
        {
            "txt_r1": 1 / 2,  # image 0 finds text 0, image 1 finds text 1, which is not its own
            "txt_r2": 1 / 2,  # nor is text 0, which comes before text 2 at the same score
            "txt_r_mean": 1 / 2,
            "img_r1": 2 / 3,  # text 1 finds image 1
            "img_r2": 2 / 3,
            "img_r_mean": 2 / 3,
            "r_mean": 7 / 12,
        }
    )


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that an operation gave."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, tuple) else [made]:
            if isinstance(x, Tensor) and not func.is_view:
                self.bytes = max(self.bytes, x.nbytes)
        return made


def test_scores_at_hand_are_few_whatever_the_number_of_texts(generator: torch.Generator) -> None:
    images, texts = torch.randn(1103, 3, generator=generator), torch.randn(2203, 3, generator=generator)
    for queries, keys in ((images, texts), (texts, images)):
        with Largest() as largest:
            topk_chunked(queries, keys, 128)
        assert 0 < largest.bytes < 3e6  # the whole is 19 MB


def test_collapsed_features_find_no_more_than_chance() -> None:
    text_image = torch.arange(7).repeat_interleave(2)
    for value in (1.0, torch.nan):
        got = recalls(torch.full((7, 3), value), torch.full((14, 3), value), text_image, chunk=5)
        assert got["txt_r1"] == got["img_r1"] == pytest.approx(1 / 7)


def test_half_precision_and_scores_out_of_range(generator: torch.Generator) -> None:
    queries, keys = (torch.randn(n, 5, generator=generator).half() for n in (7, 11))
    ranking = topk_chunked(queries, keys, 3, chunk=4)
    assert torch.equal(ranking.indices, whole(queries.float(), keys.float(), 3)[1])
    extreme = topk_chunked(torch.tensor([[1.0]]), torch.tensor([[0.0], [torch.nan], [torch.inf], [-1e-45], [-0.0]]), 13)
    assert extreme.indices.tolist() == [[2, 0, 4, 3, 1]]


def test_re_ranked_candidates() -> None:
    """Scores of another model decide among the candidates; who is no candidate is never found."""
    groups = torch.tensor([0, 1, 2, 0])
    candidates = torch.tensor([[1, 0], [2, 1], [0, 1]])
    query = torch.arange(3)
    first = Ranking(candidates, torch.tensor([[2.0, 1], [2, 1], [2, 1]]))
    assert recall_from_ranking(first, query, groups, ks=(1, 2)) == pytest.approx({1: 0.0, 2: 2 / 3})
    again = Ranking(candidates, torch.tensor([[2.0, 3], [1, 1], [2, 1]]))  # a tie: the lower index, which is 1
    assert recall_from_ranking(again, query, groups, ks=(1, 2)) == pytest.approx({1: 2 / 3, 2: 2 / 3})
    lost = Ranking(candidates, torch.tensor([[torch.nan, 3], [1, torch.nan], [2, 1]]))
    assert recall_from_ranking(lost, query, groups, ks=(1,)) == pytest.approx({1: 1 / 3})
    shuffled = Ranking(candidates.flip(1), again.scores.flip(1))
    assert recall_from_ranking(shuffled, query, groups) == recall_from_ranking(again, query, groups)


def test_rankings_give_what_features_give(generator: torch.Generator) -> None:
    images, texts = torch.randn(11, 5, generator=generator), torch.randn(23, 5, generator=generator)
    text_image = torch.arange(23) % 11
    by_text, by_image = topk_chunked(images, texts, 10), topk_chunked(texts, images, 10)
    assert recalls_of_rankings(by_text, by_image, text_image) == recalls(images, texts, text_image, chunk=3)


def test_what_cannot_be_scored() -> None:
    one = torch.ones(1, 3)
    with pytest.raises(ValueError, match="no queries"):
        recalls(one, one, torch.tensor([-1]))
    with pytest.raises(ValueError, match="image 1 of 1"):
        recalls(one, one, torch.tensor([1]))
    with pytest.raises(ValueError, match="at least 1"):
        topk_chunked(one, one, 0)
    assert topk_chunked(one, torch.ones(0, 3), 5).indices.shape == (1, 0)
    assert topk_chunked(torch.ones(0, 3), one, 5).indices.shape == (0, 1)
