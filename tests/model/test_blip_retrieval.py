"""Retrieval: dense, it is the stock model but for padding; pruned, no answer depends on its batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForImageTextRetrieval

from madtp.model.blip_retrieval import MadtpBlipForImageTextRetrieval, begin_with
from madtp.model.load import quiet_host
from model.tiny import IMAGE, POSITIONS, SEMANTIC, TEXT_DEPTH, VISION_DEPTH, VOCABULARY, batch_of, tiny_examples
from model.tiny_retrieval import FEATURES, tiny_retrieval, tiny_retrieval_stock

PAIRS = 5


@pytest.fixture
def inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """Unpadded: five pairs of an image and a text of thirteen tokens."""
    ids = torch.randint(1, VOCABULARY, (PAIRS, 13), generator=generator)
    pixels = torch.randn(PAIRS, 3, IMAGE, IMAGE, generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def padded(inputs: dict[str, Tensor], left: int, right: int) -> dict[str, Tensor]:
    def wide(ids: Tensor, fill: int) -> Tensor:
        return torch.nn.functional.pad(ids, (left, right), value=fill)

    return inputs | {
        "input_ids": wide(inputs["input_ids"], 5),
        "attention_mask": wide(inputs["attention_mask"], 0),
    }


@torch.no_grad()
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_dense_equals_stock(inputs: dict[str, Tensor], head: bool, dtype: torch.dtype, tolerance: float) -> None:
    stock = tiny_retrieval_stock(gain=0.7).to(dtype)
    inputs = inputs | {"pixel_values": inputs["pixel_values"].to(dtype)}
    ours = MadtpBlipForImageTextRetrieval.from_dense(stock, semantic_tokens=SEMANTIC)
    theirs, out = stock(**inputs, use_itm_head=head), ours(**inputs, use_itm_head=head)
    assert out.itm_score.shape == ((PAIRS, 2) if head else (PAIRS, PAIRS))
    assert torch.allclose(out.itm_score, theirs.itm_score, rtol=0, atol=tolerance)
    assert float(out.itm_score.std()) > 0.01  # the comparison is of something
    assert [b.tower for b in out.trace.blocks] == ["vision"] * VISION_DEPTH + ["match" if head else "text"] * TEXT_DEPTH
    ours.temperature = 1.0
    assert not torch.allclose(ours(**inputs, use_itm_head=head).itm_score, theirs.itm_score, rtol=0, atol=1e-2)


@torch.no_grad()
def test_stock_counts_positions_from_the_padding_and_ours_does_not(inputs: dict[str, Tensor]) -> None:
    inputs["pixel_values"] = inputs["pixel_values"].double()
    stock = tiny_retrieval_stock().double()
    ours = MadtpBlipForImageTextRetrieval.from_dense(stock)
    for head in (True, False):
        score = stock(**inputs, use_itm_head=head).itm_score
        for sides in ((0, 3), (2, 0), (2, 5)):
            out = ours(**padded(inputs, *sides), use_itm_head=head).itm_score
            assert torch.allclose(out, score, rtol=0, atol=1e-10)
        right, left = (stock(**padded(inputs, *sides), use_itm_head=head).itm_score for sides in ((0, 3), (2, 0)))
        assert torch.allclose(right, score, rtol=0, atol=1e-10)
        assert not torch.allclose(left, score, rtol=0, atol=1e-2)


@torch.no_grad()
def test_folders_of_stock_and_ours_are_exchanged(tmp_path: Path, inputs: dict[str, Tensor]) -> None:
    ours = tiny_retrieval()
    with quiet_host():
        ours.save_pretrained(tmp_path / "ours")
        stock, report = BlipForImageTextRetrieval.from_pretrained(tmp_path / "ours", output_loading_info=True)
        stock.save_pretrained(tmp_path / "stock")
        again, missing = MadtpBlipForImageTextRetrieval.from_pretrained(tmp_path / "stock", output_loading_info=True)
    assert not report["missing_keys"]
    assert set(report["unexpected_keys"]) == set(missing["missing_keys"]) == {"madtp_guidance.semantic_tokens"}
    assert torch.equal(again(**inputs).itm_score, ours(**inputs).itm_score)
    assert float(again.madtp_guidance.semantic_tokens.std()) > 0.01


def run(model: Any, batch: dict[str, Tensor]) -> tuple[Any, list[list[Tensor]]]:
    """The outputs, and for each text where every patch and word of its three passes is after each block."""
    out = model.encode(**batch, match=True, match_token_id=3, align=True, provenance=True)
    places = []
    for j, i in enumerate(batch["image_index"].tolist()):
        blocks = [(b, i if b.tower == "vision" else j) for b in out.trace.blocks]
        places.append([part for b, k in blocks for part in b.provenance.of(k)])
        for b, k in blocks:
            assert b.tokens_out[k] == max(b.provenance.of(k)[0].tolist(), default=0)
    return out, places


@torch.no_grad()
@pytest.mark.parametrize("stock", [True, False])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 8.0])
def test_no_answer_depends_on_its_batch(generator: torch.Generator, temperature: float, stock: bool) -> None:
    """Texts under random padding in a random order against each pair alone."""
    model = tiny_retrieval(stock=stock, temperature=temperature).double()
    batch = batch_of(tiny_examples(generator, images=5), generator, torch.float64)
    order = torch.randperm(len(batch["input_ids"]), generator=generator)
    batch = {"pixel_values": batch["pixel_values"]} | {
        name: batch[name][order] for name in ("input_ids", "attention_mask", "image_index")
    }
    assert bool((batch["image_index"].diff() < 0).any())
    together, places = run(model, batch)
    pruned = 0
    for j, i in enumerate(batch["image_index"].tolist()):
        ids = batch["input_ids"][j][batch["attention_mask"][j].bool()][None]
        pixels = batch["pixel_values"][i : i + 1]
        alone, place = run(model, {"input_ids": ids, "pixel_values": pixels, "image_index": torch.tensor([0])})
        for one, other in zip(places[j], place[0], strict=True):
            assert torch.allclose(one.double(), other.double(), rtol=0, atol=1e-9)
        for one, other in [
            (together.image.feature[i], alone.image.feature[0]),
            (together.text.feature[j], alone.text.feature[0]),
            (together.logits[j], alone.logits[0]),
            (together.alignment[j], alone.alignment[0]),
            (together.image.tokens.instance(i), alone.image.tokens.instance(0)),
            (together.text.states.instance(j), alone.text.states.instance(0)),
        ]:
            assert torch.allclose(one, other, rtol=0, atol=1e-9)
        for block, own in zip(together.trace.blocks, alone.trace.blocks, strict=True):
            k = i if block.tower == "vision" else j
            if int(own.tokens_in):
                assert torch.allclose(block.threshold[k], own.threshold[0], rtol=0, atol=1e-9)
            pruned += int(own.tokens_out) < int(own.tokens_in)
    assert pruned > len(order)


@torch.no_grad()
def test_towers_run_apart(inputs: dict[str, Tensor]) -> None:
    model = tiny_retrieval(temperature=1.0).double()
    pixels, ids = inputs["pixel_values"].double(), inputs["input_ids"]
    image, text = model.see(pixels), model.read(ids)
    assert image.feature.shape == text.feature.shape == (PAIRS, FEATURES) == (PAIRS, model.feature_width)
    for feature in (image.feature, text.feature):
        assert torch.allclose(feature.norm(dim=-1), torch.ones(PAIRS).double())
    score = model(ids, pixels, use_itm_head=False).itm_score
    assert torch.allclose(score, image.feature @ text.feature.T)
    # every text with every image, image 1 of a subset
    logits, trace = model.match(image.tokens.select(torch.tensor([3, 1])), torch.arange(PAIRS) % 2, ids)
    assert trace.image_index.tolist() == [0, 1, 0, 1, 0]
    for j in range(PAIRS):
        alone = model(ids[j : j + 1], pixels[[3, 1][j % 2]][None]).itm_score
        assert torch.allclose(logits[j], alone[0])
    # one image, several texts; several images and no pairing
    assert model(ids, pixels[:1]).itm_score.shape == (PAIRS, 2)
    assert model(ids, pixels[:2], use_itm_head=False).itm_score.shape == (2, PAIRS)


def test_gradients_reach_every_parameter(inputs: dict[str, Tensor]) -> None:
    model = tiny_retrieval(stock=False, temperature=1.0).train()
    out = model.encode(**inputs, match=True, align=True)
    (out.logits.square().sum() + (out.image.feature * out.text.feature).sum() + out.alignment.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0 or "key.bias" in name, name


def test_another_first_token_wherever_the_padding_stands() -> None:
    ids = torch.tensor([[5, 7, 11, 0], [0, 5, 7, 0], [0, 0, 0, 5]])
    changed = begin_with(ids, (ids > 0).long(), 97)
    assert changed.tolist() == [[97, 7, 11, 0], [0, 97, 7, 0], [0, 0, 0, 97]]
    assert begin_with(ids, None, 97)[:, 0].tolist() == [97, 97, 97]
    assert ids[0, 0] == 5


@torch.no_grad()
def test_wrong_calls(inputs: dict[str, Tensor]) -> None:
    model = tiny_retrieval()
    for index in ([0, 1, 2, 3, PAIRS], [-1, 0, 1, 2, 3], [0]):
        with pytest.raises(ValueError, match="image_index"):
            model(**inputs, image_index=torch.tensor(index))
        with pytest.raises(ValueError, match="image_index"):
            model.encode(**inputs, image_index=torch.tensor(index), align=True)
    few = inputs | {"pixel_values": inputs["pixel_values"][:3]}
    for wanted in ({"match": True}, {"align": True}):
        with pytest.raises(ValueError, match="image_index"):
            model.encode(**few, **wanted)
    assert model.encode(**few).trace.image_index is None
    long = torch.ones(PAIRS, POSITIONS, dtype=torch.long)
    model(**(inputs | {"input_ids": long, "attention_mask": long}))
