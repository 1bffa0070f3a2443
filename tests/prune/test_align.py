"""MAG against its slow twins, and by hand."""

import math

import pytest
import torch

import oracle
from instances import DTYPES, RAGGED
from madtp.prune import affinity, alignment_loss, contrastive_alignment_loss, semantic_feature

COUNT, WIDTH = 7, 5


@pytest.mark.parametrize(("dtype", "atol"), DTYPES.items())
def test_affinity(dtype: torch.dtype, atol: float) -> None:
    torch.manual_seed(0)
    query, semantic = torch.randn(11, WIDTH, dtype=dtype), torch.randn(COUNT, WIDTH, dtype=dtype)
    expected = torch.tensor(oracle.affinity(query, semantic), dtype=dtype)
    torch.testing.assert_close(affinity(query, semantic), expected, atol=atol, rtol=0)


def test_affinity_by_hand() -> None:
    query, semantic = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]])
    assert affinity(query, semantic).tolist() == [[1, 2, 8], [3, -1, 3]]


@pytest.mark.parametrize(("dtype", "atol"), DTYPES.items())
def test_semantic_feature_of_ragged_instances(dtype: torch.dtype, atol: float) -> None:
    torch.manual_seed(1)
    n = max(RAGGED)
    query = torch.randn(len(RAGGED), n, WIDTH, dtype=dtype) * 3
    a = torch.randn(len(RAGGED), n, COUNT, dtype=dtype) * 3
    content = torch.arange(n) < torch.tensor(RAGGED)[:, None]
    query[~content], a[~content] = 1e6, 1e6  # padding must not matter
    out = semantic_feature(a, query, content)
    for i, length in enumerate(RAGGED):
        expected = oracle.semantic_feature(a[i, :length], query[i, :length], COUNT, WIDTH)
        torch.testing.assert_close(out[i], torch.tensor(expected, dtype=dtype), atol=atol, rtol=0)


def test_semantic_feature_by_hand() -> None:
    # D = 4: affinities 0 and 2 ln 3, halved, weigh the two tokens 1 : 3; the third is padding
    a = torch.tensor([[[0.0], [2 * math.log(3)], [9.0]]])
    query = torch.tensor([[[4.0, 0, 0, 8], [0, 4, 0, 8], [5, 5, 5, 5]]])
    out = semantic_feature(a, query, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(out, torch.tensor([[[1.0, 3, 0, 8]]]))


def test_semantic_feature_takes_nan_in_padding_and_float16() -> None:
    a, query = torch.ones(1, 3, 2, dtype=torch.float16), torch.ones(1, 3, 5, dtype=torch.float16)
    query[0, 2] = float("nan")
    out = semantic_feature(a, query, torch.tensor([[True, True, False]]))
    assert out.dtype == torch.float16
    assert out.tolist() == [[[1.0] * 5] * 2]


@pytest.mark.parametrize(("dtype", "atol"), DTYPES.items())
def test_alignment_loss(dtype: torch.dtype, atol: float) -> None:
    torch.manual_seed(2)
    image, text = (torch.randn(3, COUNT, WIDTH, dtype=dtype) for _ in range(2))
    expected = torch.tensor([oracle.alignment_loss(i, t) for i, t in zip(image, text, strict=True)], dtype=dtype)
    torch.testing.assert_close(alignment_loss(image, text), expected, atol=atol, rtol=0)


def test_alignment_loss_by_hand() -> None:
    # cosines: 1 and 0 -> mean of 0 and 1; then -1 and 0.6 -> mean of 2 and 0.4
    image = torch.tensor([[[2.0, 0], [0, 5]], [[1, 0], [3, 4]]])
    text = torch.tensor([[[7.0, 0], [3, 0]], [[-4, 0], [1, 0]]])
    torch.testing.assert_close(alignment_loss(image, text), torch.tensor([0.5, 1.2]))


def test_alignment_loss_of_an_instance_without_text_is_one_and_has_a_gradient() -> None:
    image = torch.randn(1, 3, 5, requires_grad=True)
    loss = alignment_loss(image, torch.zeros(1, 3, 5))
    loss.sum().backward()
    assert loss.item() == 1.0
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())


@pytest.mark.parametrize(("dtype", "atol"), DTYPES.items())
def test_contrastive_alignment_loss(dtype: torch.dtype, atol: float) -> None:
    torch.manual_seed(3)
    image, text = (torch.randn(7, COUNT, WIDTH, dtype=dtype) for _ in range(2))
    picture = torch.tensor([0, 0, 1, 2, 2, 2, 5])
    image = image[[0, 0, 2, 3, 3, 3, 6]]  # a picture's semantic features stand once for each of its texts
    expected = torch.tensor(oracle.contrastive_alignment_loss(image, text, picture.tolist(), 0.2), dtype=dtype)
    got = contrastive_alignment_loss(image, text, picture, 0.2)
    torch.testing.assert_close(got, expected, atol=10 * atol, rtol=0)


def test_contrastive_alignment_loss_by_hand() -> None:
    # every text is its own image: likenesses of 1 and 0, over a warmth of 1
    feature = torch.tensor([[[2.0, 0]], [[0, 3.0]]])
    loss = contrastive_alignment_loss(feature, feature, torch.tensor([4, 9]), 1.0)
    torch.testing.assert_close(loss, torch.full((2,), math.log(1 + math.exp(-1))))


def test_contrastive_alignment_loss_of_one_picture_alone_is_nothing() -> None:
    image = torch.randn(1, 3, 5).expand(2, 3, 5).clone().requires_grad_()
    loss = contrastive_alignment_loss(image, torch.randn(2, 3, 5), torch.tensor([7, 7]))
    loss.sum().backward()
    assert loss.tolist() == [0, 0]
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())
