"""Attention over ragged batches through one function, `attend`, with named backends.

Backends:
    dense: one instance at a time, probabilities materialised, ordinary autograd. The oracle of the others.
    blocked: query blocks that stay in cache, instances of like length together; exact gradients by recompute,
        memory O(n d). Gives the statistics the scores need.
    sdpa: torch's fused attention; no statistics.
    auto: sdpa where no statistics are asked for, else blocked (dense while attention dropout is active).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from madtp.model.attention_blocked import blocked, later
from madtp.model.attention_plan import Chunk, Side, plan

Backend = Literal["auto", "dense", "blocked", "sdpa"]
BACKENDS: tuple[str, ...] = ("auto", "dense", "blocked", "sdpa")


@dataclass(frozen=True)
class Statistics:
    """What the scores need of the attention probabilities `P [h, n, n]` of each instance.

    Attributes:
        class_row: `[t, h]` `P[h, pooled, j]`.
        column: `[t]` `sum_i max_h P[h, i, j]` over content queries i.
    """

    class_row: Tensor
    column: Tensor


@dataclass(frozen=True)
class Rows:
    """Which rows of an instance's attention map the statistics read.

    Attributes:
        head: protected tokens at the front; the pooled token is the first of all.
        tail: protected tokens at the end; if there are any, the pooled token is the last of all (CLIP text: EOT).
    """

    head: int = 1
    tail: int = 0


def exact(device: str) -> AbstractContextManager[object]:
    """Autocast off: scores and thresholds in half precision would be too coarse to tell tokens apart."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Tensor,
    key_lengths: Tensor,
    *,
    rows: Rows | None = None,
    causal: bool = False,
    bias: Tensor | None = None,
    backend: str = "auto",
    dropout: float = 0.0,
) -> tuple[Tensor, Statistics | None]:
    """`softmax(q k^T / sqrt(d)) v` of every instance over its own keys.

    Args:
        query: `[t, h, d]` packed.
        key: `[s, h, d]` packed.
        value: `[s, h, d]` packed.
        query_lengths: `[b]` queries of each instance, CPU; 0 is allowed.
        key_lengths: `[b]` keys of each instance, CPU.
        rows: asks for `Statistics`, of self-attention alone, saying which rows they read.
        causal: self-attention in which a query sees its own and earlier keys only.
        bias: `[s]` added to the scores of each key, without a gradient.
        backend: see the module's text.
        dropout: probability of dropping an attention probability; the statistics are taken before it.

    Returns:
        The output `[t, h, d]`, and the statistics if asked for.

    Raises:
        ValueError: unknown backend, or one that cannot give what is asked for; a query without a key of its own in
            causal attention, or where statistics are asked for.

    Under autocast it computes in the type of its inputs all the same, statistics in float32 at least.
    """
    with exact(query.device.type):
        return _attend(query, key, value, query_lengths, key_lengths, rows, causal, bias, backend, dropout)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Tensor,
    key_lengths: Tensor,
    rows: Rows | None,
    causal: bool,
    bias: Tensor | None,
    backend: str,
    dropout: float,
) -> tuple[Tensor, Statistics | None]:
    if backend not in BACKENDS:
        raise ValueError(f"attention backend is one of {', '.join(BACKENDS)}, got {backend!r}")
    own = (not causal and rows is None) or key_lengths is query_lengths or torch.equal(key_lengths, query_lengths)
    if not own:
        what = "causal attention is" if causal else "statistics are those of"
        raise ValueError(f"{what} self-attention: every query needs a key of its own")
    if not query.shape[1]:  # all heads have been taken out
        return query, None
    if backend == "auto":
        backend = "dense" if dropout and rows is not None else "blocked" if rows is not None else "sdpa"
    if backend == "dense":
        return _dense(query, key, value, query_lengths, key_lengths, rows, causal, bias, dropout)
    if backend == "blocked":
        if dropout:
            raise ValueError("attention backend 'blocked' has no dropout; use 'dense' or 'auto'")
        out, class_row, column = blocked(query, key, value, query_lengths, key_lengths, rows, causal, bias)
        return out, None if rows is None else Statistics(class_row, column)
    if rows is not None:
        raise ValueError("attention backend 'sdpa' gives no statistics; use 'blocked', 'dense' or 'auto'")
    return _sdpa(query, key, value, query_lengths, key_lengths, causal, bias, dropout), None


def _dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Tensor,
    key_lengths: Tensor,
    rows: Rows | None,
    causal: bool,
    bias: Tensor | None,
    dropout: float,
) -> tuple[Tensor, Statistics | None]:
    outs, class_rows, columns = [], [], []
    more = [None] * len(key_lengths) if bias is None else bias.split(key_lengths.tolist())
    splits = zip(
        query.split(query_lengths.tolist()),
        key.split(key_lengths.tolist()),
        value.split(key_lengths.tolist()),
        more,
        strict=True,
    )
    for q, k, v, extra in splits:
        score = torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5
        if extra is not None:
            score = score + extra.to(score.dtype)
        if causal:
            score = score.masked_fill(later(len(q), q.device), float("-inf"))
        probability = torch.softmax(score, -1, dtype=torch.promote_types(score.dtype, torch.float32))
        if rows is not None:
            class_rows.append(probability[:, -1 if rows.tail else 0].T)
            columns.append(probability[:, rows.head : len(q) - rows.tail].amax(0).sum(0))
        outs.append(torch.einsum("hij,jhd->ihd", F.dropout(probability, dropout, dropout > 0).to(v.dtype), v))
    out = torch.cat(outs)
    return out, None if rows is None else Statistics(torch.cat(class_rows), torch.cat(columns))


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Tensor,
    key_lengths: Tensor,
    causal: bool,
    bias: Tensor | None,
    dropout: float,
) -> Tensor:
    chunks = plan(query_lengths, key_lengths, query.shape[1], query.device, limit=None)
    if not chunks:  # no instance has a query
        return torch.zeros_like(query)

    def output(chunk: Chunk) -> Tensor:
        """`[c, n, h, d]`"""
        # where no token sees a later one, none sees the padding behind the last
        mask = None if chunk.key.even or causal else chunk.key.mask[:, None, None]
        if bias is not None:
            mask = _added(bias, chunk.key, causal, query.dtype)
        q, k, v = chunk.query.take(query), chunk.key.take(key), chunk.key.take(value)
        is_causal = causal and bias is None
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal)
        return o.transpose(1, 2)

    if len(chunks) == 1 and chunks[0].query.place is not None:
        return chunks[0].query.pack(output(chunks[0]))
    if not torch.is_grad_enabled():
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        for chunk in chunks:
            chunk.query.put(out, output(chunk))
        return out
    # autograd would pass through every one of so many writes into one tensor
    joined = torch.cat([chunk.query.pack(output(chunk)) for chunk in chunks])
    position = torch.cat([chunk.query.position for chunk in chunks])
    inverse = torch.empty_like(position).scatter_(0, position, torch.arange(len(position), device=position.device))
    return joined.index_select(0, inverse)


def _added(bias: Tensor, keys: Side, causal: bool, dtype: torch.dtype) -> Tensor:
    """`[c, 1, 1 or n, n]` what a chunk's scores get more, nothing being seen behind an instance or, causal, a query."""
    more = keys.take(bias[:, None, None])[..., 0].to(dtype)[:, :, None]  # [c, 1, 1, n]
    unseen = ~keys.mask[:, None, None]
    if causal:
        unseen = unseen | later(keys.n, bias.device)
    return more.masked_fill(unseen, float("-inf"))
