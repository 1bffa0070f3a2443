"""Dense, ours is the stock model, but for padding, which stock gets wrong; pruned, its gradients are exact."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForQuestionAnswering

from madtp.errors import InputError
from madtp.model.blip import MadtpBlipForQuestionAnswering
from madtp.model.load import quiet_host
from model.tiny import (
    IMAGE,
    POSITIONS,
    SEMANTIC,
    START,
    TEXT_DEPTH,
    VISION_DEPTH,
    VOCABULARY,
    batch_of,
    tiny_examples,
    tiny_model,
    tiny_stock,
)

QUESTIONS = 5


@pytest.fixture
def inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """Unpadded: five questions of thirteen tokens, one an image, answers of seven."""
    ids = torch.randint(1, VOCABULARY, (QUESTIONS, 13), generator=generator)
    labels = torch.randint(1, VOCABULARY, (QUESTIONS, 7), generator=generator)
    labels[:, 0] = START
    pixels = torch.randn(QUESTIONS, 3, IMAGE, IMAGE, generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels, "labels": labels}


def stock_logits(model: BlipForQuestionAnswering, inputs: dict[str, Tensor]) -> Tensor:
    """The stock model's answer logits, which its forward does not return."""
    image = model.vision_model(inputs["pixel_values"]).last_hidden_state
    question = model.text_encoder(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], encoder_hidden_states=image
    )[0]
    answer = model.text_decoder(
        input_ids=inputs["labels"], encoder_hidden_states=question, encoder_attention_mask=inputs["attention_mask"]
    )
    return answer.logits


def beams(model: Any, inputs: dict[str, Tensor], **kwargs: Any) -> Tensor:
    asked = {k: v for k, v in inputs.items() if k != "labels"}
    return model.generate(**asked, num_beams=3, max_new_tokens=7, do_sample=False, **kwargs)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_dense_equals_stock(inputs: dict[str, Tensor], dtype: torch.dtype, tolerance: float) -> None:
    stock = tiny_stock(gain=0.7).to(dtype)
    inputs = inputs | {"pixel_values": inputs["pixel_values"].to(dtype)}
    ours = MadtpBlipForQuestionAnswering.from_dense(stock, semantic_tokens=SEMANTIC)
    assert ours.temperature is None
    theirs, out = stock(**inputs), ours(**inputs)
    assert torch.allclose(out.loss, theirs.loss, rtol=0, atol=tolerance)
    assert torch.allclose(out.logits, stock_logits(stock, inputs), rtol=0, atol=tolerance)
    image = torch.stack([out.encoded.image.instance(i) for i in range(QUESTIONS)])
    assert torch.allclose(image, theirs.image_embeds, rtol=0, atol=tolerance)
    assert len({tuple(row) for row in out.logits.argmax(-1).tolist()}) > 1  # the comparison is of something


@torch.no_grad()
def test_dense_generates_what_stock_does(inputs: dict[str, Tensor]) -> None:
    stock = tiny_stock()
    ours = MadtpBlipForQuestionAnswering.from_dense(stock)
    theirs = beams(stock, inputs)
    assert torch.equal(beams(ours, inputs), theirs)
    assert theirs.shape[1] > 2


@torch.no_grad()
def test_stock_attends_to_padding_and_ours_does_not(inputs: dict[str, Tensor]) -> None:
    inputs["pixel_values"] = inputs["pixel_values"].double()
    stock = tiny_stock().double()
    ours = MadtpBlipForQuestionAnswering.from_dense(stock)
    padding = torch.zeros(QUESTIONS, 3, dtype=torch.long)
    padded = inputs | {
        "input_ids": torch.cat([inputs["input_ids"], padding + 5], 1),
        "attention_mask": torch.cat([inputs["attention_mask"], padding], 1),
    }
    assert not torch.allclose(stock_logits(stock, padded), stock_logits(stock, inputs), rtol=0, atol=1e-2)
    assert torch.allclose(ours(**padded).logits, ours(**inputs).logits, rtol=0, atol=1e-10)
    assert torch.allclose(ours(**padded).logits, stock_logits(stock, inputs), rtol=0, atol=1e-10)
    assert torch.equal(beams(ours, padded), beams(stock, inputs))


@torch.no_grad()
def test_pruning_changes_the_answer_logits(inputs: dict[str, Tensor]) -> None:
    stock = tiny_stock()
    ours = MadtpBlipForQuestionAnswering.from_dense(stock, temperature=1.0)
    out = ours(**inputs)
    assert not torch.allclose(out.logits, stock_logits(stock, inputs), rtol=0, atol=1e-2)
    first = out.trace.tower("vision")[0]
    assert bool((first.tokens_out < first.tokens_in).any())


def test_from_dense_shares_weights_and_leaves_stock_as_it_was(inputs: dict[str, Tensor]) -> None:
    stock = tiny_stock()
    classes = {name: type(module) for name, module in stock.named_modules()}
    before = {name: (p, p.data_ptr(), p.detach().clone()) for name, p in stock.named_parameters()}
    config = stock.config.to_dict()
    with torch.no_grad():
        loss = stock(**inputs).loss
    ours = MadtpBlipForQuestionAnswering.from_dense(stock, temperature=0.5)
    shared = dict(ours.named_parameters())
    for name, (parameter, pointer, value) in before.items():
        assert shared[name] is parameter
        assert parameter.data_ptr() == pointer
        assert torch.equal(parameter, value)
    assert {name for name in shared if name not in before} == {"madtp_guidance.semantic_tokens"}
    with torch.no_grad():
        ours(**inputs)
        beams(ours, inputs)
        assert torch.equal(stock(**inputs).loss, loss)
    assert {name: type(module) for name, module in stock.named_modules()} == classes
    assert type(stock) is BlipForQuestionAnswering
    assert stock.config.to_dict() == config


def test_from_dense_takes_only_its_stock_class() -> None:
    stock = tiny_stock()
    with pytest.raises(TypeError, match="BlipForQuestionAnswering"):
        MadtpBlipForQuestionAnswering.from_dense(stock.text_decoder)
    with pytest.raises(InputError, match="temperature"):
        MadtpBlipForQuestionAnswering.from_dense(stock, temperature=-1.0)


@torch.no_grad()
@pytest.mark.parametrize("stock", [True, False])
def test_save_and_load_is_exact(tmp_path: Path, inputs: dict[str, Tensor], stock: bool) -> None:
    ours = tiny_model(stock=stock, temperature=1.7, alpha=0.3, reduction=0.4)
    with quiet_host():
        ours.save_pretrained(tmp_path)
        again = MadtpBlipForQuestionAnswering.from_pretrained(tmp_path)
    assert again.pruning == ours.pruning
    assert again.temperature == 1.7
    state, loaded = ours.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    assert torch.equal(again(**inputs).logits, ours(**inputs).logits)
    assert (ours.madtp_guidance.vision_map is None) == stock


@torch.no_grad()
def test_stock_loads_our_folder(tmp_path: Path, inputs: dict[str, Tensor]) -> None:
    inputs["pixel_values"] = inputs["pixel_values"].double()
    ours = tiny_model(temperature=1.0).double()
    with quiet_host():
        ours.save_pretrained(tmp_path)
        stock, report = BlipForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert set(report["unexpected_keys"]) == {"madtp_guidance.semantic_tokens"}
    ours.temperature = None
    assert torch.allclose(stock_logits(stock, inputs), ours(**inputs).logits, rtol=0, atol=1e-10)


@torch.no_grad()
def test_ours_loads_a_stock_folder(tmp_path: Path, inputs: dict[str, Tensor]) -> None:
    inputs["pixel_values"] = inputs["pixel_values"].double()
    stock = tiny_stock().double()
    with quiet_host():
        stock.save_pretrained(tmp_path)
        ours, report = MadtpBlipForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"madtp_guidance.semantic_tokens"}
    assert torch.allclose(ours(**inputs).logits, stock_logits(stock, inputs), rtol=0, atol=1e-10)
    assert float(ours.madtp_guidance.semantic_tokens.std()) > 0.01  # initialised, not what memory held


@torch.no_grad()
@pytest.mark.parametrize("made", ["from_dense", "from_pretrained"])
def test_decoder_is_causal(tmp_path: Path, inputs: dict[str, Tensor], made: str) -> None:
    if made == "from_dense":
        ours = MadtpBlipForQuestionAnswering.from_dense(tiny_stock(), temperature=1.0)
    else:
        with quiet_host():
            tiny_model(temperature=1.0).save_pretrained(tmp_path)
            ours = MadtpBlipForQuestionAnswering.from_pretrained(tmp_path)
    asked = {k: v for k, v in inputs.items() if k != "labels"}
    answer = inputs["labels"]
    changed = answer.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % VOCABULARY
    one, other = (ours(**asked, decoder_input_ids=ids).logits for ids in (answer, changed))
    assert torch.allclose(one[:, :4], other[:, :4], rtol=0, atol=1e-6)
    assert not torch.allclose(one[:, 4:], other[:, 4:], rtol=0, atol=1e-2)


@torch.no_grad()
def test_generate_follows_the_teacher_forced_logits(inputs: dict[str, Tensor]) -> None:
    ours = tiny_model(temperature=1.0)
    asked = {k: v for k, v in inputs.items() if k != "labels"}
    out = ours.generate(**asked, max_new_tokens=5, do_sample=False)
    logits = ours(**asked, decoder_input_ids=out).logits
    for row, scores in zip(out.tolist(), logits, strict=True):
        for i in range(len(row) - 1):
            if row[i + 1] == 0:  # ended
                break
            assert row[i + 1] == int(scores[i].argmax())


@torch.no_grad()
def test_rank_picks_the_likeliest_answer(inputs: dict[str, Tensor], generator: torch.Generator) -> None:
    ours = tiny_model(temperature=1.0)
    ours.text_decoder.label_smoothing = 0.0
    asked = {k: v for k, v in inputs.items() if k != "labels"}
    lengths = [2, 3, 5, 4, 2, 5, 3]
    answers = torch.zeros(len(lengths), 5, dtype=torch.long)
    for row, n in zip(answers, lengths, strict=True):
        row[:n] = torch.randint(1, VOCABULARY, (n,), generator=generator)
        row[0] = START
    mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).long()
    best = ours.rank(**asked, answer_ids=answers, answer_mask=mask, k=len(lengths))
    likelihood = torch.zeros(QUESTIONS, len(lengths))
    for i, n in enumerate(lengths):
        ids = answers[i, :n].expand(QUESTIONS, -1)
        log = ours(**asked, decoder_input_ids=ids).logits.log_softmax(-1)
        likelihood[:, i] = log[:, :-1].gather(2, ids[:, 1:, None]).sum((1, 2))
    assert torch.equal(best, likelihood.argmax(1))


@pytest.mark.parametrize("stock", [True, False])
def test_gradients_of_blocked_and_dense_attention_agree(stock: bool, generator: torch.Generator) -> None:
    batch = batch_of(tiny_examples(generator, images=3, longest=19), generator, torch.float64)
    answers, mask = batch.pop("decoder_input_ids"), batch.pop("decoder_attention_mask")
    grads = {}
    for backend in ("dense", "blocked"):
        model = tiny_model(stock=stock, temperature=1.0, attention=backend).double().train()
        out = model(
            **batch,
            labels=answers,
            decoder_attention_mask=mask,
            answer_index=torch.arange(len(answers)),
            answer_weights=torch.linspace(0.2, 1, len(answers), dtype=torch.float64),
        )
        out.loss.backward()
        assert any(bool((b.tokens_out < b.tokens_in).any()) for b in out.trace.blocks)
        grads[backend] = {name: p.grad for name, p in model.named_parameters()} | {"loss": out.loss.detach()}
    assert len(out.trace.blocks) == VISION_DEPTH + TEXT_DEPTH
    for name, dense in grads["dense"].items():
        assert dense is not None, name
        assert torch.allclose(grads["blocked"][name], dense, rtol=1e-9, atol=1e-9), name
    guidance = grads["dense"]["madtp_guidance.semantic_tokens"]
    assert guidance is not None
    assert float(guidance.abs().max()) > 1e-6


@torch.no_grad()
def test_wrong_calls(inputs: dict[str, Tensor]) -> None:
    ours = tiny_model()
    asked = {k: v for k, v in inputs.items() if k != "labels"}
    with pytest.raises(ValueError, match="labels"):
        ours(**asked)
    for index in ([0, 1, 2, 1, 4], [0, 1, 2, 3, QUESTIONS], [-1, 0, 1, 2, 3], [0]):
        with pytest.raises(ValueError, match="image_index"):
            ours(**inputs, image_index=torch.tensor(index))
    with pytest.raises(ValueError, match="image_index"):
        ours(**(inputs | {"pixel_values": inputs["pixel_values"][:3]}))
    long = torch.ones(QUESTIONS, POSITIONS, dtype=torch.long)
    ours(**(inputs | {"input_ids": long, "attention_mask": long}))
