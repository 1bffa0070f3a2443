"""Token importance scores against their slow twins, and by hand."""

import pytest
import torch

import oracle
from instances import DTYPES, RAGGED
from madtp.prune import class_score, self_score, token_importance, token_score
from madtp.prune.score import robust_token_score

N = max(RAGGED)
CONTENT = torch.arange(N) < torch.tensor(RAGGED)[:, None]


@pytest.mark.parametrize(("dtype", "atol"), DTYPES.items())
def test_class_score(dtype: torch.dtype, atol: float) -> None:
    torch.manual_seed(0)
    row, norm = torch.rand(2, 11, 3, dtype=dtype), torch.rand(2, 11, 3, dtype=dtype)
    expected = torch.tensor([oracle.class_score(r, o) for r, o in zip(row, norm, strict=True)], dtype=dtype)
    torch.testing.assert_close(class_score(row, norm), expected, atol=atol, rtol=0)


def test_class_score_by_hand() -> None:
    # one token, heads of norm 1 and 3: 0.2 * 1/4 + 0.6 * 3/4
    torch.testing.assert_close(class_score(torch.tensor([[0.2, 0.6]]), torch.tensor([[1.0, 3.0]])), torch.tensor([0.5]))


def test_class_score_of_a_token_without_output_is_zero() -> None:
    assert class_score(torch.ones(1, 3), torch.zeros(1, 3)).tolist() == [0.0]


@pytest.mark.parametrize("shift", [0.0, -3.0])
@pytest.mark.parametrize(("dtype", "rtol"), DTYPES.items())
@pytest.mark.parametrize("score", [self_score, token_score])
def test_shares_of_ragged_instances(score, dtype: torch.dtype, rtol: float, shift: float) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    raw = torch.rand(len(RAGGED), N, dtype=dtype) + shift
    raw[~CONTENT] = float("nan")  # padding must not matter
    out = score(raw, CONTENT)
    for i, n in enumerate(RAGGED):
        expected = torch.tensor(oracle.share(raw[i, :n].tolist()), dtype=dtype)
        torch.testing.assert_close(out[i, :n], expected, atol=0, rtol=rtol)
        assert out[i, n:].tolist() == [0.0] * (N - n)


def test_twins_of_the_shares_from_raw_scores() -> None:
    torch.manual_seed(2)
    affinity, content = torch.randn(1, 13, 7, dtype=torch.float64), torch.ones(1, 13, dtype=torch.bool)
    expected = torch.tensor(oracle.token_score(affinity[0]), dtype=torch.float64)
    torch.testing.assert_close(token_score(affinity.amax(-1), content)[0], expected)
    column = torch.rand(1, 13, dtype=torch.float64)
    torch.testing.assert_close(self_score(column, content)[0].tolist(), oracle.self_score(column[0]))


@pytest.mark.parametrize("score", [self_score, token_score])
def test_shares_by_hand(score) -> None:  # type: ignore[no-untyped-def]
    raw = torch.tensor([[9.0, 1.0, 3.0, 4.0], [9.0, 2.0, 0.0, 9.0]])
    content = torch.tensor([[False, True, True, True], [False, True, True, False]])
    torch.testing.assert_close(score(raw, content), torch.tensor([[0, 0.125, 0.375, 0.5], [0, 1, 0, 0]]))


def test_a_negative_sum_turns_the_order_round() -> None:
    # as in the published models: -1 and -3 become 1/4 and 3/4
    out = token_score(torch.tensor([[-1.0, -3.0]]), torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(out, torch.tensor([[0.25, 0.75]]))


def test_the_epsilon_stands_in_the_divisor() -> None:
    content = torch.ones(1, 2, dtype=torch.bool)
    assert self_score(torch.zeros(1, 2), content).tolist() == [[0.0, 0.0]]
    tiny = torch.tensor([[1e-8, 2e-8]], dtype=torch.float64)
    torch.testing.assert_close(token_score(tiny, content), torch.tensor([[0.25, 0.5]], dtype=torch.float64))
    norm = torch.tensor([[1e-8, 2e-8]], dtype=torch.float64)
    torch.testing.assert_close(class_score(torch.ones_like(norm), norm), torch.tensor([0.75], dtype=torch.float64))


def test_token_importance() -> None:
    torch.manual_seed(3)
    scores = [torch.randn(3, 11, dtype=torch.float64) for _ in range(3)]
    expected = [oracle.token_importance(*(s[i].tolist() for s in scores)) for i in range(3)]
    torch.testing.assert_close(token_importance(*scores), torch.tensor(expected, dtype=torch.float64))
    one = token_importance(torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[6.0]]))
    assert one.tolist() == [[3.0]]


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES.items())
def test_robust_token_score(dtype: torch.dtype, rtol: float) -> None:
    torch.manual_seed(4)
    affinity = torch.randn(len(RAGGED), N, 7, dtype=dtype)
    affinity[:, 3:] = affinity[:, :1]  # most alike: their median distance from the median is 0
    affinity[::2, 3:] = torch.randn(len(affinity[::2]), N - 3, 7, dtype=dtype)
    affinity[~CONTENT] = float("nan")  # padding must not matter
    out = robust_token_score(affinity.amax(-1), CONTENT)
    for i, n in enumerate(RAGGED):
        expected = torch.tensor(oracle.robust_token_score(affinity[i, :n]), dtype=dtype)
        torch.testing.assert_close(out[i, :n], expected, atol=0, rtol=10 * rtol)
        assert out[i, n:].tolist() == [0.0] * (N - n)


def test_robust_token_score_by_hand() -> None:
    # median 2, distances 1 0 1 and so MAD 1; sigmoid(1/1.4826) = 0.66251
    content = torch.tensor([[True, True, True, False]])
    expected = torch.tensor([[1 - 0.66251, 0.5, 0.66251, 0.0]]) / 1.5
    for scale, shift in ((1.0, 0.0), (7.0, 0.0), (1.0, -2.0), (3.0, -5.0)):
        raw = torch.tensor([[1.0, 2.0, 3.0, 99.0]]) * scale + shift
        torch.testing.assert_close(robust_token_score(raw, content), expected, atol=1e-5, rtol=0)
    alike = robust_token_score(torch.full((1, 4), -7.0), content)
    torch.testing.assert_close(alike, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0.0]]))
    # an outlier is one token of many: it does not squeeze the others, as a share of the sum does
    far = robust_token_score(torch.tensor([[1.0, 2.0, 3.0, 4.0, 1e6]]), torch.ones(1, 5, dtype=torch.bool))
    assert float(far[0, 3] - far[0, 0]) > 0.1 and far[0].tolist() == sorted(far[0].tolist())


def test_the_claims_learn_by_the_robust_score() -> None:
    raw = torch.tensor([[0.5, 0.5, 0.5, 0.9, -0.2]], requires_grad=True)
    robust_token_score(raw, torch.ones(1, 5, dtype=torch.bool))[0, 3].backward()
    assert raw.grad is not None and raw.grad.isfinite().all() and raw.grad[0, 3] > 0
