"""Visual reasoning: a slow twin of one pair at a time, any images in any order, gradients, and how one is started."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipConfig, BlipForImageTextRetrieval

from madtp.model.blip_reasoning import MadtpBlipForVisualReasoning
from madtp.model.load import quiet_host
from model.tiny import (
    IMAGE,
    SEMANTIC,
    TEXT_DEPTH,
    VISION_DEPTH,
    VOCABULARY,
    Statement,
    randomise,
    statement_batch,
    tiny_config,
    tiny_reasoner,
    tiny_settings,
    tiny_statements,
    tiny_stock,
    tiny_stock_captioner,
)

IMAGES, STATEMENTS = 5, 7
TEMPERATURES = [0.2, 1.0, 8.0, 64.0]


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.randn(IMAGES, 3, IMAGE, IMAGE, generator=generator, dtype=torch.float64)


@pytest.fixture
def statements(generator: torch.Generator) -> list[Statement]:
    return tiny_statements(generator, IMAGES, STATEMENTS)


def twin(model: Any, image: Tensor, words: Tensor, images: tuple[int, int]) -> Tensor:
    """Logits of one statement by the host's own padded attention modules; `image [b, n, c]`, dense."""
    encoder = model.text_encoder
    x = encoder.embeddings(input_ids=words[None])[0]
    x = x if x.dim() == 3 else x[None]
    left, right = (image[i][None] for i in images)
    for layer in encoder.encoder.layer:
        x = layer.attention(x)[0]
        cross = layer.crossattention
        first = cross.output.dense0(cross.self0(x, encoder_hidden_states=left)[0])
        second = cross.output.dense1(cross.self1(x, encoder_hidden_states=right)[0])
        merge = getattr(cross.output, "merge_layer", None)
        both = (first + second) / 2 if merge is None else merge(torch.cat([first, second], -1))
        x = layer.feed_forward_chunk(cross.output.LayerNorm(both + x))
    return model.cls_head(x[:, 0])[0]


@torch.no_grad()
@pytest.mark.parametrize("stock", [True, False])
def test_dense_equals_one_pair_at_a_time(
    stock: bool, images: Tensor, statements: list[Statement], generator: torch.Generator
) -> None:
    model = tiny_reasoner(stock=stock).double()
    out = model(**statement_batch(images, statements, generator))
    image = torch.stack([out.encoded.image.instance(i) for i in range(IMAGES)])
    slow = torch.stack([twin(model, image, s.words, s.images) for s in statements])
    assert torch.allclose(out.logits, slow, rtol=0, atol=1e-10)
    assert float(slow.std(0).min()) > 0.1  # the statements differ
    swapped = twin(model, image, statements[0].words, (statements[0].images[1], statements[0].images[0]))
    assert statements[0].images[0] != statements[0].images[1]
    assert not torch.allclose(swapped, slow[0], rtol=0, atol=1e-3)  # and the two sides


def results(out: Any, statements: list[Statement], numbers: list[int] | None = None) -> list[dict[str, Any]]:
    """What became of every statement and of its two images; `numbers`: where in the batch they are."""
    vision, text = out.trace.tower("vision"), out.trace.tower("text")
    rows = []
    for j, (left, right) in enumerate(out.trace.image_index.tolist()):
        blocks = [(b, i) for i in (left, right) for b in vision] + [(b, j) for b in text]
        rows.append(
            {
                "steps": [(int(b.tokens_in[k]), int(b.tokens_out[k])) for b, k in blocks],
                "owner": torch.cat([b.provenance.of(k)[0] for b, k in blocks]),
                "logits": out.logits[j],
                "alignment": out.encoded.alignment[j],
            }
        )
    return rows


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["steps"] == other["steps"]
    assert torch.equal(one["owner"], other["owner"])
    for name in ("logits", "alignment"):
        assert torch.allclose(one[name], other[name], rtol=0, atol=1e-9), name


@torch.no_grad()
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("stock", [True, False])
def test_batch_invariance(
    temperature: float, stock: bool, images: Tensor, statements: list[Statement], generator: torch.Generator
) -> None:
    model = tiny_reasoner(stock=stock, temperature=temperature).double()

    def run(images: Tensor, statements: list[Statement], padding: torch.Generator | None = None) -> list[Any]:
        out = model(**statement_batch(images, statements, padding), align=True, provenance=True)
        return results(out, statements)

    together = run(images, statements, generator)
    assert any(before > after for row in together for before, after in row["steps"])
    order = torch.randperm(STATEMENTS, generator=generator).tolist()
    place = torch.randperm(IMAGES, generator=generator).tolist()  # image place[k] comes k-th
    moved = [Statement(statements[j].words, tuple(map(place.index, statements[j].images))) for j in order]
    for j, row in zip(order, run(images[place], moved, generator), strict=True):
        assert_same(row, together[j])
    for statement, row in zip(statements, together, strict=True):  # alone, with its images said twice
        alone = run(images[list(statement.images)], [Statement(statement.words, (0, 1))])
        assert_same(alone[0], row)
    assert len({tuple(row["steps"]) for row in together}) > 1


@torch.no_grad()
def test_default_images_are_the_next_two(images: Tensor, statements: list[Statement]) -> None:
    model = tiny_reasoner(temperature=1.0).double()
    two = [Statement(s.words, (2 * i, 2 * i + 1)) for i, s in enumerate(statements[:2])]
    batch = statement_batch(images[:4], two)
    said = model(**batch)
    del batch["image_index"]
    assert torch.equal(model(**batch).logits, said.logits)
    assert said.trace.image_index.tolist() == [[0, 1], [2, 3]]


@torch.no_grad()
def test_keys_are_computed_once_for_all_statements_and_only_of_images_looked_at(
    images: Tensor, generator: torch.Generator
) -> None:
    model = tiny_reasoner(temperature=1.0).double()
    words = tiny_statements(generator, IMAGES, 4)
    pairs = [(3, 0), (1, 0), (3, 0), (3, 1)]
    rows: dict[str, list[int]] = {"self0": [], "self1": []}
    for layer in model.text_encoder.encoder.layer:
        for side, seen in rows.items():
            key = getattr(layer.crossattention, side).key
            key.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(len(inputs[0])))
    out = model(**statement_batch(images, [Statement(w.words, p) for w, p in zip(words, pairs, strict=True)]))
    lengths = out.encoded.image.lengths
    assert set(rows["self0"]) == {int(lengths[[1, 3]].sum())}
    assert set(rows["self1"]) == {int(lengths[[0, 1]].sum())}
    assert len(rows["self0"]) == len(model.text_encoder.encoder.layer)


@torch.no_grad()
def test_losses(images: Tensor, statements: list[Statement]) -> None:
    model = tiny_reasoner(temperature=1.0, alpha=0.3).double()
    batch = statement_batch(images, statements)
    labels = torch.tensor([1, 0, -100, 1, 1, 0, -100])
    out = model(**batch, labels=labels)
    known = labels != -100
    assert torch.allclose(out.loss_task, torch.nn.functional.cross_entropy(out.logits[known], labels[known]))
    assert torch.allclose(out.loss_align, out.encoded.alignment.mean())
    assert torch.allclose(out.loss, out.loss_task + 0.3 * out.loss_align)
    assert float(model(**batch, labels=torch.full_like(labels, -100)).loss_task) == 0
    unlabelled = model(**batch)
    assert unlabelled.loss is unlabelled.loss_task is unlabelled.loss_align is None
    assert torch.equal(model.classify(unlabelled.encoded), unlabelled.logits)
    model.temperature = None
    dense = model(**batch, labels=labels)
    assert dense.loss_align is None and torch.equal(dense.loss, dense.loss_task)


@pytest.mark.parametrize("align", [True, False])
def test_gradients_of_blocked_and_dense_attention_agree(
    align: bool, images: Tensor, statements: list[Statement], generator: torch.Generator
) -> None:
    batch = statement_batch(images, statements, generator)
    labels = torch.arange(STATEMENTS) % 2
    grads = {}
    for backend in ("dense", "blocked"):
        model = tiny_reasoner(stock=False, temperature=1.0, attention=backend).double().train()
        out = model(**batch, labels=labels, align=align)
        out.loss.backward()
        assert any(bool((b.tokens_out < b.tokens_in).any()) for b in out.trace.blocks)
        grads[backend] = {name: p.grad for name, p in model.named_parameters()}
    for name, dense in grads["dense"].items():
        assert dense is not None, name
        assert torch.allclose(grads["blocked"][name], dense, rtol=1e-9, atol=1e-9), name
    guidance = grads["dense"]["madtp_guidance.semantic_tokens"]
    assert float(guidance.abs().max()) > 1e-6


def stock_of(kind: str) -> Any:
    if kind == "question answering":
        return tiny_stock(gain=0.7).double()
    model = BlipForImageTextRetrieval(BlipConfig(**tiny_settings(stock=False))).eval().double()
    randomise(model)
    return model


@torch.no_grad()
@pytest.mark.parametrize("kind", ["question answering", "retrieval"])
def test_started_from_blip_it_reads_one_image_twice_as_blip_reads_it(
    kind: str, images: Tensor, statements: list[Statement]
) -> None:
    stock = stock_of(kind)
    before = {name: value.clone() for name, value in stock.state_dict().items()}
    ours = MadtpBlipForVisualReasoning.from_blip(stock, temperature=None, semantic_tokens=SEMANTIC, alpha=0.7)
    assert ours.pruning.alpha == 0.7 and not ours.training
    assert ours.madtp_guidance.semantic_tokens.shape[0] == SEMANTIC
    assert ours.cls_head[0].weight.dtype == torch.float64
    words = statements[0].words[None]
    seen = ours.encode(words, images[:1], image_index=torch.tensor([[0, 0]]))
    image = stock.vision_model(images[:1]).last_hidden_state
    states = stock.text_encoder(input_ids=words, encoder_hidden_states=image).last_hidden_state
    assert torch.allclose(seen.question.instance(0), states[0], rtol=0, atol=1e-10)
    own = dict(ours.named_parameters())
    shared = {p.data_ptr() for p in stock.parameters()}
    assert all(p.data_ptr() not in shared for p in own.values())
    own["text_encoder.encoder.layer.0.crossattention.self0.key.weight"].zero_()
    assert all(torch.equal(value, before[name]) for name, value in stock.state_dict().items())
    assert float(own["text_encoder.encoder.layer.0.crossattention.self1.key.weight"].abs().max()) > 0


@torch.no_grad()
def test_started_from_a_deep_blip_its_merge_layer_is_fresh() -> None:
    deep = BlipForImageTextRetrieval(BlipConfig(**tiny_settings(text_depth=7))).eval()
    ours = MadtpBlipForVisualReasoning.from_blip(deep)
    layers = [layer.crossattention.output.merge_layer for layer in ours.text_encoder.encoder.layer]
    assert [layer is not None for layer in layers] == [False] * 6 + [True]
    assert 0 < float(layers[6].weight.std()) < 0.1


def test_what_it_cannot_start_from() -> None:
    with pytest.raises(TypeError, match="retrieval or question answering, got BlipForConditionalGeneration"):
        MadtpBlipForVisualReasoning.from_blip(tiny_stock_captioner())
    with pytest.raises(TypeError, match="from_blip"):
        MadtpBlipForVisualReasoning.from_dense(tiny_stock())


@torch.no_grad()
@pytest.mark.parametrize("stock", [True, False])
def test_save_and_load_is_exact(tmp_path: Path, images: Tensor, statements: list[Statement], stock: bool) -> None:
    ours = tiny_reasoner(stock=stock, temperature=1.7, alpha=0.3, reduction=0.4).double()
    with quiet_host():
        ours.save_pretrained(tmp_path)
        again, report = MadtpBlipForVisualReasoning.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert again.pruning == ours.pruning
    state, loaded = ours.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    batch = statement_batch(images, statements)
    assert torch.allclose(again(**batch).logits, ours(**batch).logits, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_fresh_one_is_initialised() -> None:
    model = MadtpBlipForVisualReasoning(tiny_config())
    assert 0.01 < float(model.cls_head[0].weight.std()) < 0.03
    assert float(model.madtp_guidance.semantic_tokens.std()) > 0.01
    assert len(model.text_encoder.encoder.layer) == TEXT_DEPTH
    assert len(model.vision_model.encoder.layers) == VISION_DEPTH


@torch.no_grad()
def test_wrong_calls(images: Tensor, statements: list[Statement]) -> None:
    model = tiny_reasoner().double()
    batch = statement_batch(images, statements)
    for index in ([[0, 1]] * 6, [0] * STATEMENTS, [[0, 1, 2]] * STATEMENTS):
        with pytest.raises(ValueError, match="two image numbers"):
            model(**(batch | {"image_index": torch.tensor(index)}))
    for wrong in (-1, IMAGES):
        with pytest.raises(ValueError, match=r"must lie in 0\.\.4"):
            model(**(batch | {"image_index": torch.tensor([[0, wrong]] * STATEMENTS)}))
    with pytest.raises(ValueError, match="7 statements for 5 images"):
        model(**(batch | {"image_index": None}))
    mask = batch["attention_mask"].clone()
    mask[3] = 0
    with pytest.raises(ValueError, match="text 3 has no token"):
        model(**(batch | {"attention_mask": mask}))
    assert int(batch["input_ids"].max()) < VOCABULARY
