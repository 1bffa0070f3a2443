"""What a decoder was put through, recorded in the trace, from which its cost is computed."""

from typing import Any

import torch
from torch import Tensor

from madtp.prune import Trace


def count_forced(trace: Trace, ids: Tensor, mask: Tensor | None, owner: Tensor | None, instances: int) -> None:
    """Teacher forcing.

    Args:
        trace: its `decoder_*` are set, `[instances]` each.
        ids: `[a, l]` what the decoder reads.
        mask: `[a, l]`, 0 = padding; None = no padding.
        owner: `[a]` the instance that each row belongs to; None = one row an instance, in order.
        instances: how many.
    """
    lengths = (torch.full((len(ids),), ids.shape[1]) if mask is None else (mask != 0).sum(-1)).cpu()
    owner = torch.arange(instances) if owner is None else owner.cpu()
    zero = torch.zeros(instances, dtype=torch.long)
    trace.decoder_tokens = zero.index_add(0, owner, lengths)
    trace.decoder_pairs = zero.index_add(0, owner, lengths.square())
    trace.decoder_sequences = zero.index_add(0, owner, torch.ones_like(lengths))
    trace.decoder_logits = None


def ended(written: Tensor, prompt: int, end: int, pad: int) -> tuple[Tensor, Tensor]:
    """What `generate` wrote with nothing but padding after the end token, and the length of each sequence.

    In some batches the host's beam search repeats the end token of sequences that ended before others.

    Args:
        written: `[n, l]`.
        prompt: tokens at the front among which no end token is looked for.
        end, pad: end and padding token.

    Returns:
        `[n, m]` as wide as its longest sequence, and `[n]` lengths with prompt and end token, CPU.
    """
    hit = written[:, prompt:] == end
    length = torch.where(hit.any(1), prompt + 1 + hit.long().argmax(1), written.shape[1])
    after = torch.arange(written.shape[1], device=written.device) >= length[:, None]
    return written.masked_fill(after, pad)[:, : int(length.max())], length.cpu()


def count_generated(trace: Trace, lengths: Tensor, prompt: Tensor, beams: int) -> None:
    """Generation with cached keys and values: the prompt at once, then one token at a time.

    Args:
        trace: its `decoder_*` are set, `[q]` each.
        lengths: `[q, r]` tokens of the r sequences returned for each instance, prompt and end token included.
        prompt: `[q]` tokens of the prompt, start token included.
        beams: sequences of an instance that run side by side in a beam search; 1 = each returned one ran alone.
    """
    steps = (lengths - 1).clamp(min=1)  # the last token is never fed back
    if beams > 1:  # all run as long as the longest that is returned
        steps = steps.amax(1, keepdim=True).expand(-1, beams)
    prompt = prompt[:, None]
    trace.decoder_tokens = steps.sum(1)
    trace.decoder_pairs = (steps * (steps + 1) // 2 + prompt * (prompt - 1) // 2).sum(1)
    trace.decoder_sequences = torch.full((len(steps),), steps.shape[1])
    trace.decoder_logits = (steps - prompt + 1).clamp(min=1).sum(1)  # of a prompt, those of its last token alone


def asked_for(name: str, generate_kwargs: dict[str, Any], decoder: Any) -> int:
    """`num_beams` or `num_return_sequences` as the host's `generate` will take it."""
    settings = generate_kwargs.get("generation_config") or decoder.generation_config
    value = generate_kwargs.get(name)
    return int((getattr(settings, name, None) if value is None else value) or 1)
