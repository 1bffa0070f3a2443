"""Starting from another model's towers: by name, words by word, and BLIP's image tower in CLIP's names."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from madtp.errors import InputError
from madtp.model.clip_sizes import build_clip, build_clip_processor
from madtp.model.init import sincos_positions
from madtp.model.sizes import Size, build_blip, build_processor
from madtp.model.start import take_guidance, take_towers
from small import KINDS, NANO, NANO_CLIP, nano, nano_processor

MINE = ("a red circle is there", "what is left of it")
THEIRS = ("there is a blue square", "left or right")


def blip(kind: str, texts: tuple[str, ...], seed: int, size: Size = NANO) -> tuple[Any, dict[str, int]]:
    torch.manual_seed(seed)
    words = build_processor(size, texts).tokenizer
    return build_blip(kind, size, len(words)), words.get_vocab()


def clip(texts: tuple[str, ...], seed: int) -> tuple[Any, dict[str, int]]:
    torch.manual_seed(seed)
    words = build_clip_processor(NANO_CLIP, texts, vocabulary=530).tokenizer
    return build_clip(NANO_CLIP, words), words.get_vocab()


def copies(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", ["vqa", "reasoning", "caption", "retrieval"])
def test_what_has_a_name_and_shape_in_common_is_taken(kind: str) -> None:
    """And nothing else moves: not the lender, nor guidance, nor what only the receiver has."""
    (model, words), (lender, lent) = blip(kind, MINE, 1), blip("vqa", THEIRS, 2)
    before, theirs = copies(model), copies(lender)
    taken = take_towers(model, words, lender, lent, "lender")
    after = copies(model)
    for name in after:
        if name not in taken:
            assert torch.equal(after[name], before[name]), name
        elif name in theirs and not re.search(r"word_embeddings|\.cls\.predictions\.(bias|decoder)", name):
            assert torch.equal(after[name], theirs[name]), name
    assert all(torch.equal(theirs[name], parameter) for name, parameter in lender.named_parameters())
    assert not any(name.startswith("madtp_") for name in taken)
    assert {name for name in after if name.startswith("vision_model.")} <= set(taken)
    assert {name.split(".")[0] for name in taken} >= {"vision_model"} | {
        "vqa": {"text_encoder", "text_decoder"},
        "caption": {"text_decoder"},
    }.get(kind, {"text_encoder"})


def test_word_vectors_follow_their_word() -> None:
    (model, words), (lender, lent) = blip("vqa", MINE, 1), blip("vqa", THEIRS, 2)
    before = copies(model)
    take_towers(model, words, lender, lent, "lender")
    assert any(words[word] != lent[word] for word in words if word in lent), "else a copy row by row would do"
    for name in ("text_encoder.embeddings.word_embeddings.weight", "text_decoder.cls.predictions.bias"):
        mine, theirs = copies(model)[name], copies(lender)[name]
        for word, row in words.items():
            expected = theirs[lent[word]] if word in lent else before[name][row]
            assert torch.equal(mine[row], expected), (name, word)


def test_clips_byte_pairs_follow_too() -> None:
    """Two vocabularies of one size: rows must not be taken by their number."""
    (model, words), (lender, lent) = clip(MINE, 1), clip(THEIRS, 2)
    name = "text_model.embeddings.token_embedding.weight"
    before = copies(model)[name]
    if len(words) == len(lent):
        assert words != lent
    take_towers(model, words, lender, lent, "lender")
    mine, theirs = copies(model)[name], copies(lender)[name]
    for word, row in words.items():
        assert torch.equal(mine[row], theirs[lent[word]] if word in lent else before[row]), word


@pytest.mark.parametrize("kind", ["reasoning", "caption"])
@pytest.mark.parametrize("theirs", [11, 97])
def test_positions_are_taken_as_far_as_both_have_them(kind: str, theirs: int) -> None:
    """A published BLIP reads 512 tokens, a fresh model of ours 64."""
    (model, words), (lender, lent) = blip(kind, MINE, 1), blip("vqa", THEIRS, 2)
    name = ("text_decoder.bert" if kind == "caption" else "text_encoder") + ".embeddings.position_embeddings.weight"
    lender.get_submodule(name.removesuffix(".weight")).weight = nn.Parameter(torch.randn(theirs, NANO.width))
    before = copies(model)[name]
    assert name in take_towers(model, words, lender, lent, "lender")
    both = min(theirs, len(before))
    assert torch.equal(copies(model)[name][:both], copies(lender)[name][:both])
    assert torch.equal(copies(model)[name][both:], before[both:])


def test_no_word_in_common_is_no_fault() -> None:
    (model, _), (lender, lent) = blip("vqa", MINE, 1), blip("vqa", THEIRS, 2)
    name = "text_encoder.embeddings.word_embeddings.weight"
    before = copies(model)[name]
    take_towers(model, {"circle": 7}, lender, lent, "lender")
    assert torch.equal(copies(model)[name], before)


def test_the_look_at_one_picture_starts_both_looks_of_reasoning() -> None:
    (model, words), (lender, lent) = blip("reasoning", MINE, 1), blip("vqa", THEIRS, 2)
    taken = take_towers(model, words, lender, lent, "lender")
    mine, theirs = copies(model), copies(lender)
    name = "text_encoder.encoder.layer.1.crossattention.self"
    for side in (0, 1):
        assert torch.equal(mine[f"{name}{side}.query.weight"], theirs[f"{name}.query.weight"])
        assert f"{name}{side}.key.bias" in taken


def test_clip_starts_from_blips_image_tower() -> None:
    """Every block attends alike; positions hold the bias that CLIP's patches have not, and keep their scale."""
    (model, words), (lender, lent) = clip(MINE, 1), blip("vqa", THEIRS, 2, replace(NANO, mlp=4))
    nn.init.normal_(lender.vision_model.embeddings.patch_embedding.bias)  # which starts at 0
    taken = take_towers(model, words, lender, lent, "lender")
    assert {name for name in copies(model) if name.startswith("vision_model.")} == set(taken)
    x = torch.randn(1, 11, NANO.width)
    heads, size = NANO.heads, NANO.width // NANO.heads
    for mine, theirs in zip(model.vision_model.encoder.layers, lender.vision_model.encoder.layers, strict=True):
        qkv = theirs.self_attn.qkv(x).view(1, 11, 3, heads, size).permute(2, 0, 3, 1, 4)
        own = [
            part(x).view(1, 11, heads, size).transpose(1, 2)
            for part in (mine.self_attn.q_proj, mine.self_attn.k_proj, mine.self_attn.v_proj)
        ]
        assert torch.allclose(torch.stack(own), qkv, atol=1e-6)
        assert torch.allclose(mine.self_attn.out_proj(x), theirs.self_attn.projection(x), atol=1e-6)
        assert torch.allclose(mine.mlp.fc1(x), theirs.mlp.fc1(x), atol=1e-6)
    pixels = torch.randn(2, 3, NANO.image, NANO.image)
    theirs_in = lender.vision_model.embeddings(pixels)
    assert torch.allclose(model.vision_model.embeddings(pixels), theirs_in, atol=1e-5)


def test_a_tower_of_another_size_or_kind_is_refused_and_nothing_is_taken() -> None:
    (model, words), (wide, lent) = blip("vqa", MINE, 1), blip("vqa", THEIRS, 2, replace(NANO, width=28))
    before = copies(model)
    for lender, given in ((wide, lent), (nano("clip"), nano_processor("clip").tokenizer.get_vocab())):
        with pytest.raises(InputError, match="lender: its image tower is of another kind or size; choose the --size"):
            take_towers(model, words, lender, given, "lender")
    assert all(torch.equal(value, before[name]) for name, value in copies(model).items())


def test_a_fresh_clip_knows_the_grid_and_looks_at_its_like() -> None:
    model = nano("clip", seed=3)
    positions = model.vision_model.embeddings.position_embedding.weight.detach()
    assert torch.allclose(positions[1:], 0.5 * sincos_positions(7, NANO.width))
    x = torch.randn(53, NANO.width)
    size = NANO.width // NANO.heads
    for layer in model.vision_model.encoder.layers:
        q, k = layer.self_attn.q_proj.weight.detach(), layer.self_attn.k_proj.weight.detach()
        for rows in (slice(0, size), slice(size, 2 * size)):
            score = x @ q[rows].T @ k[rows] @ x.T
            own, other = score.diagonal().mean(), (score.sum() - score.diagonal().sum()) / (53 * 52)
            assert own > other + 2


@pytest.mark.parametrize("kind", KINDS)
def test_semantic_tokens_of_another_model(kind: str) -> None:
    model, lender = nano(kind, 1, semantic_tokens=5), nano(kind, 2)
    lender.renew_semantic_tokens(11)
    before, theirs = copies(model), copies(lender)
    take_guidance(model, lender, "lender")
    assert model.pruning.semantic_tokens == 11
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, (theirs if name.startswith("madtp_guidance.") else before)[name]), name
    assert all(torch.equal(theirs[name], parameter) for name, parameter in lender.named_parameters())
    model.madtp_guidance.semantic_tokens.data.zero_()
    assert bool(lender.madtp_guidance.semantic_tokens.any())  # a copy


def test_semantic_tokens_that_do_not_fit() -> None:
    wider = build_blip("vqa", replace(NANO, width=24), 31)
    with pytest.raises(InputError, match="24 wide, the model's 20"):
        take_guidance(nano("vqa"), wider, "lender")
    with pytest.raises(InputError, match="other maps of tokens"):
        take_guidance(nano("clip"), nano("vqa"), "lender")
