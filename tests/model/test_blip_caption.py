"""Captioning: dense, ours is the stock model but for padding, which stock gets wrong; pruned, no batch matters."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration

from madtp.model.blip_caption import MadtpBlipForConditionalGeneration
from madtp.model.load import quiet_host
from model.tiny import (
    END,
    IMAGE,
    SEMANTIC,
    START,
    VISION_DEPTH,
    VOCABULARY,
    batch_of,
    tiny_captioner,
    tiny_examples,
    tiny_stock,
    tiny_stock_captioner,
)

IMAGES, PROMPT = 5, 4
BEAMS = {"num_beams": 3, "do_sample": False, "max_length": 13}
GREEDY = {"num_beams": 1, "do_sample": False, "max_length": 13}


@pytest.fixture
def pixels(generator: torch.Generator) -> Tensor:
    return torch.randn(IMAGES, 3, IMAGE, IMAGE, generator=generator)


@pytest.fixture
def captions(generator: torch.Generator) -> Tensor:
    ids = torch.randint(1, END, (IMAGES, 7), generator=generator)
    ids[:, 0] = START
    return ids


@pytest.fixture
def prompts(generator: torch.Generator) -> Tensor:
    """From a first token to a separator, no padding."""
    ids = torch.randint(1, END, (IMAGES, PROMPT), generator=generator)
    ids[:, -1] = END
    return ids


def until_end(rows: Tensor, prompt: int = 1) -> list[list[int]]:
    """What was written, up to and with the end token: in a batch stock repeats it where a caption ended early."""
    lists = rows.tolist()
    ends = [row.index(END, prompt) + 1 if END in row[prompt:] else len(row) for row in lists]
    return [row[:end] for row, end in zip(lists, ends, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("stock", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_dense_equals_stock(
    pixels: Tensor, captions: Tensor, dtype: torch.dtype, tolerance: float, stock: bool
) -> None:
    theirs = tiny_stock_captioner(gain=0.7, stock=stock).to(dtype)
    ours = MadtpBlipForConditionalGeneration.from_dense(theirs, semantic_tokens=SEMANTIC)
    assert ours.temperature is None
    labels = captions.clone()
    labels[:, :2] = -100
    pixels = pixels.to(dtype)
    one, other = (model(pixels, captions, labels=labels) for model in (ours, theirs))
    assert torch.allclose(one.loss, other.loss, rtol=0, atol=tolerance)
    assert torch.allclose(one.logits, other.logits, rtol=0, atol=tolerance)
    image = torch.stack([one.encoded.image.instance(i) for i in range(IMAGES)])
    assert torch.allclose(image, other.image_embeds, rtol=0, atol=tolerance)
    last = ours(pixels, captions, logits_to_keep=1)
    assert torch.allclose(last.logits, other.logits[:, -1:], rtol=0, atol=tolerance)
    assert last.loss is None
    assert len({tuple(row) for row in one.logits.argmax(-1).tolist()}) > 1


@torch.no_grad()
@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("how", [GREEDY, BEAMS, BEAMS | {"num_return_sequences": 2, "min_length": 9}])
def test_dense_generates_what_stock_does(pixels: Tensor, prompts: Tensor, prompted: bool, how: dict[str, Any]) -> None:
    stock = tiny_stock_captioner()
    ours = MadtpBlipForConditionalGeneration.from_dense(stock)
    prompt = {"input_ids": prompts, "attention_mask": torch.ones_like(prompts)} if prompted else {}
    theirs = stock.generate(pixels, **{k: v.clone() for k, v in prompt.items()}, **how)
    before = prompts.clone()
    out, start = ours.generate(pixels, **prompt, **how), PROMPT - 1 if prompted else 1
    assert out.shape[0] == theirs.shape[0]
    assert until_end(out, start) == until_end(theirs, start)
    for row, words in zip(out.tolist(), until_end(out, start), strict=True):
        assert not any(row[len(words) :])
    assert torch.equal(prompts, before)  # which stock writes into
    assert theirs.shape[1] > PROMPT and len({tuple(row) for row in theirs.tolist()}) > 1


@torch.no_grad()
def test_dense_samples_what_stock_does(pixels: Tensor, prompts: Tensor) -> None:
    stock = tiny_stock_captioner()
    ours = MadtpBlipForConditionalGeneration.from_dense(stock)
    sampled = []
    for model in (stock, ours):
        torch.manual_seed(5)
        sampled.append(model.generate(pixels, prompts.clone(), do_sample=True, top_p=0.9, max_length=11))
    assert torch.equal(*sampled)
    torch.manual_seed(7)
    assert not torch.equal(sampled[1], ours.generate(pixels, prompts, do_sample=True, top_p=0.9, max_length=11))


@torch.no_grad()
def test_stock_attends_to_what_was_pruned_and_ours_does_not(pixels: Tensor, captions: Tensor) -> None:
    """Images pruned to unlike lengths are padded for the decoder; stock's takes the padding for tokens."""
    stock = tiny_stock_captioner().double()
    ours = MadtpBlipForConditionalGeneration.from_dense(stock, temperature=1.0)
    states, mask = ours.encode(pixels.double()).states()
    shortest = int(mask.sum(1).argmin())
    alone = states[shortest : shortest + 1, : int(mask[shortest].sum())]
    assert alone.shape[1] < states.shape[1]
    right, theirs, own = (
        decoder(input_ids=captions, encoder_hidden_states=image, encoder_attention_mask=seen).logits[shortest]
        for decoder, image, seen in (
            (stock.text_decoder, alone.expand(IMAGES, -1, -1), None),
            (stock.text_decoder, states, mask),
            (ours.text_decoder, states, mask),
        )
    )
    assert torch.allclose(own, right, rtol=0, atol=1e-10)
    assert not torch.allclose(theirs, right, rtol=0, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("masked", [True, False])
def test_prompts_of_unlike_lengths(pixels: Tensor, generator: torch.Generator, side: str, masked: bool) -> None:
    """Each is continued as stock continues it alone; stock itself goes astray: it cuts off padding, too, and
    sets the first token where padding stands."""
    stock = tiny_stock_captioner()
    ours = MadtpBlipForConditionalGeneration.from_dense(stock)
    lengths = [4, 2, 6, 4, 3]
    rows = [torch.cat([torch.randint(1, END, (n - 1,), generator=generator), torch.tensor([END])]) for n in lengths]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side=side)
    mask = (ids != 0).long()
    alone = [stock.generate(pixels[i][None], row[None].clone(), **BEAMS)[0].tolist() for i, row in enumerate(rows)]
    out = ours.generate(pixels, ids, mask if masked else None, **BEAMS).tolist()
    assert [row[: len(a)] for row, a in zip(out, alone, strict=True)] == alone
    assert not any(any(row[len(a) :]) for row, a in zip(out, alone, strict=True))
    astray = stock.generate(pixels, ids.clone(), mask, **BEAMS).tolist()
    assert [[w for w in row if w] for row in astray] != [[w for w in a if w] for a in alone]


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.2, 1.0, 8.0])
@pytest.mark.parametrize("stock", [True, False])
def test_batch_invariance(temperature: float, stock: bool, generator: torch.Generator) -> None:
    """Alone, with others, in another order: logits, loss, captions written."""
    model = tiny_captioner(stock=stock, temperature=temperature).double()
    examples = tiny_examples(generator, images=IMAGES)

    def run(examples: list[Any]) -> list[dict[str, Any]]:
        batch = batch_of(examples, None, torch.float64)
        ids, mask = batch["decoder_input_ids"], batch["decoder_attention_mask"]
        out = model(batch["pixel_values"], ids, mask, image_index=batch["image_index"], provenance=True)
        words = model.generate(batch["pixel_values"], encoded=out.encoded, **BEAMS).tolist()
        rows = []
        for j, i in enumerate(batch["image_index"].tolist()):
            owner = torch.cat([b.provenance.of(i)[0] for b in out.trace.blocks])
            logits = out.logits[j, : int(mask[j].sum())]
            rows.append({"image": i, "owner": owner, "logits": logits, "words": [w for w in words[i] if w]})
        return rows

    def same(one: dict[str, Any], other: dict[str, Any]) -> None:
        assert torch.equal(one["owner"], other["owner"])
        assert torch.allclose(one["logits"], other["logits"], rtol=0, atol=1e-9)
        assert one["words"] == other["words"]

    together = run(examples)
    assert len({tuple(row["words"]) for row in together}) > 1
    order = torch.randperm(IMAGES, generator=generator).tolist()
    moved = run([examples[i] for i in order])
    for k, i in enumerate(order):
        rows = [[row for row in batch if row["image"] == n] for batch, n in ((together, i), (moved, k))]
        alone = run([examples[i]])
        assert len(rows[0]) == len(examples[i].answers)
        for one, other, single in zip(*rows, alone, strict=True):
            same(one, other)
            same(one, single)


@torch.no_grad()
def test_loss_leaves_out_what_is_masked(pixels: Tensor, captions: Tensor) -> None:
    model = tiny_captioner(temperature=1.0).double()
    pixels = pixels.double()
    mask = torch.ones_like(captions)
    mask[1, 5:] = mask[4, 3:] = 0
    ignored = captions.masked_fill(mask == 0, -100)
    by_mask = model(pixels, captions, mask, labels=captions)
    assert torch.equal(by_mask.loss, model(pixels, captions, mask, labels=ignored).loss)
    assert torch.allclose(by_mask.loss, model(pixels, labels=ignored).loss)  # causal: padding comes last
    assert by_mask.loss is by_mask.loss_task and by_mask.loss_align is None
    sums = []
    for i, n in enumerate(mask.sum(1).tolist()):  # a mean over tokens
        sums.append(model(pixels[i][None], labels=captions[i][None, :n]).loss * (n - 1))
    assert torch.allclose(by_mask.loss, sum(sums) / (mask.sum() - IMAGES))
    assert not torch.allclose(by_mask.loss, model(pixels, captions, labels=captions).loss, rtol=1e-3)


@torch.no_grad()
def test_several_captions_an_image_and_what_the_decoder_did(pixels: Tensor, captions: Tensor) -> None:
    model = tiny_captioner(temperature=1.0).double()
    index = torch.tensor([0, 0, 2, 2, 2])
    mask = torch.ones_like(captions)
    mask[1, 3:] = 0
    out = model(pixels[:3].double(), captions, mask, image_index=index)
    repeated = model(pixels[index].double(), captions, mask)
    assert torch.allclose(out.logits, repeated.logits, rtol=0, atol=1e-10)
    assert len(out.trace.tower("vision")) == VISION_DEPTH and len(out.trace.blocks[0].tokens_in) == 3
    assert out.trace.image_index.tolist() == [0, 0, 2, 2, 2]
    assert out.trace.decoder_tokens.tolist() == [7, 3, 7, 7, 7]
    assert out.trace.decoder_pairs.tolist() == [49, 9, 49, 49, 49]
    assert out.trace.decoder_sequences.tolist() == [1] * 5


@torch.no_grad()
@pytest.mark.parametrize("how", [GREEDY, BEAMS])
def test_generation_is_counted(pixels: Tensor, prompts: Tensor, how: dict[str, Any]) -> None:
    """Against what the decoder's embedding really was given, by image."""
    model = tiny_captioner(temperature=1.0)
    embeddings = model.text_decoder.bert.embeddings
    fed: list[int] = []
    embeddings.register_forward_hook(lambda module, args, kwargs, out: fed.append(out.shape[1]), with_kwargs=True)
    for i in range(IMAGES):
        for prompt in (None, prompts[i : i + 1]):
            fed.clear()
            encoded = model.encode(pixels[i : i + 1])
            words = model.generate(None, prompt, encoded=encoded, **(how | {"min_length": 13}))
            assert words.shape == (1, 13)
            trace, beams = encoded.trace, how["num_beams"]
            keys = torch.tensor(fed).cumsum(0)
            assert trace.decoder_tokens.tolist() == [sum(fed) * beams]
            # every token of a step meets all keys up to and with the step's
            assert trace.decoder_pairs.tolist() == [int((torch.tensor(fed) * keys).sum()) * beams]
            assert trace.decoder_sequences.tolist() == [beams]
    sampled = model.encode(pixels)
    model.generate(encoded=sampled, do_sample=True, num_return_sequences=2, max_length=6, min_length=6)
    assert sampled.trace.decoder_sequences.tolist() == [2] * IMAGES
    assert sampled.trace.decoder_tokens.tolist() == [2 * 5] * IMAGES
    assert sampled.trace.image_index.tolist() == list(range(IMAGES))


def test_gradients_of_blocked_and_dense_attention_agree(pixels: Tensor, captions: Tensor) -> None:
    grads = {}
    for backend in ("dense", "blocked"):
        model = tiny_captioner(stock=False, temperature=1.0, attention=backend).double().train()
        out = model(pixels.double(), captions, labels=captions)
        out.loss.backward()
        assert any(bool((b.tokens_out < b.tokens_in).any()) for b in out.trace.blocks)
        grads[backend] = {name: p.grad for name, p in model.named_parameters()}
    for name, dense in grads["dense"].items():
        assert dense is not None, name
        assert torch.allclose(grads["blocked"][name], dense, rtol=1e-9, atol=1e-9), name
    assert float(grads["dense"]["madtp_guidance.semantic_tokens"].abs().max()) > 1e-6


@torch.no_grad()
def test_folders_of_ours_and_of_stock(tmp_path: Path, pixels: Tensor, captions: Tensor) -> None:
    ours, stock = tiny_captioner(temperature=1.7).double(), tiny_stock_captioner().double()
    pixels = pixels.double()
    with quiet_host():
        ours.save_pretrained(tmp_path / "ours")
        again = MadtpBlipForConditionalGeneration.from_pretrained(tmp_path / "ours")
        theirs, report = BlipForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
        stock.save_pretrained(tmp_path / "stock")
        dense, missing = MadtpBlipForConditionalGeneration.from_pretrained(tmp_path / "stock", output_loading_info=True)
    assert again.pruning == ours.pruning
    assert torch.allclose(again(pixels, captions).logits, ours(pixels, captions).logits, rtol=0, atol=1e-12)
    assert not report["missing_keys"] and set(report["unexpected_keys"]) == {"madtp_guidance.semantic_tokens"}
    assert set(missing["missing_keys"]) == {"madtp_guidance.semantic_tokens"}
    assert torch.allclose(dense(pixels, captions).logits, stock(pixels, captions).logits, rtol=0, atol=1e-10)
    pruned, ours.temperature = ours(pixels, captions).logits, None
    assert torch.allclose(theirs(pixels, captions).logits, ours(pixels, captions).logits, rtol=0, atol=1e-10)
    assert not torch.allclose(theirs(pixels, captions).logits, pruned, rtol=0, atol=1e-2)


@torch.no_grad()
def test_wrong_calls(pixels: Tensor, captions: Tensor, prompts: Tensor) -> None:
    model = tiny_captioner()
    with pytest.raises(TypeError, match="takes a BlipForConditionalGeneration"):
        MadtpBlipForConditionalGeneration.from_dense(tiny_stock())
    with pytest.raises(ValueError, match="input_ids, or labels"):
        model(pixels)
    with pytest.raises(ValueError, match="5 captions for 3 images"):
        model(pixels[:3], captions)
    with pytest.raises(ValueError, match="ascending"):
        model(pixels, captions, image_index=torch.tensor([1, 0, 2, 3, 4]))
    with pytest.raises(ValueError, match="padded on the right"):
        model(pixels, captions, torch.tensor([[0] + [1] * 6] * IMAGES))
    with pytest.raises(ValueError, match="pixel_values, or encoded"):
        model.generate()
    with pytest.raises(ValueError, match="1 prompts for 5 images"):
        model.generate(pixels, prompts[:1])
    with pytest.raises(ValueError, match="start token"):
        model.generate(pixels, prompts, torch.tensor([[1, 0, 0, 0]] * IMAGES))
    with pytest.raises(ValueError, match="return_dict_in_generate"):
        model.generate(pixels, return_dict_in_generate=True)
    assert int(captions.max()) < VOCABULARY
