"""Attention over ragged batches: every backend against the slow twin and against the dense one."""

import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import oracle
from madtp.model import attention_blocked, attention_plan
from madtp.model.attention import Rows, Statistics, attend

HEADS, WIDTH = 3, 5
SELF = (13, 2, 7, 29, 7)
QUERIES, KEYS = (3, 0, 11, 2, 0), (7, 5, 2, 19, 1)
ROWS = [Rows(1, 0), Rows(1, 1), Rows(2, 1)]
# Elements of a block of probabilities: as in use (all instances in one padded chunk), instances by twos and threes,
# several blocks an instance, one query row at a time.
BLOCKS = [attention_blocked.CPU_BLOCK, 700, 200, 1]


@pytest.fixture(params=BLOCKS)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(attention_blocked, "CPU_BLOCK", request.param)
    return request.param


def tensors(
    queries: tuple[int, ...], keys: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = [(sum(queries), HEADS, WIDTH), (sum(keys), HEADS, WIDTH), (sum(keys), HEADS, WIDTH)]
    q, k, v = (torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes)
    return q * 2, k, v


def run(
    queries: tuple[int, ...],
    keys: tuple[int, ...],
    qkv: tuple[Tensor, Tensor, Tensor],
    rows: Rows | None,
    backend: str,
    causal: bool = False,
) -> tuple[Tensor, Statistics | None]:
    n = torch.tensor(queries)  # self-attention gives the same tensor twice
    return attend(*qkv, n, n if keys is queries else torch.tensor(keys), rows=rows, causal=causal, backend=backend)


def close(a: Tensor, b: Tensor) -> None:
    tolerance = 1e-10 if a.dtype == torch.float64 else 2e-6
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("queries", "keys", "causal"),
    [(SELF, SELF, False), (QUERIES, KEYS, False), (SELF, SELF, True)],
    ids=["self", "cross", "causal"],
)
@pytest.mark.parametrize("backend", ["dense", "blocked", "sdpa", "auto"])
def test_outputs_are_the_twin_s(
    backend: str, queries: tuple[int, ...], keys: tuple[int, ...], causal: bool, dtype: torch.dtype, block: int
) -> None:
    q, k, v = tensors(queries, keys, dtype)
    expected = []
    for one in zip(oracle.split(q, queries), oracle.split(k, keys), oracle.split(v, keys), strict=True):
        expected += oracle.attention(*one, causal)[1]
    out, statistics = run(queries, keys, (q, k, v), None, backend, causal)
    assert statistics is None
    close(out, torch.tensor(expected, dtype=dtype))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("backend", ["dense", "blocked"])
def test_statistics_are_the_twin_s(backend: str, rows: Rows, causal: bool, block: int) -> None:
    q, k, v = tensors(SELF, SELF)
    class_row, column = [], []
    for one in zip(*(oracle.split(x, SELF) for x in (q, k, v)), strict=True):
        n = len(one[0])
        probability = oracle.attention(*one, causal)[0]
        class_row += oracle.class_row(probability, rows.tail)
        content = range(rows.head, n - rows.tail)
        column += oracle.column(probability, content) if content else [0.0] * n
    _, statistics = run(SELF, SELF, (q, k, v), rows, backend, causal)
    assert statistics is not None
    close(statistics.class_row, torch.tensor(class_row, dtype=q.dtype))
    close(statistics.column, torch.tensor(column, dtype=q.dtype))


@pytest.mark.parametrize("backend", ["dense", "blocked"])
def test_by_hand(backend: str) -> None:
    # One head of width 1; keys 0 and ln 3. Queries 0 and 1 pay (1/2, 1/2) and (1/4, 3/4); the second is content.
    q, k = torch.tensor([0.0, 1.0]).view(2, 1, 1), torch.tensor([1.0, 3.0]).log().view(2, 1, 1)
    v = torch.tensor([4.0, 8.0]).view(2, 1, 1)
    two = torch.tensor([2])
    out, statistics = attend(q, k, v, two, two, rows=Rows(), backend=backend)
    assert statistics is not None
    torch.testing.assert_close(out.view(-1), torch.tensor([6.0, 7.0]))
    torch.testing.assert_close(statistics.class_row, torch.tensor([[0.5], [0.5]]))
    torch.testing.assert_close(statistics.column, torch.tensor([0.25, 0.75]))


@pytest.mark.parametrize("backend", ["dense", "blocked", "sdpa"])
def test_causal_by_hand(backend: str) -> None:
    # As above, but the first query sees the first key only; the second pays (1/4, 3/4).
    q, k = torch.tensor([0.0, 1.0]).view(2, 1, 1), torch.tensor([1.0, 3.0]).log().view(2, 1, 1)
    v = torch.tensor([4.0, 8.0]).view(2, 1, 1)
    two = torch.tensor([2])
    out, _ = attend(q, k, v, two, two, causal=True, backend=backend)
    torch.testing.assert_close(out.view(-1), torch.tensor([4.0, 7.0]))


def test_equal_lengths_need_not_be_the_same_tensor_in_causal_attention() -> None:
    qkv = tensors(SELF, SELF)
    out, _ = attend(*qkv, torch.tensor(SELF), torch.tensor(SELF), causal=True)
    close(out, run(SELF, SELF, qkv, None, "dense", causal=True)[0])
    with pytest.raises(ValueError, match="self-attention"):
        run(QUERIES, KEYS, tensors(QUERIES, KEYS), None, "auto", causal=True)


def gradients(
    queries: tuple[int, ...], keys: tuple[int, ...], rows: Rows | None, backend: str, causal: bool = False
) -> tuple[Tensor, ...]:
    """Of a loss in which every element of the output and of the statistics has its own weight."""
    qkv = tuple(x.requires_grad_() for x in tensors(queries, keys))
    out, statistics = run(queries, keys, qkv, rows, backend, causal)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(7)
    parts = [out] if statistics is None else [out, statistics.class_row, statistics.column]
    loss = sum((part * torch.randn(part.shape, generator=g, dtype=part.dtype)).sum() for part in parts)
    return torch.autograd.grad(loss, qkv)  # type: ignore[arg-type]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", [None, *ROWS])
def test_gradients_of_blocked_are_those_of_dense(rows: Rows | None, causal: bool, block: int) -> None:
    dense = gradients(SELF, SELF, rows, "dense", causal)
    for a, b in zip(gradients(SELF, SELF, rows, "blocked", causal), dense, strict=True):
        close(a, b)


@pytest.mark.parametrize(("queries", "keys"), [(SELF, SELF), (QUERIES, KEYS), ((7, 7), (7, 7))])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("backend", ["blocked", "sdpa"])
def test_without_gradients_it_is_the_same(
    backend: str, apart: bool, queries: tuple[int, ...], keys: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        monkeypatch.setattr(attention_plan, "CPU_PADDED", 1)
    chunks = attention_plan.plan(torch.tensor(queries), torch.tensor(keys), HEADS, torch.device("cpu"), None)
    assert (len(chunks) > 1) == (apart and len(set(queries)) > 1)
    qkv, bias = tensors(queries, keys), torch.randn(sum(keys), dtype=torch.float64)
    n, m = torch.tensor(queries), torch.tensor(keys)
    for more in (None, bias):
        with torch.inference_mode():
            out, _ = attend(*qkv, n, m, bias=more, backend=backend)
        close(out, attend(*qkv, n, m, bias=more, backend="dense")[0])


def test_gradients_of_causal_sdpa() -> None:
    dense = gradients(SELF, SELF, None, "dense", causal=True)
    for a, b in zip(gradients(SELF, SELF, None, "sdpa", causal=True), dense, strict=True):
        close(a, b)


@pytest.mark.parametrize("backend", ["blocked", "sdpa"])
def test_gradients_in_cross_attention(backend: str, block: int) -> None:
    for a, b in zip(gradients(QUERIES, KEYS, None, backend), gradients(QUERIES, KEYS, None, "dense"), strict=True):
        close(a, b)


@pytest.mark.parametrize("part", [0, 1, 2], ids=["out", "class_row", "column"])
@pytest.mark.parametrize(("rows", "causal"), [(Rows(1, 0), False), (Rows(1, 1), False), (Rows(1, 1), True)])
def test_gradcheck_of_blocked(rows: Rows, causal: bool, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_blocked, "CPU_BLOCK", 30)
    lengths = torch.tensor([5, 2, 3])

    def one_part(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, statistics = attend(q, k, v, lengths, lengths, rows=rows, causal=causal, backend="blocked")
        assert statistics is not None
        return (out, statistics.class_row, statistics.column)[part]

    qkv = [x[:, :2, :2].contiguous().requires_grad_() for x in tensors((5, 2, 3), (5, 2, 3))]
    assert torch.autograd.gradcheck(one_part, qkv, check_undefined_grad=False)


def test_the_block_sizes_of_these_tests_cover_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """One padded chunk; several chunks, padding in one; several blocks in a chunk; one row a block."""
    made: list[list[tuple[int, int]]] = []

    class Spy(attention_blocked._Work):
        @property
        def blocks(self) -> list[slice]:
            made[-1].append((self.chunk.size, len(super().blocks)))
            return super().blocks

    monkeypatch.setattr(attention_blocked, "_Work", Spy)
    for limit in BLOCKS:
        made.append([])
        monkeypatch.setattr(attention_blocked, "CPU_BLOCK", limit)
        run(SELF, SELF, tensors(SELF, SELF), Rows(), "blocked")
    assert made == [
        [(5, 1)],
        [(3, 1), (1, 1), (1, 4)],
        [(1, 1), (1, 1), (1, 1), (1, 3), (1, 15)],
        [(1, 2), (1, 7), (1, 7), (1, 13), (1, 29)],
    ]


def test_bfloat16_runs_and_is_close(block: int) -> None:
    exact = tensors(SELF, SELF, torch.float32)
    half = [x.bfloat16().requires_grad_() for x in exact]
    wide = [x.detach().float().requires_grad_() for x in half]
    out, statistics = run(SELF, SELF, tuple(half), Rows(), "blocked")  # type: ignore[arg-type]
    expected, reference = run(SELF, SELF, tuple(wide), Rows(), "dense")  # type: ignore[arg-type]
    assert statistics is not None
    assert reference is not None
    assert out.dtype == torch.bfloat16
    assert statistics.class_row.dtype == statistics.column.dtype == torch.float32
    torch.testing.assert_close(out.float(), expected, atol=3e-2, rtol=3e-2)
    torch.testing.assert_close(statistics.class_row, reference.class_row, atol=2e-2, rtol=3e-2)
    torch.testing.assert_close(statistics.column, reference.column, atol=2e-2, rtol=3e-2)
    (out.float().square().sum() + statistics.column.square().sum()).backward()
    (expected.square().sum() + reference.column.square().sum()).backward()
    for a, b in zip(half, wide, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.dtype == torch.bfloat16
        assert torch.linalg.norm(a.grad.float() - b.grad) < 3e-2 * torch.linalg.norm(b.grad)


@pytest.mark.parametrize("backend", ["dense", "blocked", "sdpa"])
def test_slices_of_one_projection(backend: str) -> None:
    """q, k and v as views of one tensor, as a fused projection gives them."""
    qkv = torch.randn(sum(SELF), 3, HEADS, WIDTH, dtype=torch.float64)
    views = qkv.unbind(1)
    a = run(SELF, SELF, views, None, backend)[0]  # type: ignore[arg-type]
    b = run(SELF, SELF, tuple(x.contiguous() for x in views), None, "dense")[0]  # type: ignore[arg-type]
    close(a, b)


@pytest.mark.parametrize("backend", ["dense", "blocked"])
def test_alone_or_in_a_batch(backend: str) -> None:
    q, k, v = tensors(SELF, SELF)
    together, statistics = run(SELF, SELF, (q, k, v), Rows(), backend)
    assert statistics is not None
    for start, n in zip(oracle.starts(SELF), SELF, strict=True):
        piece = slice(start, start + n)
        one = (n,)
        alone, its = run(one, one, (q[piece], k[piece], v[piece]), Rows(), backend)
        assert its is not None
        close(alone, together[piece])
        close(its.class_row, statistics.class_row[piece])
        close(its.column, statistics.column[piece])


@pytest.mark.parametrize("backend", ["dense", "blocked"])
def test_equal_lengths_need_not_be_the_same_tensor(backend: str) -> None:
    qkv = tensors(SELF, SELF)
    out, statistics = attend(*qkv, torch.tensor(SELF), torch.tensor(SELF), rows=Rows(), backend=backend)
    expected, reference = run(SELF, SELF, qkv, Rows(), backend)
    assert statistics is not None
    assert reference is not None
    close(out, expected)
    close(statistics.class_row, reference.class_row)
    close(statistics.column, reference.column)


@pytest.mark.parametrize("backend", ["dense", "blocked", "sdpa"])
def test_no_instance_has_a_query(backend: str) -> None:
    q, k, v = tensors((0, 0), (3, 2))
    assert run((0, 0), (3, 2), (q, k, v), None, backend)[0].shape == (0, HEADS, WIDTH)


def test_auto_takes_blocked_for_statistics_and_sdpa_without() -> None:
    qkv = tensors(SELF, SELF)
    assert torch.equal(run(SELF, SELF, qkv, Rows(), "auto")[0], run(SELF, SELF, qkv, Rows(), "blocked")[0])
    assert torch.equal(run(SELF, SELF, qkv, None, "auto")[0], run(SELF, SELF, qkv, None, "sdpa")[0])


def test_heads_go_alone_where_the_processor_has_avx512() -> None:
    assert attention_blocked.long_from("AVX512") == 384
    assert attention_blocked.long_from("AVX2") == attention_blocked.long_from("DEFAULT") == sys.maxsize


@pytest.mark.parametrize(("n", "most"), [(577, 151), (13, 4), (7, 7), (5, 11), (29, 1)])
def test_blocks_are_few_and_of_like_size(n: int, most: int) -> None:
    blocks = attention_blocked._evenly(n, most)
    assert [i for block in blocks for i in range(n)[block]] == list(range(n))
    sizes = [block.stop - block.start for block in blocks]
    assert max(sizes) <= most and max(sizes) - min(sizes) <= 1
    assert len(blocks) == math.ceil(n / most)


@pytest.mark.parametrize("limit", [attention_blocked.CPU_BLOCK, 300, 1], ids=["one block", "several", "by threes"])
@pytest.mark.parametrize("rows", [None, *ROWS])
@pytest.mark.parametrize("biased", [False, True])
def test_head_by_head_is_the_same(biased: bool, rows: Rows | None, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_blocked, "LONG", 7)
    monkeypatch.setattr(attention_blocked, "CPU_BLOCK", limit)
    monkeypatch.setattr(attention_plan, "CPU_PADDED", 1)
    long: list[tuple[int, ...]] = []
    way = attention_blocked._head_by_head

    def noted(part: attention_blocked._Work, *args: object) -> Tensor | None:
        long.append(part.chunk.query.lengths)
        return way(part, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(attention_blocked, "_head_by_head", noted)
    exact, single = tensors(SELF, SELF), [x.requires_grad_() for x in tensors(SELF, SELF, torch.float32)]
    n = torch.tensor(SELF)
    strided = torch.randn(2 * sum(SELF), generator=torch.Generator().manual_seed(5))[::2]
    bias = strided if biased else None
    wide = None if bias is None else bias.double()
    expected, wanted = attend(*exact, n, n, rows=rows, bias=wide, backend="dense")
    out, statistics = attend(*single, n, n, rows=rows, bias=bias, backend="blocked")
    assert sorted(long) == [(7,), (7,), (13,), (29,)]
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=2e-6)
    if wanted is not None and statistics is not None:
        torch.testing.assert_close(statistics.class_row.double(), wanted.class_row, atol=2e-6, rtol=2e-6)
        torch.testing.assert_close(statistics.column.double(), wanted.column, atol=2e-6, rtol=2e-6)
    with torch.inference_mode():
        again, _ = attend(*single, n, n, rows=rows, bias=bias, backend="blocked")
    assert torch.equal(again, out)
    slow = [x.requires_grad_() for x in exact]
    (attend(*slow, n, n, bias=wide, backend="dense")[0].square().sum()).backward()
    out.square().sum().backward()
    for one, two in zip(single, slow, strict=True):
        torch.testing.assert_close(one.grad.double(), two.grad, atol=1e-4, rtol=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("other", ["causal", "float64", "two together", "no oneDNN"])
def test_who_does_not_go_head_by_head(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_blocked, "LONG", 2)
    monkeypatch.setattr(attention_blocked, "_head_by_head", lambda *_: pytest.fail("went head by head"))
    if other == "no oneDNN":
        monkeypatch.setattr(attention_blocked, "computes", lambda _: False)
    lengths = (5, 5) if other == "two together" else (5,)
    qkv = tensors(lengths, lengths, torch.float64 if other == "float64" else torch.float32)
    run(lengths, lengths, qkv, Rows(), "blocked", causal=other == "causal")


def test_head_by_head_in_cross_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_blocked, "LONG", 7)
    monkeypatch.setattr(attention_plan, "CPU_PADDED", 1)
    way, taken = attention_blocked._head_by_head, []
    monkeypatch.setattr(attention_blocked, "_head_by_head", lambda *each: taken.append(1) or way(*each))
    queries, keys = (11, 0, 7, 3), (13, 5, 29, 17)
    qkv = tensors(queries, keys, torch.float32)
    close(run(queries, keys, qkv, None, "blocked")[0], run(queries, keys, qkv, None, "dense")[0])
    assert len(taken) == 2


@pytest.mark.parametrize("backend", ["dense", "blocked", "auto"])
def test_statistics_are_those_of_self_attention(backend: str) -> None:
    with pytest.raises(ValueError, match="statistics are those of self-attention"):
        run((5, 0), (3, 2), tensors((5, 0), (3, 2)), Rows(), backend)


def test_dropout_changes_the_output_and_not_the_statistics() -> None:
    qkv, n = tensors(SELF, SELF), torch.tensor(SELF)
    plain, expected = run(SELF, SELF, qkv, Rows(), "dense")
    torch.manual_seed(0)
    out, statistics = attend(*qkv, n, n, rows=Rows(), dropout=0.5)
    assert expected is not None
    assert statistics is not None
    assert not torch.allclose(out, plain)
    close(statistics.class_row, expected.class_row)
    close(statistics.column, expected.column)
    fused, _ = attend(*qkv, n, n, dropout=0.5)
    assert not torch.allclose(fused, plain)


def wrong(**options: object) -> Callable[[], object]:
    qkv, n = tensors(SELF, SELF), torch.tensor(SELF)
    return lambda: attend(*qkv, n, n, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backend": "flash"}, "one of auto, dense, blocked, sdpa, got 'flash'"),
        ({"backend": "sdpa", "rows": Rows()}, "'sdpa' gives no statistics"),
        ({"backend": "blocked", "dropout": 0.1}, "'blocked' has no dropout"),
    ],
)
def test_errors(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wrong(**options)()


@pytest.mark.parametrize("backend", ["dense", "sdpa", "auto", "blocked"])
def test_a_key_of_size_three_counts_as_three_keys(backend: str) -> None:
    q, k, v = tensors(QUERIES, KEYS)
    times = torch.randint(1, 4, (sum(KEYS),), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor(KEYS)
    many = torch.stack([some.sum() for some in times.split(list(KEYS))])
    expected, _ = attend(
        q, k.repeat_interleave(times, 0), v.repeat_interleave(times, 0), torch.tensor(QUERIES), many, backend="dense"
    )
    bias = times.double().log()
    close(attend(q, k, v, torch.tensor(QUERIES), lengths, bias=bias, backend=backend)[0], expected)


@pytest.mark.parametrize("rows", [Rows(), Rows(1, 1)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_bias_in_causal_attention_and_beside_statistics(dtype: torch.dtype, causal: bool, rows: Rows) -> None:
    qkv, n = [x.requires_grad_() for x in tensors(SELF, SELF, dtype)], torch.tensor(SELF)
    bias = torch.randn(sum(SELF), dtype=dtype)
    expected, statistics = attend(*qkv, n, n, bias=bias, causal=causal, rows=rows, backend="dense")
    close(attend(*qkv, n, n, bias=bias, causal=causal, backend="sdpa")[0], expected)
    assert statistics is not None
    weight = torch.randn(expected.shape, dtype=dtype)
    wanted = torch.autograd.grad((expected * weight).sum() + statistics.column.square().sum(), qkv)
    for backend in ("auto", "blocked"):
        out, other = attend(*qkv, n, n, bias=bias, causal=causal, rows=rows, backend=backend)
        assert other is not None
        close(out, expected)
        close(other.column, statistics.column)
        close(other.class_row, statistics.class_row)
        gradients = torch.autograd.grad((out * weight).sum() + other.column.square().sum(), qkv)
        for one, two in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert not torch.equal(statistics.column, attend(*qkv, n, n, causal=causal, rows=rows)[1].column)  # type: ignore[union-attr]
