"""Query-blocked attention with the statistics of the scores, and its exact backward by recompute.

For every block of queries the probabilities `[c, h, bq, n]` are made, used for the output and the statistics while they
are in cache, and forgotten. The backward makes them again: only q, k and v are kept, O(n d) a layer, not O(h n n).

On a CPU with AVX-512 the heads of a long instance go one after another, `[bq, n]` at a time, through oneDNN: torch
hands batched float32 products to MKL, which leaves half of such an AMD processor's speed unused. (On Intel's it has not
been measured.) On the one without AVX-512 that was measured, MKL's are as fast, and a call for every head only costs.
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from madtp.model.attention_plan import Chunk, Side, plan
from madtp.model.linear import computes, product

if TYPE_CHECKING:
    from madtp.model.attention import Rows

# Elements of one block of probabilities: 4 MB of float32 stay in cache; a GPU wants them large.
CPU_BLOCK, GPU_BLOCK = 1 << 20, 1 << 26


def long_from(capability: str) -> int:
    """Tokens from which on heads go one after another; with fewer, calls and kernels cost more than they save.

    Args:
        capability: of the processor, as `torch.backends.cpu.get_cpu_capability` names it.
    """
    return 384 if capability.startswith("AVX512") else sys.maxsize


LONG = long_from(torch.backends.cpu.get_cpu_capability())


def blocked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Tensor,
    key_lengths: Tensor,
    rows: "Rows | None",
    causal: bool = False,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output `[t, h, d]`, class row `[t, h]` and column `[t]` (the last two empty without `rows`); see `attend`."""
    limit = CPU_BLOCK if query.device.type == "cpu" else GPU_BLOCK
    heads = query.shape[1]
    chunks = plan(query_lengths, key_lengths, heads, query.device, limit)
    work = [_Work(chunk, rows, max(1, limit // (chunk.size * heads * chunk.key.n)), causal, bias) for chunk in chunks]
    if not torch.is_grad_enabled():
        return _forward(query, key, value, work, rows is not None)
    out: tuple[Tensor, Tensor, Tensor] = _Blocked.apply(query, key, value, work, rows is not None)
    return out


def later(n: int, device: torch.device, block: slice = slice(None)) -> Tensor:
    """`[bq, n]` True at the keys that a query, those of `block` out of n, does not see in causal attention."""
    position = torch.arange(n, device=device)
    return position > position[block, None]


def _evenly(n: int, most: int) -> list[slice]:
    """n queries in as few blocks of at most `most` as there can be, none larger than another by more than one."""
    count = -(-n // most)
    return [slice(i * n // count, (i + 1) * n // count) for i in range(count)]


@dataclass(frozen=True)
class _Work:
    """A chunk, which rows its statistics read, how many queries make a block, if they see earlier keys only, and what
    each key's scores get more, `[s]` (None = nothing)."""

    chunk: Chunk
    rows: "Rows | None"
    queries: int
    causal: bool
    bias: Tensor | None

    @property
    def blocks(self) -> list[slice]:
        return _evenly(self.chunk.query.n, self.queries)

    @cached_property
    def content(self) -> Tensor:
        """`[c, 1, nq]` 1 at content queries, else 0, float32."""
        assert self.rows is not None
        side = self.chunk.query
        content = side.mask.float()
        content[:, : self.rows.head] = 0
        if self.rows.tail:
            lengths = torch.tensor(side.lengths, device=side.device)[:, None]
            content *= torch.arange(side.n, device=side.device) < lengths - self.rows.tail
        return content[:, None]

    def column(self, best: Tensor, block: slice) -> Tensor:
        """`[c, n]` sum of `best [c, bq, n]` over the content queries of a block."""
        assert self.rows is not None
        if self.chunk.query.even and not self.rows.tail:
            return best[:, max(0, self.rows.head - block.start) :].sum(1)
        return torch.bmm(self.content[:, :, block].to(best.dtype), best)[:, 0]

    @cached_property
    def _padding(self) -> Tensor:
        """`[c, 1, 1, n]` True at padding."""
        return ~self.chunk.key.mask[:, None, None]

    @cached_property
    def more(self) -> Tensor | None:
        """`[c, 1, 1, n]` what the scores of the keys get more."""
        return None if self.bias is None else self.chunk.key.take(self.bias[:, None, None]).transpose(-1, -2)

    def _hidden(self, block: slice) -> Tensor | None:
        """The keys that the queries of a block do not see, to be expanded to `[c, h, bq, n]`; None = they see all."""
        side = self.chunk.key
        if self.causal:  # no token sees the padding behind the last
            return later(side.n, side.device, block)[None, None]
        return None if side.even else self._padding

    def _pooled(self, block: slice) -> tuple[list[int], list[int]]:
        """The instances whose pooled query, their last, is in a block, and where in it each one's is."""
        last = [(i, n - 1) for i, n in enumerate(self.chunk.query.lengths) if block.start < n <= block.stop]
        return [i for i, _ in last], [place - block.start for _, place in last]

    def read_pooled(self, row: Tensor, probability: Tensor, block: slice) -> None:
        """Copy the pooled query's row `[c, h, n]` out of a block that holds it."""
        assert self.rows is not None
        if not self.rows.tail:
            if block.start == 0:
                row.copy_(probability[:, :, 0])
            return
        inside, place = self._pooled(block)
        if inside:
            row[inside] = probability[inside, :, place]

    def add_pooled(self, gradient: Tensor, row: Tensor, block: slice) -> None:
        """Add the gradient of the pooled query's row to a block's that holds it."""
        assert self.rows is not None
        if not self.rows.tail:
            if block.start == 0:
                gradient[:, :, 0] += row
            return
        inside, place = self._pooled(block)
        if inside:
            gradient[inside, :, place] += row[inside]

    def probability(self, query: Tensor, key_t: Tensor, block: slice) -> Tensor:
        """`softmax(q k^T / sqrt(d))` `[c * h, bq, n]` of a block, float32 at least."""
        hidden, more = self._hidden(block), self.more
        if hidden is None and more is None:
            bias = query.new_empty(1)  # not read
        else:  # they go in with the product: one pass over the scores less
            bias = query.new_zeros(1) if more is None else more.to(query.dtype)
            bias = bias if hidden is None else torch.where(hidden, float("-inf"), bias)
            bias = bias.expand(self.chunk.size, len(query) // self.chunk.size, -1, -1).flatten(0, 1)
        beta, scale = int(bias.dim() > 1), query.shape[-1] ** -0.5
        score = torch.baddbmm(bias, query[:, block], key_t, beta=beta, alpha=scale)
        return torch.softmax(score, -1, dtype=torch.promote_types(score.dtype, torch.float32))


def _folded(side: Side, packed: Tensor) -> Tensor:
    """`[t, h, d]` -> `[c * h, n, d]`, dense: products of strided operands take 1.5 times as long on the CPU."""
    return side.take(packed).flatten(0, 1).contiguous()


def _forward(
    query: Tensor, key: Tensor, value: Tensor, work: list[_Work], statistics: bool
) -> tuple[Tensor, Tensor, Tensor]:
    t, heads, width = query.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    class_row = query.new_empty((t if statistics else 0, heads), dtype=wide)
    column = query.new_empty(t if statistics else 0, dtype=wide)
    for part in work:
        chunk = part.chunk
        q, k, v = (_folded(side, x) for side, x in _sides(chunk, query, key, value))
        place = chunk.query.view(out)
        whole = q.new_empty(chunk.size, heads, chunk.query.n, width) if place is None else place
        row = q.new_empty(chunk.size, heads, chunk.key.n, dtype=wide) if statistics else None
        sums = (_head_by_head if _long(part, q) else _all_heads)(part, q, k, v, whole, row)
        if place is None:
            chunk.query.put(out, whole.transpose(1, 2))
        if sums is not None and row is not None:
            chunk.key.put(column, sums)
            chunk.key.put(class_row, row.transpose(1, 2))
    return out, class_row, column


def _all_heads(
    part: _Work, query: Tensor, key: Tensor, value: Tensor, out: Tensor, row: Tensor | None
) -> Tensor | None:
    """All heads of a chunk at once: writes `out [c, h, n, d]` and, if asked, `row [c, h, n]`; gives the column."""
    key_t, sums, (c, heads, _, width) = key.transpose(-1, -2), None, out.shape
    for block in part.blocks:
        probability = part.probability(query, key_t, block)
        out[:, :, block] = torch.bmm(probability.to(value.dtype), value).view(c, heads, -1, width)
        if row is not None:
            probability = probability.view(c, heads, *probability.shape[1:])
            some = part.column(probability.amax(1), block)
            sums = some if sums is None else sums.add_(some)
            part.read_pooled(row, probability, block)
    return sums


def _long(part: _Work, query: Tensor) -> bool:
    """True for one long instance whose queries see all its keys, where oneDNN makes the products."""
    chunk = part.chunk
    alone = chunk.size == 1 and min(chunk.query.n, chunk.key.n) >= LONG and not part.causal
    return alone and query.is_cpu and query.dtype is torch.float32 and computes(query.dtype)


def _head_by_head(
    part: _Work, query: Tensor, key: Tensor, value: Tensor, out: Tensor, row: Tensor | None
) -> Tensor | None:
    """The same as `_all_heads` of a chunk that is `_long`."""
    heads, n, width = query.shape
    q, more, sums = query * width**-0.5, part.more, None
    bias = None if more is None else more.to(q.dtype).reshape(-1).contiguous()
    for block in _evenly(n, part.queries * heads):  # of one head's probabilities as large as one of all heads'
        best = None
        for head in range(heads):
            probability = torch.softmax(product(q[head, block], key[head], bias), -1)
            out[0, head, block] = product(probability, value[head].T)
            if row is not None:
                part.read_pooled(row[:, head : head + 1], probability[None, None], block)
                best = probability if best is None else torch.maximum(best, probability, out=best)
        if best is not None:
            some = part.column(best[None], block)
            sums = some if sums is None else sums.add_(some)
    return sums


def _sides(chunk: Chunk, query: Tensor, key: Tensor, value: Tensor) -> tuple[tuple[Side, Tensor], ...]:
    return (chunk.query, query), (chunk.key, key), (chunk.key, value)


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, work: list[_Work], statistics: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(query, key, value)
        ctx.work, ctx.statistics = work, statistics
        return _forward(query, key, value, work, statistics)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        grad_out, grad_row, grad_column = grads
        query, key, value = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in (query, key, value))
        for part in ctx.work:
            chunk, heads = part.chunk, query.shape[1]
            q, k, v = (_folded(side, x) for side, x in _sides(chunk, query, key, value))
            d_out = chunk.query.take(grad_out)
            if not chunk.query.even:  # padding repeats a query; it must add nothing
                d_out = d_out * chunk.query.mask[:, None, :, None].to(d_out.dtype)
            d_out = d_out.flatten(0, 1).contiguous()
            if ctx.statistics:
                d_row = chunk.key.take(grad_row[..., None])[..., 0]
                d_column = chunk.key.take(grad_column[:, None, None])[:, :, None, :, 0]
            d_q, d_k, d_v = [], torch.zeros_like(k), torch.zeros_like(v)
            for block in part.blocks:
                probability = part.probability(q, k.transpose(-1, -2), block)
                d_v += torch.bmm(probability.transpose(-1, -2).to(v.dtype), d_out[:, block])
                d_p = torch.bmm(d_out[:, block], v.transpose(-1, -2)).to(probability.dtype)
                if ctx.statistics:
                    by_head = probability.view(chunk.size, heads, *probability.shape[1:])
                    flow = d_column * part.content[:, :, block, None].to(d_p.dtype)
                    d_p.view_as(by_head).scatter_add_(1, by_head.max(1, keepdim=True).indices, flow)
                    part.add_pooled(d_p.view_as(by_head), d_row, block)
                d_s = probability * (d_p - (d_p * probability).sum(-1, keepdim=True))
                d_s = d_s.mul_(scale).to(q.dtype)
                d_q.append(torch.bmm(d_s, k))
                d_k += torch.bmm(d_s.transpose(-1, -2), q[:, block])
            for (side, gradient), made in zip(
                _sides(chunk, grad_query, grad_key, grad_value), (torch.cat(d_q, 1), d_k, d_v), strict=True
            ):
                side.put(gradient, made.unflatten(0, (chunk.size, heads)).transpose(1, 2))
        return grad_query, grad_key, grad_value, None, None
