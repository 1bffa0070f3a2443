"""Training for image-text retrieval: contrast and matching, with momentum towers and a queue as BLIP has them.

Li et al., "BLIP" (ICML 2022) and "ALBEF" (NeurIPS 2021), section 3.2. Differs from their public code:
    - contrast and hard negatives see the batches of all processes, and the result is that of one process with them all;
    - hard negatives are drawn from (seed, step), not from a running generator: the same in any number of processes;
    - a queue that is not full yet holds fewer pairs, not random ones; its size need not be a multiple of the batch;
    - an image's other captions, in the batch and in the queue, are positives too (as in MADTP's code).
"""

import copy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from madtp.errors import InputError
from madtp.model.dual import DualEncoder
from madtp.model.output import ImageSide, TextSide
from madtp.model.ragged import Ragged
from madtp.prune import Trace, alignment_loss
from madtp.task.gather import gather, gather_ragged, mean, place
from madtp.task.negatives import draw_negatives
from madtp.task.pair_queue import PairQueue

TEMPERATURES = 0.001, 0.5  # between which the temperature of the contrast is learned
_MATCHING = ("crossattention", "itm_head")  # modules of no use to momentum towers, which match nothing


class Losses(NamedTuple):
    """Of one batch. Over several processes the mean of each is that of the global batch, and so are its gradients.

    Attributes:
        itc: image-text contrast.
        itm: image-text matching; None if the model has no `match`.
        align: alignment loss of the towers; None if the model is dense.
        align_momentum: of the momentum towers; None if there are none.
        trace: of the pairs: both towers and, if there is one, the matching pass of the true pairs.
        image, text: what the towers gave.
    """

    itc: Tensor
    itm: Tensor | None
    align: Tensor | None
    align_momentum: Tensor | None
    trace: Trace
    image: ImageSide
    text: TextSide

    def total(self, alpha: float) -> Tensor:
        """`itc + itm + alpha * (align + align_momentum)`, `alpha` as in `PruneConfig`."""
        task = [loss for loss in (self.itc, self.itm) if loss is not None]
        guide = [alpha * loss for loss in (self.align, self.align_momentum) if loss is not None]
        return torch.stack([*task, *guide]).sum()


class MomentumContrast(nn.Module):
    """`contrast(pixel_values, input_ids, attention_mask, image_ids) -> Losses`, and what it remembers between steps.

    In training mode a call moves the momentum towers, fills the queue and counts a step; else nothing changes.
    The model is trained in place; `state_dict` holds all the rest, to resume with; none of it is saved with the model.

    Args:
        model: whose towers run apart. Without a `match`, as BLIP's, there is no matching loss.
        queue_size: pairs of earlier batches, as the momentum towers gave them, to contrast with.
        momentum: share of themselves that the momentum towers keep in a step; None = there are none, the features of
            the batch are contrasted with each other.
        alpha: weight of the momentum towers' similarities in the targets (0 = the true pairs alone).
        ramp_steps: steps over which `alpha` rises from 0, BLIP's first epoch; may be set later.
        temperature: of the contrast at the start; it is learned.
        match_token_id: takes the place of a text's first token where it is matched, BLIP's [ENC]; None = nothing does.
        align_momentum: let the alignment loss of the momentum towers reach the semantic tokens they share, at the cost
            of the memory of their activations. False: it is computed but trains nothing, as in the public code.
        seed: of the hard negatives.

    Attributes:
        led: others call `follow` before every forward in training; else a forward does.

    Raises:
        InputError: a queue without momentum towers; a number out of range.
    """

    step: Tensor

    def __init__(
        self,
        model: DualEncoder,
        queue_size: int = 57600,
        momentum: float | None = 0.995,
        alpha: float = 0.4,
        *,
        ramp_steps: int = 0,
        temperature: float = 0.07,
        match_token_id: int | None = None,
        align_momentum: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if queue_size < 0:
            raise InputError(f"{queue_size} is below 0", "queue_size")
        if momentum is None and queue_size:
            raise InputError("a queue needs momentum towers to fill it", "queue_size", "set momentum, or queue_size 0")
        if momentum is not None and not 0 <= momentum < 1:
            raise InputError(f"{momentum} is not in [0, 1)", "momentum")
        if not 0 <= alpha <= 1:
            raise InputError(f"{alpha} is not in [0, 1]", "alpha")
        self.model: Any = model
        self.momentum, self.alpha, self.ramp_steps = momentum, alpha, ramp_steps
        self.match_token_id, self.align_momentum, self.seed = match_token_id, align_momentum, seed
        self.led = False
        device = next(self.parameters()).device
        self.towers: Any = None if momentum is None else _momentum_towers(model)
        self.temp = nn.Parameter(torch.tensor(temperature))
        self.queue = PairQueue(queue_size, model.feature_width)
        self.register_buffer("step", torch.tensor(0))
        self.to(device)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        image_ids: Tensor,
        *,
        provenance: bool = False,
    ) -> Losses:
        """The losses of a batch of pairs, or of this process's part of one.

        Args:
            pixel_values: `[b, 3, height, width]`.
            input_ids, attention_mask: `[b, l]` the text of each image.
            image_ids: `[b]` number of the image in the data: pairs of one image are no negatives of each other.
            provenance: record in the traces of both towers where every token is after each block.

        Raises:
            ValueError: the numbers of images, texts and ids differ.
        """
        pairs = len(image_ids)
        if not len(pixel_values) == len(input_ids) == pairs:
            raise ValueError(f"{len(pixel_values)} images, {len(input_ids)} texts and {pairs} ids are no pairs")
        if self.training and not self.led:
            self.follow()
        align = self.model.aligns
        image = self.model.see(pixel_values, align=align, provenance=provenance)
        text = self.model.read(input_ids, attention_mask, align=align, provenance=provenance)
        own = _wide(image.feature), _wide(text.feature)
        ids = gather(image_ids)
        align_momentum = None
        if self.towers is None:
            world = gather(own[0]), gather(own[1])
            itc = self._contrast(own, world, image_ids[:, None] == ids)
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and align and self.align_momentum):
                image_m = self.towers.see(pixel_values, align=align)
                text_m = self.towers.read(input_ids, attention_mask, align=align)
                if align:
                    align_momentum = mean(alignment_loss(image_m.semantic, text_m.semantic))
            slow = _wide(image_m.feature).detach(), _wide(text_m.feature).detach()
            new = gather(slow[0]), gather(slow[1])
            *keys, key_ids = self.queue.behind(*new, ids)
            itc = self._contrast(own, (keys[0], keys[1]), image_ids[:, None] == key_ids, slow)
            if self.training:
                self.queue.push(*new, ids)
            world = gather(own[0].detach()), gather(own[1].detach())
        trace = Trace([*image.trace.blocks, *text.trace.blocks], torch.arange(pairs))
        itm = None
        if getattr(self.model, "match", None) is not None:
            words = Ragged.from_padded(input_ids[..., None], attention_mask)
            itm = self._match(image.tokens, words, *self._negatives(own, world, image_ids[:, None] == ids), trace)
        aligned = mean(alignment_loss(image.semantic, text.semantic)) if align else None
        if self.training:
            self.step += 1
        return Losses(itc, itm, aligned, align_momentum, trace, image, text)

    def _contrast(
        self,
        own: tuple[Tensor, Tensor],
        keys: tuple[Tensor, Tensor],
        positive: Tensor,
        slow: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Cross-entropy of each image over all texts and of each text over all images, `positive [b, n]` the true ones.

        `own`, `keys`, `slow` hold features of images and texts; those of the momentum towers soften the targets.
        """
        true = positive.to(own[0].dtype)
        true = true / true.sum(1, keepdim=True)
        soft = self.alpha * (min(1.0, int(self.step) / self.ramp_steps) if self.ramp_steps else 1.0)
        losses = []
        for i in (0, 1):
            target = true
            if slow is not None:
                guess = self._logits(slow[i], keys[1 - i]).detach().softmax(1)
                target = soft * guess + (1 - soft) * true
            losses.append(-(target * self._logits(own[i], keys[1 - i]).log_softmax(1)).sum(1))
        return mean((losses[0] + losses[1]) / 2)

    def _logits(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return x @ y.T / self.temp

    @torch.no_grad()
    def _negatives(
        self, own: tuple[Tensor, Tensor], world: tuple[Tensor, Tensor], same: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`[b]` a wrong image for each text and `[b]` a wrong text for each image: pairs of the global batch."""
        start, total = place(len(same), same.device)
        # Drawn on the CPU for the global batch: the same in any number of processes, on any device.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.step))
        draws = torch.rand(2, total, generator=generator)[:, start : start + len(same)]
        return (
            draw_negatives(self._logits(own[1], world[0]), same, draws[0]),
            draw_negatives(self._logits(own[0], world[1]), same, draws[1]),
        )

    def _match(self, image: Ragged, words: Ragged, other_image: Tensor, other_text: Tensor, trace: Trace) -> Tensor:
        """Matching loss of the true pairs, each text with a wrong image and each image with a wrong text."""
        pairs = len(image.lengths)
        own = torch.arange(pairs) + place(pairs, image.values.device)[0]
        image, words = gather_ragged(image), gather_ragged(words)
        has_image, has_text = other_image >= 0, other_text >= 0
        image_of = torch.cat([own, other_image[has_image], own[has_text]])
        text_of = torch.cat([own, own[has_image], other_text[has_text]])
        used, image_index = image_of.unique(return_inverse=True)
        ids, mask = words.select(text_of).padded()
        ids = ids[..., 0]
        if self.match_token_id is not None:
            ids = torch.cat([torch.full_like(ids[:, :1], self.match_token_id), ids[:, 1:]], 1)
        logits, matched = self.model.match(image.select(used), image_index, ids, mask)
        for block in matched.blocks:
            some = {
                name: None if (value := getattr(block, name)) is None else value[:pairs]
                for name in ("tokens_in", "tokens_out", "threshold", "merged", "work", "full")
            }
            trace.blocks.append(replace(block, **some))
        true = (torch.arange(len(logits), device=logits.device) < pairs).long()
        return mean(nn.functional.cross_entropy(_wide(logits), true, reduction="none"))

    @torch.no_grad()
    def follow(self) -> None:
        """Keep the temperature in its range and move the momentum towers a little towards the model.

        Where both are sharded, they are so alike: every process moves its own parts.
        """
        self.temp.clamp_(*TEMPERATURES)
        if self.towers is None or self.momentum is None:
            return
        self.towers.madtp_guidance.semantic_tokens = self.model.madtp_guidance.semantic_tokens
        theirs = dict(self.model.named_parameters())
        for name, parameter in self.towers.named_parameters():
            if parameter is not theirs[name]:
                parameter.lerp_(theirs[name], 1 - self.momentum)
        closed = dict(self.model.named_buffers())
        for name, buffer in self.towers.named_buffers():
            if name.endswith(".open"):  # of what `madtp.model.narrow` takes out, in these towers too
                buffer.copy_(closed[name])

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Everything but the model: momentum towers, queue, temperature of the contrast, step."""
        state, prefix = super().state_dict(*args, **kwargs), kwargs.get("prefix", "")
        model = (f"{prefix}model.", f"{prefix}towers.madtp_guidance.semantic_tokens")
        for name in [name for name in state if name.startswith(model)]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Go on from a `state_dict`, `strict` or not; the model has its own.

        Raises:
            InputError: it is of other towers or another queue.
        """
        mine = {name: value.shape for name, value in self.state_dict().items()}
        theirs = {name: value.shape for name, value in state_dict.items()}
        other = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        if other:
            raise InputError(f"is of other momentum towers or another queue: {other[0]} differs", "training state")
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def _momentum_towers(model: Any) -> Any:
    """A copy of the model that no optimiser moves. It prunes as the model does at any time, by the same tokens."""
    towers = copy.deepcopy(model).requires_grad_(False)
    for module in list(towers.modules()):
        for name in _MATCHING:
            module._modules.pop(name, None)
    for parameter in towers.parameters():
        parameter.grad = None
    towers.madtp_guidance.semantic_tokens = model.madtp_guidance.semantic_tokens
    towers.config = model.config
    return towers


def _wide(x: Tensor) -> Tensor:
    """Float32 at least: similarities are divided by a small temperature."""
    return x if x.dtype == torch.float64 else x.float()
