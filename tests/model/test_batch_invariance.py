"""An answer does not depend on its batch: alone, with others, in another order, under any padding."""

from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from model.tiny import Example, batch_of, tiny_examples, tiny_model

BATCHES = 200
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0.2},
    {"temperature": 1.0},
    {"temperature": 8.0},
    {"temperature": 64.0, "attention": "dense"},
    {"temperature": 8.0, "method": "madtp_nearest"},
    {"temperature": 0.3, "method": "class_attention"},
    {"temperature": 0.3, "method": "random"},
    {"temperature": 0.15, "method": "tome"},
    {"temperature": 0.02, "method": "tome_dynamic"},
    {"temperature": 0.15, "method": "crossget"},
    {"temperature": 0.5, "method": "downsample"},
    {"temperature": 8.0, "method": "madtp_drop", "first_block": 1},
]


@torch.no_grad()
def run(model: Any, examples: list[Example], generator: torch.Generator | None, dtype: torch.dtype) -> list[list[dict]]:
    """For each example and question: what became of every patch and word, the logits and the alignment."""
    batch = batch_of(examples, generator, dtype)
    out = model(**batch, align=True, provenance=True)
    vision, text = out.trace.tower("vision"), out.trace.tower("text")
    results: list[list[dict]] = [[] for _ in examples]
    for j, i in enumerate(batch["image_index"].tolist()):
        places = [block.provenance.of(i) for block in vision] + [block.provenance.of(j) for block in text]
        results[i].append(
            {
                "owner": torch.cat([owner for owner, _ in places]),
                "share": torch.cat([share for _, share in places]),
                "steps": [
                    (int(b.tokens_in[k]), int(b.tokens_out[k])) for k, bs in ((i, vision), (j, text)) for b in bs
                ],
                "logits": out.logits[j, : int(batch["decoder_attention_mask"][j].sum())],
                "alignment": out.encoded.alignment[j],
            }
        )
    return results


def differs(one: dict, other: dict) -> bool:
    """True if another token was kept somewhere."""
    return one["steps"] != other["steps"] or not torch.equal(one["owner"], other["owner"])


def assert_close(one: dict, other: dict, tolerance: float) -> None:
    for name in ("logits", "alignment"):
        ours, theirs = one[name].double(), other[name].double()
        assert torch.allclose(ours, theirs, rtol=0, atol=tolerance), (name, float((ours - theirs).abs().max()))
    assert torch.allclose(one["share"], other["share"], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def models() -> dict[torch.dtype, list[Any]]:
    def make(dtype: torch.dtype) -> list[Any]:
        return [tiny_model(seed=i, stock=i % 2 == 0, **settings).to(dtype) for i, settings in enumerate(SETTINGS)]

    return {dtype: make(dtype) for dtype in (torch.float32, torch.float64)}


def test_two_hundred_batches(
    models: dict[torch.dtype, list[Any]], generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch in float64 twice, permuted and padded otherwise or one question alone; every other in float32."""
    # Half of the time would go into checking shapes, which the other tests of this file do.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    pruned = flipped = compared = 0
    for number in range(BATCHES):
        turn, which = divmod(number, len(SETTINGS))
        count = int(torch.randint(1, 5, (), generator=generator))
        examples = tiny_examples(generator, count)
        together = run(models[torch.float64][which], examples, generator, torch.float64)
        if turn % 2:
            order = torch.randperm(count, generator=generator).tolist()
            mixed = run(models[torch.float64][which], [examples[i] for i in order], generator, torch.float64)
            pairs = [(a, b) for k, i in enumerate(order) for a, b in zip(together[i], mixed[k], strict=True)]
        else:
            i = int(torch.randint(0, count, (), generator=generator))
            j = int(torch.randint(0, len(examples[i].questions), (), generator=generator))
            single = Example(examples[i].image, (examples[i].questions[j],), (examples[i].answers[j],))
            pairs = [(together[i][j], run(models[torch.float64][which], [single], None, torch.float64)[0][0])]
        for one, other in pairs:
            pruned += any(before > after for before, after in one["steps"])
            assert not differs(one, other)
            assert_close(one, other, 1e-9)
        if turn // 2 % 2:
            continue
        rounded = run(models[torch.float32][which], examples, generator, torch.float32)
        for one, other in ((a, b) for x, y in zip(together, rounded, strict=True) for a, b in zip(x, y, strict=True)):
            compared += 1
            if differs(one, other):  # a score within rounding of the threshold
                flipped += 1
            else:
                assert_close(one, other, 1e-4)
    assert pruned > BATCHES  # there was something to disagree on
    assert flipped <= 0.01 * compared


@torch.no_grad()
def test_every_question_alone(models: dict[torch.dtype, list[Any]], generator: torch.Generator) -> None:
    for model in models[torch.float64]:
        examples = tiny_examples(generator, images=2, most_questions=4)
        together = run(model, examples, generator, torch.float64)
        for example, results in zip(examples, together, strict=True):
            for question, answer, result in zip(example.questions, example.answers, results, strict=True):
                alone = run(model, [Example(example.image, (question,), (answer,))], None, torch.float64)[0][0]
                assert not differs(alone, result)
                assert_close(alone, result, 1e-9)


@torch.no_grad()
def test_generated_and_ranked_answers(generator: torch.Generator) -> None:
    model = tiny_model(temperature=1.0).double()
    examples = tiny_examples(generator, images=4)
    candidates = batch_of(tiny_examples(generator, images=7, most_questions=1))
    answers = {
        "answer_ids": candidates["decoder_input_ids"],
        "answer_mask": candidates["decoder_attention_mask"],
    }

    def answer(examples: list[Example], generator: torch.Generator | None) -> tuple[list[list[int]], list[int]]:
        batch = batch_of(examples, generator, torch.float64)
        batch = {k: v for k, v in batch.items() if not k.startswith("decoder")}
        words: Tensor = model.generate(**batch, num_beams=3, max_new_tokens=5, do_sample=False)
        return [[w for w in row if w] for row in words.tolist()], model.rank(**batch, **answers, k=3).tolist()

    words, ranks = answer(examples, generator)
    alone = [
        answer([Example(e.image, (q,), (a,))], None)
        for e in examples
        for q, a in zip(e.questions, e.answers, strict=True)
    ]
    assert words == [w[0] for w, _ in alone]
    assert ranks == [r[0] for _, r in alone]
    assert len(set(map(tuple, words))) > 1


def test_the_test_can_fail(models: dict[torch.dtype, list[Any]], generator: torch.Generator) -> None:
    model = models[torch.float64][1]
    one, other = tiny_examples(generator, images=2, most_questions=1)
    swapped = Example(other.image, one.questions, one.answers)
    a, b = (run(model, [e], None, torch.float64)[0][0] for e in (one, swapped))
    assert differs(a, b)
    with pytest.raises(AssertionError):
        assert_close(a, b, 1e-4)
