"""GFLOPs are arithmetic over a trace: by hand, against torch's own counter, and against the public code's counts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from goldens import golden_file
from madtp.cost.flops import count, count_dense, count_least, reduction
from madtp.cost.shape import Decoder, Shape, Tower, dense_trace
from madtp.model.presets import config_of
from madtp.model.shape import shape_of
from madtp.prune import METHODS, BlockTrace, Trace
from madtp.task.base import cost
from model.tiny import START, Example, batch_of, tiny_examples, tiny_model

GOLDEN = json.loads(golden_file("flops_nlvr_base.json").read_text())

# 3 patches of 5 numbers each; image tower of width 2 with one layer; text tower and decoder of width 3.
HAND = Shape(
    patches=3,
    vision=Tower(width=2, layers=1, mlp=7, stem=3 * 5 * 2),
    text=Tower(width=3, layers=1, mlp=11, context=2),
    decoder=Decoder(width=3, layers=1, mlp=11, vocabulary=13, context=3),
    semantic_width=3,
)


def trace_of(vision: Sequence[tuple[int, int]], text: Sequence[tuple[int, int]], decoder: int = 0) -> Trace:
    """The trace of one image and one text: content tokens `(in, out)` block by block; `decoder` steps of one answer."""
    blocks = [
        BlockTrace(tower, i, torch.tensor([before]), torch.tensor([after]))
        for tower, steps in (("vision", vision), ("text", text))
        for i, (before, after) in enumerate(steps)
    ]
    trace = Trace(blocks, image_index=torch.tensor([0]))
    if decoder:
        trace.decoder_tokens = torch.tensor([decoder])
        trace.decoder_pairs = torch.tensor([decoder * (decoder + 1) // 2])
        trace.decoder_sequences = torch.tensor([1])
    return trace


def macs(shape: Shape, trace: Trace) -> tuple[float, float, float]:
    flops = count(shape, trace)
    return tuple(round(1e9 * float(part), 3) for part in (flops.vision, flops.text, flops.decoder))  # type: ignore[return-value]


def test_dense_by_hand() -> None:
    vision = 3 * 5 * 2  # convolution
    vision += 4 * 2 * 6 + 4 * 2 * 2  # qkv and projection of 3 + 1 tokens
    vision += 2 * 4 * 4 * 2  # scores and weighted values
    vision += 2 * 4 * 2 * 7
    text = 3 * 3 * 9 + 3 * 3 * 3  # qkv and output of 2 + 1 tokens
    text += 2 * 3 * 3 * 3
    text += 2 * 3 * 3 * 3 + 2 * 4 * 2 * 3  # cross-attention: query and output of 3 tokens, key and value of 4
    text += 2 * 3 * 4 * 3
    text += 2 * 3 * 3 * 11
    decoder = 2 * (4 * 9 + 2 * 9 + 2 * 3 * 11 + 9 + 3 * 13)  # two steps: attention, cross-attention, MLP, head
    decoder += 2 * 3 * (1 + 2) + 2 * 3 * 2 * 3  # to itself: 1 and 2 keys; to the question's 3 states
    decoder += 2 * 3 * 3 * 3  # keys and values of those states, once
    assert (vision, text, decoder) == (270, 534, 444)
    assert macs(HAND, trace_of([(3, 3)], [(2, 2)], decoder=2)) == (270, 534, 444)
    assert macs(HAND, trace_of([(3, 3)], [(2, 2)])) == (270, 534, 0)


def test_pruning_by_hand() -> None:
    """One patch of three is kept, two become the merged token; of three words one stays beside a merged one."""
    shape = replace(HAND, semantic=5, vision=replace(HAND.vision, mapped=True))
    vision = 270 - 2 * 2 * 7  # the MLP sees one token less
    vision += 4 * 2 * 3 + 4 * 3 * 5  # the map to the text's width, and the affinity, of all 4 tokens
    vision += 3 * 5  # threshold
    vision += 2 * 2  # two tokens of width 2 are merged
    text = 4 * 4 * 9 + 2 * 4 * 4 * 3  # self-attention of 3 + 1 tokens
    text += 2 * 3 * 9 + 2 * 3 * 2 * 3 + 2 * 3 * 3 * 3  # cross-attention of 2 + 1 tokens to 2 + 1 image tokens
    text += 2 * 3 * 3 * 11
    text += 4 * 3 * 5 + 3 * 5 + 2 * 3
    assert macs(shape, trace_of([(3, 2)], [(3, 2)])) == (vision, text, 0)


def test_features_are_counted_only_if_computed() -> None:
    plain, training = (replace(HAND, semantic=5, features=f) for f in (False, True))
    trace = trace_of([(3, 3)], [(2, 2)])
    more = [b - a for a, b in zip(macs(plain, trace), macs(training, trace), strict=True)]
    assert more == [3 * 5 * 3, 2 * 5 * 3, 0]


def test_two_images_are_merged_from_a_layer_on() -> None:
    assert HAND.text is not None
    one = replace(HAND, text=replace(HAND.text, layers=2, merged_from=1))
    single = trace_of([(3, 3)], [(2, 2)] * 2)
    pair = trace_of([(3, 3)], [(2, 2)] * 2)
    pair.blocks[0] = BlockTrace("vision", 0, torch.tensor([3, 3]), torch.tensor([3, 3]))
    pair.image_index = torch.tensor([[0, 1]])
    cross = 2 * 3 * 9 + 2 * 4 * 2 * 3 + 2 * 3 * 4 * 3
    vision, text, _ = macs(one, single)
    assert macs(one, pair) == (2 * vision, text + 2 * cross + 3 * 2 * 3 * 3, 0)


def test_retrieval_by_hand() -> None:
    """Text tower alone and with cross-attention, a head each; the match is no part of the features."""
    assert HAND.text is not None
    alone, both = replace(HAND.text, context=0, head=17), replace(HAND.text, head=19)
    shape = replace(HAND, vision=replace(HAND.vision, head=23), text=alone, match=both, decoder=None)
    trace = dense_trace(shape, text_tokens=3)
    assert trace.steps() == [("vision", 3, 3), ("text", 2, 2), ("match", 2, 2)]
    flops = count(shape, trace)
    cross = 2 * 3 * 9 + 2 * 4 * 2 * 3 + 2 * 3 * 4 * 3
    assert [round(1e9 * float(x)) for x in (flops.vision, flops.text, flops.match)] == [293, 534 - cross + 17, 553]
    assert float(flops.features) == float(flops.vision + flops.text)
    assert float(flops.total) == pytest.approx(float(flops.features + flops.match))
    trace.blocks = trace.blocks[:2]
    assert float(count(shape, trace).total) == float(flops.features)


def test_captioning_by_hand() -> None:
    """No text tower: the decoder attends to the image tokens, two captions of three images' last."""
    assert HAND.decoder is not None
    shape = replace(HAND, text=None, decoder=replace(HAND.decoder, context=2))
    trace = dense_trace(shape, text_tokens=2)
    own = 2 * (4 * 9 + 2 * 9 + 2 * 3 * 11 + 9 + 3 * 13) + 2 * 3 * (1 + 2)
    seen = 2 * 3 * 2 * 4 + 2 * 2 * 3 * 4  # two tokens look at 4 image tokens of width 2
    assert macs(shape, trace) == (270, 0, own + seen)
    trace.decoder_logits = torch.tensor([1])
    assert macs(shape, trace) == (270, 0, own + seen - (9 + 3 * 13))
    trace.decoder_logits = None
    three, out = torch.tensor([3, 3, 3]), torch.tensor([3, 3, 1])
    trace.blocks = [BlockTrace("vision", 0, three, out)]
    trace.image_index = torch.tensor([2, 2])
    trace.decoder_tokens, trace.decoder_pairs = torch.tensor([2, 2]), torch.tensor([3, 3])
    trace.decoder_sequences = torch.tensor([1, 1])
    flops = count(shape, trace)
    fewer = 2 * (3 - 1) * 2 * 7 - (3 - 1 + 1) * 2  # the MLP sees two tokens less; three are merged
    assert (1e9 * flops.vision).round().tolist() == [270 - fewer] * 2
    assert (1e9 * flops.decoder).round().tolist() == [own + seen // 2] * 2
    assert (1e9 * count_dense(shape, trace).total).round().tolist() == [270 + own + seen] * 2


def test_least_leaves_two_tokens_after_each_first_block() -> None:
    shape = replace(HAND, vision=replace(HAND.vision, layers=2))
    trace = trace_of([(3, 3), (3, 3)], [(2, 2)], decoder=2)
    least = trace_of([(3, 2), (2, 2)], [(2, 2)], decoder=2)
    assert float(count_least(shape, trace).total) == float(count(shape, least).total)


@pytest.mark.parametrize("entry", GOLDEN, ids=lambda entry: f"t{entry['temperature']:g}")
def test_published_model(entry: dict[str, Any]) -> None:
    """BLIP-B for NLVR2 as the public code runs it: within half a percent, and every operation of the difference named.

    It prunes the two images of a pair as one batch and keeps the same number in both, so one trace counts for both.
    Its `layer_norm` entry is no multiply-accumulate and is left out. The tracing counter sees only what flows into the
    output: not the semantic features, and the affinity only of blocks that go on to prune.
    """
    width, k = 768, 100
    dense = shape_of(config_of("blip-base-nlvr2"), "reasoning")
    shape = replace(dense, semantic=k) if entry["temperature"] else dense
    words = entry["text_tokens"] - 1
    steps = entry["trace"] or [["vision", 576, 576]] * 12 + [["text", words, words]] * 12
    blocks, unseen = [], 0
    for tower, copies in (("vision", 2), ("text", 1)):
        for i, (_, before, after) in enumerate(step for step in steps if step[0] == tower):
            blocks.append(BlockTrace(tower, i, torch.tensor([before] * copies), torch.tensor([after] * copies)))
            # Affinity of the pooled token, and of all tokens where nothing is pruned; the threshold's elementwise sum.
            unseen += copies * ((1 + before * (after == before)) * width * k + before * k)
    flops = count(shape, Trace(blocks, image_index=torch.tensor([[0, 1]])))
    public = entry["gflops"] - entry["by_operator"]["layer_norm"]
    assert flops.total.shape == (1,)
    assert float(flops.total) == pytest.approx(public, rel=5e-3)
    assert float(flops.total) == pytest.approx(public + (unseen / 1e9 if entry["temperature"] else 0), rel=1e-9)


def without_lone_words(examples: list[Example]) -> list[Example]:
    """Torch does the products of a single query with a single key elementwise, where its counter does not see them."""
    return [e for e in examples if min(map(len, e.questions)) > 1]


def counted(run: Callable[[], object]) -> float:
    """Multiply-accumulates that torch sees; it counts two FLOPs each."""
    plain = patch(
        "madtp.model.linear.computes", return_value=False
    )  # oneDNN's linear maps take spare rows, which are no tokens
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        run()
    return counter.get_total_flops() / 2


def unseen(model: Any, trace: Trace) -> float:
    """What torch's counter does not see, the merge, less what it sees too much of: the threshold over padded tokens."""
    shape = shape_of(model)
    total = 0
    for block in trace.blocks:
        width, longest = shape.tower(block.tower).width, int(block.tokens_in.max())
        threshold = shape.semantic * (block.threshold is not None)
        ones = (block.tokens_out < block.tokens_in).long()
        merged = ones if block.merged is None else block.merged
        for i, (before, after) in enumerate(zip(block.tokens_in.tolist(), block.tokens_out.tolist(), strict=True)):
            padding = longest + 1 - before  # the pooled token among it
            total += (before - after + int(merged[i])) * width * bool(merged[i]) - padding * threshold
        if block.work is not None and model.pruning.method not in (
            "tome_dynamic",
            "madtp_nearest",
        ):  # pairs of padding are compared too
            pairs = longest**2 if model.pruning.method == "crossget" else ((longest + 1) // 2) * (longest // 2)
            total += int(block.work.sum()) - len(ones) * pairs * (width // 2)
    return total


@pytest.mark.parametrize("stock", [True, False], ids=["one width", "two widths"])
@pytest.mark.parametrize("temperature", [None, 0.9, 30.0])
def test_towers_agree_with_torchs_counter(temperature: float | None, stock: bool, generator: torch.Generator) -> None:
    """To the last multiply-accumulate. One question an image, so that each image is counted once."""
    model = tiny_model(stock=stock, temperature=temperature, attention="dense")
    examples = without_lone_words(tiny_examples(generator, 5, most_questions=1, longest=13))[:3]
    inputs = {k: v for k, v in batch_of(examples).items() if not k.startswith("decoder")}
    seen: list[Trace] = []
    total = counted(lambda: seen.append(model.encode(**inputs).trace))
    run, _ = cost(model, seen[0])
    assert len(examples) == 3
    assert any(torch.any(b.tokens_out < b.tokens_in) for b in seen[0].blocks) == (temperature is not None)
    assert not run.decoder.any()
    assert 1e9 * float(run.total.sum()) == pytest.approx(total + unseen(model, seen[0]), rel=1e-9)


@pytest.mark.parametrize("temperature", [None, 30.0])
def test_decoder_agrees_with_torchs_counter(temperature: float | None, generator: torch.Generator) -> None:
    """One answer without padding, teacher-forced: all L x L pairs are computed, and counted."""
    model = tiny_model(temperature=temperature, attention="dense")
    batch = batch_of(without_lone_words(tiny_examples(generator, 3, most_questions=1, longest=13))[:1])
    seen: list[Trace] = []
    total = counted(lambda: seen.append(model(**batch).trace))
    run, _ = cost(model, seen[0])
    assert 1e9 * float(run.total) == pytest.approx(total + unseen(model, seen[0]), rel=1e-9)


@pytest.mark.parametrize("first_block", [0, 1])
@pytest.mark.parametrize(
    ("method", "strength"),
    [
        ("class_attention", 0.3),
        ("random", 0.3),
        ("tome", 0.2),
        ("crossget", 0.2),
        ("elip", 0.4),
        ("madtp_no_self", 30.0),
        ("madtp_robust", 30.0),
        ("madtp_unguided", 1.0),
        ("madtp_static", 0.3),
        ("madtp_drop", 30.0),
    ],
)
def test_every_method_agrees_with_torchs_counter(
    method: str, strength: float, first_block: int, generator: torch.Generator
) -> None:
    model = tiny_model(stock=False, temperature=strength, method=method, attention="dense", first_block=first_block)
    batch = batch_of(without_lone_words(tiny_examples(generator, 5, most_questions=1))[:3])
    inputs = {k: v for k, v in batch.items() if not k.startswith("decoder")}
    trace = model.encode(**inputs).trace
    run, full = cost(model, trace)
    assert (shape_of(model).semantic > 0) == METHODS[method].guided
    for tower in ("vision", "text"):
        pruned = [bool((block.tokens_out < block.tokens_in).any()) for block in trace.tower(tower)]
        acts = tower == "vision" or method != "elip"
        assert pruned == [acts and i >= first_block for i in range(len(pruned))]
    expected = counted(lambda: model.encode(**inputs)) + unseen(model, trace)
    assert 1e9 * float(run.total.sum()) == pytest.approx(expected, rel=1e-9)
    model.temperature = None
    assert 1e9 * float(full.total.sum()) == pytest.approx(counted(lambda: model.encode(**inputs)), rel=1e-9)


@pytest.mark.parametrize("distance", [0.1, 0.4, 2.0])
def test_merging_by_a_threshold_agrees_with_torchs_counter(distance: float, generator: torch.Generator) -> None:
    """One picture, so that there is no padding: every comparison that is made is charged, and no other."""
    model = tiny_model(stock=False, temperature=distance, method="tome_dynamic", attention="dense")
    batch = batch_of(without_lone_words(tiny_examples(generator, 5, most_questions=1))[:1])
    inputs = {k: v for k, v in batch.items() if not k.startswith("decoder")}
    trace = model.encode(**inputs).trace
    left = [int(block.tokens_out) for block in trace.tower("vision")]
    assert left[-1] < 49 and (left[0] == 7) == (distance == 2.0)
    assert all(block.work is None for block in trace.tower("text"))
    run, _ = cost(model, trace)
    expected = counted(lambda: model.encode(**inputs)) + unseen(model, trace)
    assert 1e9 * float(run.total.sum()) == pytest.approx(expected, rel=1e-9)


def test_merging_into_the_nearest_agrees_with_torchs_counter(generator: torch.Generator) -> None:
    """One picture and one question, without padding: the tokens that go are compared with those that stay."""
    model = tiny_model(stock=False, temperature=30.0, method="madtp_nearest", attention="dense")
    batch = batch_of(without_lone_words(tiny_examples(generator, 5, most_questions=1))[:1])
    inputs = {k: v for k, v in batch.items() if not k.startswith("decoder")}
    trace = model.encode(**inputs).trace
    assert all(int(block.work) > 0 for block in trace.blocks if block.work is not None)
    assert {block.tower for block in trace.blocks if block.work is not None} == {"vision", "text"}
    run, _ = cost(model, trace)
    expected = counted(lambda: model.encode(**inputs)) + unseen(model, trace)
    assert 1e9 * float(run.total.sum()) == pytest.approx(expected, rel=1e-9)


def test_smaller_pictures_agree_with_torchs_counter(generator: torch.Generator) -> None:
    """5 x 5 patches of 7 x 7: the convolution too is charged for as many as there are."""
    model = tiny_model(stock=False, temperature=0.45, method="downsample", attention="dense")
    batch = batch_of(without_lone_words(tiny_examples(generator, 5, most_questions=1))[:3])
    inputs = {k: v for k, v in batch.items() if not k.startswith("decoder")}
    trace = model.encode(**inputs).trace
    assert trace.steps()[0] == ("vision", 25, 25) and trace.blocks[0].full is not None
    run, full = cost(model, trace)
    assert 1e9 * float(run.total.sum()) == pytest.approx(counted(lambda: model.encode(**inputs)), rel=1e-9)
    model.temperature = None
    assert 1e9 * float(full.total.sum()) == pytest.approx(counted(lambda: model.encode(**inputs)), rel=1e-9)
    assert 0.3 < reduction(run.total, full.total) < 0.5


def test_generating_counts_every_step_once(generator: torch.Generator) -> None:
    """With the key-value cache each step feeds one token: s steps see 1 + 2 + ... + s keys."""
    model = tiny_model(temperature=30.0, attention="dense").requires_grad_(False)
    batch = batch_of(without_lone_words(tiny_examples(generator, 3, most_questions=1))[:1])
    inputs = {k: v for k, v in batch.items() if not k.startswith("decoder")}
    encoded = model.encode(**inputs)
    made: list[torch.Tensor] = []

    def generate() -> None:
        options = {"min_new_tokens": 5, "max_new_tokens": 5, "do_sample": False, "num_beams": 1}
        made.append(model.generate(**inputs, encoded=encoded, **options))

    total = counted(generate)
    assert int(made[0][0, 0]) == START and made[0].shape == (1, 6)
    trace = encoded.trace
    assert (trace.decoder_tokens, trace.decoder_pairs, trace.decoder_sequences) == (
        torch.tensor([5]), torch.tensor([15]), torch.tensor([1]),
    )  # fmt: skip
    run, _ = cost(model, trace)
    assert 1e9 * float(run.decoder) == pytest.approx(total, rel=1e-9)


def test_an_instance_costs_the_same_alone_and_in_a_batch(generator: torch.Generator) -> None:
    model = tiny_model(temperature=30.0)
    examples = tiny_examples(generator, 5)
    together, dense = cost(model, model(**batch_of(examples)).trace)
    alone = [cost(model, model(**batch_of([example])).trace) for example in examples]
    assert len(set(together.total.tolist())) > 3, "all instances alike would show nothing"
    assert torch.equal(together.total, torch.cat([run.total for run, _ in alone]))
    assert torch.equal(dense.total, torch.cat([full.total for _, full in alone]))


def test_every_question_is_charged_its_image_in_full(generator: torch.Generator) -> None:
    model = tiny_model(temperature=30.0)
    examples = [e for e in tiny_examples(generator, 7) if len(e.questions) > 1][:2]
    batch = batch_of(examples)
    run, _ = cost(model, model(**batch).trace)
    assert run.vision.shape == batch["image_index"].shape
    for image in (0, 1):
        assert len(set(run.vision[batch["image_index"] == image].tolist())) == 1
    assert len(set(run.vision.tolist())) == 2


def test_dense_of_a_pruned_trace_is_the_count_of_the_dense_model(generator: torch.Generator) -> None:
    model = tiny_model(temperature=30.0)
    batch = batch_of(tiny_examples(generator, 3))
    run, dense = cost(model, model(**batch).trace)
    model.temperature = None
    trace = model(**batch).trace
    plain, same = cost(model, trace)
    assert torch.equal(plain.total, dense.total) and torch.equal(plain.total, same.total)
    assert bool((run.vision < dense.vision).all())
    assert shape_of(model).semantic == 0


def test_count_dense_leaves_the_trace_alone() -> None:
    trace = trace_of([(3, 2)], [(3, 2)], decoder=2)
    blocks = list(trace.blocks)
    assert 1e9 * float(count_dense(HAND, trace).vision) == pytest.approx(270)
    assert trace.blocks == blocks


def test_dense_trace_of_a_model() -> None:
    trace = dense_trace(shape_of(tiny_model(stock=False)), text_tokens=13, answer_tokens=3)
    assert trace.steps() == [("vision", 49, 49)] * 3 + [("text", 12, 12)] * 2
    assert [int(x) for x in (trace.decoder_tokens, trace.decoder_pairs, trace.decoder_sequences)] == [3, 6, 1]  # type: ignore[arg-type]


def test_reduction_is_of_the_means() -> None:
    assert reduction(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 14.0])) == pytest.approx(1 - 4 / 16)
    assert reduction(torch.tensor([2.0]), torch.tensor([2.0])) == 0
