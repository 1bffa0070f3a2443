"""Retrieval training against a slow twin, in one process and in two, and what it keeps between steps."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.model.ragged import Ragged
from madtp.task.contrast import MomentumContrast
from madtp.task.gather import gather_ragged
from madtp.task.negatives import draw_negatives
from madtp.task.pair_queue import PairQueue
from model.tiny import TEXT_DEPTH, VISION_DEPTH
from model.tiny_retrieval import tiny_retrieval
from task import contrast_steps
from task.contrast_steps import ALPHA, ENC, PAIRS, QUEUE, RAMP, RATE, SEED, STEPS, VARIANTS, make, pairs_of


class Slow:
    """The losses from the maths: one pair at a time, loops, a whole second model as momentum towers.

    Soft and hard targets over batch and queue, both ways; a true and two wrong pairs matched for each pair.
    """

    def __init__(self, contrast: MomentumContrast) -> None:
        self.model, self.temp, self.slow = contrast.model, contrast.temp, copy.deepcopy(contrast.model)
        self.slow.requires_grad_(False)
        self.slow.madtp_guidance.semantic_tokens = self.model.madtp_guidance.semantic_tokens
        self.queue: list[tuple[Tensor, Tensor, int]] = []
        self.step, self.momentum = 0, contrast.momentum

    def towers(self, model: Any, batch: dict[str, Tensor], i: int) -> tuple[Tensor, Tensor, Tensor]:
        ids = batch["input_ids"][i][batch["attention_mask"][i].bool()][None]
        out = model.encode(ids, batch["pixel_values"][i : i + 1], align=True)
        return out.image.feature[0], out.text.feature[0], out.alignment[0]

    def probability(self, image: int, text: int, batch: dict[str, Tensor]) -> Tensor:
        """Log-probabilities of not matching and matching."""
        ids = batch["input_ids"][text][batch["attention_mask"][text].bool()][None].clone()
        ids[0, 0] = ENC
        return self.model(ids, batch["pixel_values"][image : image + 1]).itm_score[0].log_softmax(0)

    def losses(self, batch: dict[str, Tensor]) -> list[Tensor]:
        numbers = batch["image_ids"].tolist()
        if self.momentum is not None:
            with torch.no_grad():
                for m, p in zip(self.slow.parameters(), self.model.parameters(), strict=True):
                    m.copy_(p if m is p else self.momentum * m + (1 - self.momentum) * p)
        fast = [self.towers(self.model, batch, i) for i in range(PAIRS)]
        slow = fast if self.momentum is None else [self.towers(self.slow, batch, i) for i in range(PAIRS)]
        keys = [(v, t, n) for (v, t, _), n in zip(slow, numbers, strict=True)]
        if self.momentum is not None:
            keys = [(v.detach(), t.detach(), n) for v, t, n in keys] + self.queue
        weight = 0.0 if self.momentum is None else ALPHA * min(1, self.step / RAMP)
        itc = torch.zeros((), dtype=torch.float64)
        for i in range(PAIRS):
            for side in (0, 1):
                power = [(fast[i][side] @ key[1 - side] / self.temp).exp() for key in keys]
                soft = [(slow[i][side] @ key[1 - side] / self.temp).exp().item() for key in keys]
                positives = sum(key[2] == numbers[i] for key in keys)
                for j, key in enumerate(keys):
                    target = weight * soft[j] / sum(soft) + (1 - weight) * (key[2] == numbers[i]) / positives
                    itc = itc - target * (power[j] / sum(power)).log() / (2 * PAIRS)
        if self.momentum is not None:
            self.queue = (self.queue + [(v, t, n) for v, t, n in keys[:PAIRS]])[-QUEUE:]
        itm = torch.zeros((), dtype=torch.float64)
        draws = torch.rand(2, PAIRS, generator=torch.Generator().manual_seed(SEED * 1_000_003 + self.step)).tolist()
        for i in range(PAIRS):
            itm = itm - self.probability(i, i, batch)[1]
            for side in (1, 0):  # a wrong image for the text, a wrong text for the image
                likeness = [
                    math.exp(float((fast[i][side] @ fast[j][1 - side] / self.temp).detach())) for j in range(PAIRS)
                ]
                likeness = [x * (numbers[j] != numbers[i]) for j, x in enumerate(likeness)]
                point, other = draws[1 - side][i] * sum(likeness), 0
                while point >= likeness[other]:
                    point -= likeness[other]
                    other += 1
                itm = itm - self.probability(*((other, i) if side == 1 else (i, other)), batch)[0]
        self.step += 1
        parts = [itc, itm / (3 * PAIRS), torch.stack([a for _, _, a in fast]).mean()]
        return parts if self.momentum is None else [*parts, torch.stack([a for _, _, a in slow]).mean()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients_are_the_slow_twins(variant: str) -> None:
    """Three steps: the queue of seven wraps around, the momentum towers fall behind, the ramp ends."""
    contrast = make(variant)
    twin = Slow(contrast)
    trained = {name: p for name, p in contrast.named_parameters() if p.requires_grad}
    for step in range(STEPS):
        batch = pairs_of(step)
        expected = twin.losses(batch)
        total = expected[0] + expected[1] + 0.1 * sum(expected[2:])
        wanted = dict(zip(trained, torch.autograd.grad(total, list(trained.values())), strict=True))
        losses = contrast(**batch)
        contrast.zero_grad()
        losses.total(0.1).backward()
        for ours, theirs in zip([x for x in losses[:4] if x is not None], expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-9)
        for name, p in trained.items():
            assert torch.allclose(p.grad, wanted[name], rtol=0, atol=1e-9), name
        with torch.no_grad():
            for p in trained.values():
                p -= RATE * p.grad


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_all_but_the_momentum_towers(variant: str) -> None:
    contrast = make(variant)
    for step in range(STEPS):  # in the first, the momentum towers are the model
        losses = contrast(**pairs_of(step))
    losses.total(0.1).backward()
    for name, p in contrast.named_parameters():
        if name.startswith("towers."):
            assert p.grad is None, name
        else:
            assert float(p.grad.abs().max()) > (1e-18 if "key.bias" in name else 1e-9), name
    assert (losses.align_momentum is None) == (variant == "plain")


def test_momentum_alignment_reaches_the_semantic_tokens_and_nothing_else() -> None:
    contrast = make("momentum")
    contrast(**pairs_of(0)).align_momentum.backward()
    reached = {name for name, p in contrast.named_parameters() if p.grad is not None}
    assert reached == {"model.madtp_guidance.semantic_tokens"}
    contrast.align_momentum = False
    losses = contrast(**pairs_of(1))
    assert not losses.align_momentum.requires_grad
    assert float(losses.align_momentum) > 0


@torch.no_grad()
def test_momentum_towers_prune_as_the_model_does_at_any_time() -> None:
    contrast = make("momentum")
    contrast.model.renew_semantic_tokens(11)
    for temperature in (4.0, None, 0.5):
        contrast.model.temperature = temperature
        losses = contrast(**pairs_of(0))
        pixels = pairs_of(0)["pixel_values"]
        model, towers = contrast.model.see(pixels), contrast.towers.see(pixels)
        assert model.tokens.lengths.tolist() == towers.tokens.lengths.tolist()
        assert torch.equal(model.feature, towers.feature)
        assert (losses.align is None) == (losses.align_momentum is None) == (temperature is None)


@torch.no_grad()
@pytest.mark.parametrize(("method", "strength"), [("madtp", 1.0), ("tome", 0.3)])
def test_the_trace_is_of_the_true_pairs(method: str, strength: float) -> None:
    contrast = make("momentum", method=method, temperature=strength)
    batch = pairs_of(0)
    trace = contrast(**batch).trace
    numbers = batch.pop("image_ids")
    expected = contrast.model.encode(**batch, match=True, match_token_id=ENC).trace
    assert len(trace.blocks) == VISION_DEPTH + 2 * TEXT_DEPTH
    assert trace.image_index.tolist() == list(range(len(numbers)))
    for i in range(PAIRS):
        assert trace.steps(i) == expected.steps(i)
    assert any(bool((b.tokens_out < b.tokens_in).any()) for b in trace.blocks)
    counted = [x for b in trace.blocks for x in (b.merged, b.work, b.threshold) if x is not None]
    assert counted and all(len(x) == PAIRS for x in counted), "what the cost is computed from"


def test_sizes_are_gathered_with_their_tokens() -> None:
    tokens = Ragged(torch.arange(6.0).view(3, 2), torch.tensor([1, 2]), torch.tensor([3.0, 1, 5]))
    together = gather_ragged(tokens)
    assert torch.equal(together.size, tokens.size) and torch.equal(together.values, tokens.values)


@torch.no_grad()
def test_one_image_alone_is_matched_with_no_wrong_text() -> None:
    contrast = make("momentum")
    batch = pairs_of(0) | {"image_ids": torch.full((PAIRS,), 3)}
    losses = contrast(**batch)
    del batch["image_ids"]
    logits = contrast.model.encode(**batch, match=True, match_token_id=ENC).logits
    assert torch.allclose(losses.itm, -logits.log_softmax(1)[:, 1].mean())


@torch.no_grad()
def test_a_model_that_has_come_apart_has_a_loss_of_nan() -> None:
    """Which training stops at with a word; a wrong partner of a number that is none would be our fault."""
    contrast = make("momentum")
    contrast.model.text_proj.weight.fill_(math.nan)
    losses = contrast(**pairs_of(0))
    assert math.isnan(float(losses.itc))


@torch.no_grad()
def test_a_model_without_matching() -> None:
    """As CLIP: contrast and alignment alone."""

    class Towers(type(tiny_retrieval())):
        match = None

    model = tiny_retrieval(temperature=1.0).double()
    wanted = MomentumContrast(model, QUEUE).double()(**pairs_of(0))
    model.__class__ = Towers
    losses = MomentumContrast(model, QUEUE).double()(**pairs_of(0))
    assert losses.itm is None
    assert torch.equal(losses.itc, wanted.itc)
    assert torch.equal(losses.align, wanted.align)
    assert {b.tower for b in losses.trace.blocks} == {"vision", "text"}
    assert torch.allclose(losses.total(0.3), losses.itc + 0.3 * (losses.align + losses.align_momentum))


@torch.no_grad()
def test_a_resumed_run_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    contrast, again = make("momentum"), make("momentum")
    for step in range(2):
        contrast(**pairs_of(step))
        for p in contrast.parameters():
            if p.requires_grad:
                p.mul_(1.01)
    torch.save(contrast.state_dict(), tmp_path / "state.pt")
    again.model.load_state_dict(contrast.model.state_dict())
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert not any(name.startswith("model.") or "crossattention" in name for name in state)
    again.load_state_dict(state)
    assert again.towers.madtp_guidance.semantic_tokens is again.model.madtp_guidance.semantic_tokens
    for ours, theirs in zip(again(**pairs_of(2))[:4], contrast(**pairs_of(2))[:4], strict=True):
        assert torch.equal(ours, theirs)
    other = MomentumContrast(tiny_retrieval(), QUEUE + 2).double()
    with pytest.raises(InputError, match="queue"):
        other.load_state_dict(state)
    contrast.model.save_pretrained(tmp_path / "model")
    assert set(contrast.model.state_dict()) == set(tiny_retrieval(stock=False).state_dict())


@torch.no_grad()
def test_evaluation_changes_nothing() -> None:
    contrast = make("momentum")
    contrast(**pairs_of(0))
    before = {name: value.clone() for name, value in contrast.state_dict().items()}
    contrast.eval()
    one, other = contrast(**pairs_of(1)), contrast(**pairs_of(1))
    assert torch.equal(one.itc, other.itc)
    assert torch.equal(one.itm, other.itm)
    assert all(torch.equal(value, before[name]) for name, value in contrast.state_dict().items())


@torch.no_grad()
def test_the_temperature_stays_in_its_range() -> None:
    contrast = make("momentum")
    for value, kept in ((7.0, 0.5), (-1.0, 0.001)):
        contrast.temp.fill_(value)
        losses = contrast(**pairs_of(0))
        assert float(contrast.temp) == pytest.approx(kept)
        assert bool(torch.stack(losses[:4]).isfinite().all())


def test_wrong_settings_and_calls() -> None:
    model = tiny_retrieval()
    for wrong in ({"queue_size": -1}, {"momentum": None}, {"momentum": 1.0}, {"alpha": 1.1}):
        with pytest.raises(InputError):
            MomentumContrast(model, **{"queue_size": 3} | wrong)
    with pytest.raises(ValueError, match="pairs"):
        make("plain")(**pairs_of(0) | {"image_ids": torch.arange(PAIRS + 1)})


def test_negatives_are_drawn_by_similarity_and_never_of_the_same_image(generator: torch.Generator) -> None:
    logits = torch.tensor([[9.0, 0.0, 1.0, -1.0, 9.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    same = torch.tensor([[True, False, False, False, True], [True, True, True, True, True]])
    n = 20011
    drawn = draw_negatives(logits[:1].expand(n, 5), same[:1].expand(n, 5), torch.rand(n, generator=generator))
    share = torch.bincount(drawn, minlength=5) / n
    expected = torch.tensor([0.0, 0.0, 1.0, -1.0, 0.0]).masked_fill(same[0], -torch.inf).softmax(0)
    assert torch.allclose(share, expected, atol=0.01)
    assert share[0] == share[4] == 0
    assert draw_negatives(logits, same, torch.tensor([0.0, 0.0])).tolist() == [1, -1]
    largest = torch.tensor([1.0]).nextafter(torch.tensor([0.0]))
    assert draw_negatives(logits[:1], same[:1], largest).tolist() == [3]
    # a temperature of 0.001 leaves all weights but the true pair's at nothing: masked after the softmax, none is left
    assert draw_negatives(logits[:1] * 1000, same[:1], torch.tensor([0.7])).tolist() == [2]


@pytest.mark.parametrize("size", [0, 1, 5, 7])
def test_the_queue_holds_the_newest(size: int) -> None:
    queue, pushed = PairQueue(size, 3), 0
    none = torch.empty(0, 3)
    for batch in (2, 3, 3, 11, 1, 2):
        ids = torch.arange(pushed, pushed + batch)
        rows = ids[:, None] + torch.tensor([0.0, 0.25, 0.5])
        queue.push(rows, -rows, ids)
        pushed += batch
        image, text, held = queue.behind(none, none, ids[:0])
        assert sorted(held.tolist()) == list(range(pushed))[-size:] if size else not len(held)
        assert torch.equal(image[:, 0].long(), held)
        assert torch.equal(text, -image)


def test_two_processes_are_one_with_the_global_batch(tmp_path: Path) -> None:
    """Losses, gradients and all that is kept, over three steps, with 2 pairs in one process and 3 in the other."""
    torch.multiprocessing.spawn(contrast_steps.process, (str(tmp_path),), nprocs=2)
    for variant in VARIANTS:
        alone = contrast_steps.train(variant)
        for rank in (0, 1):
            done = torch.load(tmp_path / f"{variant}.{rank}.pt", weights_only=True)
            for ours, theirs in zip(done["losses"], alone.losses, strict=True):
                assert torch.allclose(torch.stack(ours), torch.stack(theirs), rtol=0, atol=1e-9)
            for ours, theirs in zip(done["gradients"], alone.gradients, strict=True):
                assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-9) for name in theirs)
            assert done["state"].keys() == alone.state.keys()
            for name, value in alone.state.items():
                assert torch.allclose(done["state"][name], value, rtol=0, atol=1e-9), name
