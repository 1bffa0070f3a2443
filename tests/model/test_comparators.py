"""Comparators inside models: ToMe's sizes, smaller pictures, the first block to prune."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from madtp.data.load import TASKS
from madtp.errors import InputError
from madtp.model.config import PruneConfig
from madtp.model.presets import random_inputs
from madtp.model.shape import kind_of
from madtp.prune import METHODS, Trace, downsample
from madtp.task.base import cost
from model.tiny import GRID, IMAGE, batch_of, tiny_examples, tiny_model
from small import KINDS, nano


def inputs(generator: torch.Generator, count: int = 3) -> dict[str, Any]:
    batch = batch_of(tiny_examples(generator, count), dtype=torch.float64)
    return {key: value for key, value in batch.items() if not key.startswith("decoder")}


@torch.no_grad()
@pytest.mark.parametrize("backend", ["auto", "dense", "blocked"])
def test_tome_loses_nothing_where_all_patches_are_alike(backend: str, generator: torch.Generator) -> None:
    """A token that stands for several is attended to as they would be: proportional attention."""
    model = tiny_model(method="tome", attention=backend).double()
    embeddings = model.vision_model.embeddings
    embeddings.position_embedding[:, 1:] = embeddings.position_embedding[:, 1:2].clone()
    batch = inputs(generator)
    batch["pixel_values"] = torch.randn(len(batch["pixel_values"]), 3, 1, 1).double().expand(-1, -1, IMAGE, IMAGE)
    seer = model._pruner("vision", trace := Trace(), gather=False, provenance=False)
    dense = model.vision_model(batch["pixel_values"], seer, backend).first()
    model.temperature = 0.2
    seer = model._pruner("vision", trace, gather=False, provenance=False)
    torch.testing.assert_close(model.vision_model(batch["pixel_values"], seer, backend).first(), dense)
    assert seer.size is not None
    assert [float(some.sum()) for some in seer.size.split(trace.tower("vision")[-1].tokens_out[0].item() + 1)] == [
        50
    ] * 3


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", TASKS)
def test_what_looks_at_merged_patches_sees_all_of_them(kind: str, dtype: torch.dtype) -> None:
    """Patches of two sorts, merged with their like: texts and decoders attend to each as to all that it holds."""
    model = nano(kind, method="tome_dynamic").to(dtype)
    embeddings = model.vision_model.embeddings
    embeddings.position_embedding[:, 1:] = embeddings.position_embedding[:, 1:2].clone()
    given = random_inputs(kind_of(model), model.config, 3, 7)
    pixels = given["pixel_values"][:, :, :1, :1].expand_as(given["pixel_values"]).clone().to(dtype)
    pixels[:, :, :, 12:] *= -2  # three of seven columns of patches
    given["pixel_values"] = pixels

    def out() -> dict[str, torch.Tensor]:
        if kind == "caption":
            ids = torch.tensor([[5, 7, 11], [5, 13, 17], [5, 19, 23]])
            written = model.generate(pixel_values=pixels, num_beams=3, max_length=7, min_length=5)
            return {"logits": model(pixels, ids).logits, "written": written}
        encoded = model.encode(**given)
        if kind == "vqa":
            return {"states": encoded.question.values}
        return {"logits": encoded.logits if kind == "retrieval" else model.classify(encoded)}

    dense = out()
    model.temperature = 1e-3
    left = model.encode(**given).trace.tower("vision")[0].tokens_out
    assert bool((left < 20).all()), "of 49"
    for name, merged in out().items():
        torch.testing.assert_close(merged, dense[name], rtol=0, atol=1e-9 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize(
    ("tower", "temperature", "reads"), [("vision", 0.1, True), ("vision", None, False), ("text", 0.1, False)]
)
def test_keys_are_averaged_only_where_they_are_read(tower: str, temperature: float | None, reads: bool) -> None:
    """The dense form that others are timed against has no work of the method's."""
    model = tiny_model(method="tome_dynamic", temperature=temperature)
    pruner = model._pruner(tower, Trace(), gather=False, provenance=False)
    assert (pruner.mean_key(0, torch.ones(7, 3, 5)) is not None) == reads


@torch.no_grad()
def test_a_decoder_sees_all_words_of_a_merged_one() -> None:
    """As if each merged state of a question stood there as often as it holds words."""
    model = nano("vqa", method="tome", temperature=0.3).double()
    given = random_inputs("vqa", model.config, 3, 11)
    encoded = model.encode(given["input_ids"], given["pixel_values"].double())
    question, ids = encoded.question, torch.tensor([[5, 7, 11]])
    assert question.size is not None and bool((question.size > 1).any())
    states, mask = encoded.states()
    for i, times in enumerate(question.size.long().split(question.lengths.tolist())):
        one, more = states[i : i + 1], mask[i : i + 1]
        merged = model.text_decoder(input_ids=ids, encoder_hidden_states=one, encoder_attention_mask=more).logits
        every = question.instance(i).repeat_interleave(times, 0)[None]
        torch.testing.assert_close(merged, model.text_decoder(input_ids=ids, encoder_hidden_states=every).logits)


@torch.no_grad()
def test_tome_takes_the_same_number_from_every_block(generator: torch.Generator) -> None:
    trace = tiny_model(method="tome", temperature=7 / 49).double().encode(**inputs(generator)).trace
    assert [(b.tokens_in[0].item(), b.tokens_out[0].item()) for b in trace.tower("vision")] == [
        (49, 42),
        (42, 35),
        (35, 28),
    ]


@torch.no_grad()
def test_smaller_pictures_are_the_dense_model_on_them(generator: torch.Generator) -> None:
    model, batch = tiny_model(method="downsample", temperature=0.45).double(), inputs(generator)
    encoded = model.encode(**batch)
    assert set(encoded.image.lengths.tolist()) == {26}
    batch["pixel_values"], patches = downsample(batch["pixel_values"], 5, 0.45)
    model.temperature = None
    plain = model.encode(**batch, interpolate_pos_encoding=True)
    assert patches == GRID**2
    torch.testing.assert_close(encoded.question.values, plain.question.values)
    assert [b.full.tolist() for b in encoded.trace.tower("vision")] == [[49] * 3] * 3
    assert all(b.full is None for b in [*plain.trace.blocks, *encoded.trace.tower("text")])


@torch.no_grad()
def test_blocks_before_the_first_prune_nothing(generator: torch.Generator) -> None:
    batch = inputs(generator)
    every, later = (tiny_model(temperature=8.0, first_block=n).double().encode(**batch).trace for n in (0, 2))
    pruned = [[bool((b.tokens_out < b.tokens_in).any()) for b in t.tower("vision")] for t in (every, later)]
    assert pruned == [[True] * 3, [False, False, True]]
    assert [b.threshold is None for b in later.blocks] == [True, True, False, True, True]
    assert [b.guided for b in later.blocks] == [False, False, True, False, False]
    with pytest.raises(InputError, match="no block"):
        PruneConfig(first_block=-1)


@torch.no_grad()
@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_runs_in_every_model(kind: str, method: str) -> None:
    strength = {"temperature": 8.0, "factor": 1.0, "prune_share": 0.3, "distance": 1.0}[METHODS[method].knob]
    model = nano(kind, method=method, temperature=strength)
    given = random_inputs(kind_of(model), model.config, 3, 7)
    trace = model.encode(**given, provenance=True).trace
    run, full = cost(model, trace)
    assert bool((run.vision < full.vision).all())
    for block in trace.blocks:
        shares = [block.provenance.of(i)[1] for i in range(len(block.tokens_out))]
        held = torch.stack([share.sum() for share in shares])
        assert method == "madtp_drop" or torch.allclose(held, block.tokens_out.float(), atol=1e-4)


def test_a_share_of_one_or_more_is_refused() -> None:
    for method in METHODS.values():
        if method.knob == "prune_share":
            with pytest.raises(InputError, match="share"):
                PruneConfig(method=method.name, temperature=1.0)
    assert replace(PruneConfig(method="madtp_unguided"), temperature=3.0).temperature == 3.0
