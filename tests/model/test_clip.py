"""CLIP: dense, ours is the stock model; pruned, it is the method, whatever the batch; its gradients are exact."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, pipeline

import oracle
from madtp.model.clip import MadtpCLIPModel, contrastive_loss
from madtp.model.load import quiet_host
from madtp.prune import METHODS, Evidence
from model.tiny_clip import (
    END,
    FEATURE,
    IMAGE,
    POSITIONS,
    SEMANTIC,
    SEMANTIC_WIDTH,
    START,
    TEXT_DEPTH,
    VISION_DEPTH,
    VISION_WIDTH,
    padded,
    pictures,
    sentences,
    tiny_model,
    tiny_stock,
)

WORDS = [3, 12, 1, 29, 41]
COUNT = len(WORDS)


@pytest.fixture
def inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """Five images and five texts of different length, padded to all positions as CLIP's own tokenizer does."""
    ids, _ = padded(sentences(WORDS, generator))
    return {"input_ids": ids, "pixel_values": pictures(COUNT, generator)}


# --- the stock model ---------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_dense_equals_stock(inputs: dict[str, Tensor], dtype: torch.dtype, tolerance: float, masked: bool) -> None:
    stock = tiny_stock().to(dtype)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    if masked:
        inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
    ours = MadtpCLIPModel.from_dense(stock, semantic_tokens=SEMANTIC)
    theirs, out = stock(**inputs, return_loss=True), ours(**inputs, return_loss=True)
    for name in ("loss", "logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        assert torch.allclose(out[name], theirs[name], rtol=0, atol=tolerance * (100 if "logits" in name else 1)), name
    assert out.loss_align is None
    assert torch.equal(out.loss, out.loss_task)
    assert [s[1] for s in out.trace.steps(3)] == [49] * VISION_DEPTH + [WORDS[3]] * TEXT_DEPTH

    theirs, mine = (m.get_image_features(inputs["pixel_values"]) for m in (stock, ours))
    assert torch.allclose(mine.pooler_output, theirs.pooler_output, rtol=0, atol=tolerance)
    assert torch.allclose(mine.last_hidden_state, theirs.last_hidden_state, rtol=0, atol=tolerance)
    texts = {k: v for k, v in inputs.items() if k != "pixel_values"}
    theirs, mine = (m.get_text_features(**texts) for m in (stock, ours))
    assert torch.allclose(mine.pooler_output, theirs.pooler_output, rtol=0, atol=tolerance)
    for i, n in enumerate(WORDS):
        states = mine.last_hidden_state[i]
        assert torch.allclose(states[: n + 2], theirs.last_hidden_state[i, : n + 2], rtol=0, atol=tolerance)
        assert not states[n + 2 :].any()


@torch.no_grad()
def test_the_old_rule_for_the_end_token(inputs: dict[str, Tensor]) -> None:
    stock = tiny_stock(end=2).double()
    inputs["pixel_values"] = inputs["pixel_values"].double()
    theirs, out = stock(**inputs), MadtpCLIPModel.from_dense(stock)(**inputs)
    assert torch.allclose(out.text_embeds, theirs.text_embeds, rtol=0, atol=1e-12)
    assert out.encoded.text.states.lengths.tolist() == [n + 2 for n in WORDS]


@torch.no_grad()
def test_padding_with_end_tokens_as_the_host_s_tokenizer_does(inputs: dict[str, Tensor]) -> None:
    ours, ids = tiny_model(temperature=1.0).double(), inputs["input_ids"]
    out = ours.read(ids.masked_fill(ids == 0, END))
    assert torch.allclose(out.feature, ours.read(ids).feature, rtol=0, atol=1e-12)


@torch.no_grad()
def test_stock_is_wrong_about_padding_on_the_left_and_ours_is_not(generator: torch.Generator) -> None:
    stock = tiny_stock().double()
    ours = MadtpCLIPModel.from_dense(stock)
    texts = sentences([5, 13], generator)
    right, left = padded(texts), padded(texts, POSITIONS, generator)
    expected = stock.get_text_features(*right).pooler_output
    assert not torch.allclose(stock.get_text_features(*left).pooler_output, expected, rtol=0, atol=1e-2)
    assert torch.allclose(ours.get_text_features(*left).pooler_output, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_images_of_another_size(generator: torch.Generator) -> None:
    stock = tiny_stock().double()
    ours = MadtpCLIPModel.from_dense(stock)
    larger = torch.randn(2, 3, IMAGE + 10, IMAGE + 10, generator=generator).double()
    theirs = stock.get_image_features(larger, interpolate_pos_encoding=True).pooler_output
    mine = ours.get_image_features(larger, interpolate_pos_encoding=True).pooler_output
    assert torch.allclose(mine, theirs, rtol=0, atol=1e-12)


def test_from_dense_shares_weights_and_leaves_stock_as_it_was(inputs: dict[str, Tensor]) -> None:
    stock = tiny_stock()
    before = dict(stock.named_parameters())
    ours = MadtpCLIPModel.from_dense(stock, temperature=0.5)
    shared = dict(ours.named_parameters())
    assert all(shared[name] is parameter for name, parameter in before.items())
    assert all(name.startswith("madtp_guidance.") for name in shared.keys() - before.keys())
    for name in shared.keys() - before.keys():  # as fresh as a model of ours from scratch: of the tokens' size
        spread = float(shared[name].detach().std())
        assert spread == 0 if name.endswith("bias") else 0.1 < spread < 0.4, name
    with torch.no_grad():
        assert not torch.allclose(ours(**inputs).image_embeds, stock(**inputs).image_embeds, atol=1e-2)
    with pytest.raises(TypeError, match="CLIPModel"):
        MadtpCLIPModel.from_dense(stock.vision_model)


@torch.no_grad()
def test_folders(tmp_path: Path, inputs: dict[str, Tensor]) -> None:
    """Ours comes back as it was, loads stock's and is loaded by stock."""
    inputs["pixel_values"] = inputs["pixel_values"].double()
    ours, stock = tiny_model(temperature=1.7, alpha=0.3).double(), tiny_stock().double()
    with quiet_host():
        ours.save_pretrained(tmp_path / "ours")
        stock.save_pretrained(tmp_path / "stock")
        again = MadtpCLIPModel.from_pretrained(tmp_path / "ours")
        wrapped, missing = MadtpCLIPModel.from_pretrained(tmp_path / "stock", output_loading_info=True)
        plain, unexpected = CLIPModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    state, loaded = ours.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    assert again.pruning == ours.pruning
    assert again.config.semantic_width == SEMANTIC_WIDTH
    assert torch.allclose(again(**inputs).logits_per_text, ours(**inputs).logits_per_text, rtol=0, atol=1e-12)
    guidance = {name for name in state if name.startswith("madtp_guidance.")}
    assert len(guidance) == 1 + 2 * (VISION_DEPTH + TEXT_DEPTH)
    assert set(unexpected["unexpected_keys"]) == set(missing["missing_keys"]) == guidance
    assert torch.allclose(wrapped(**inputs).logits_per_text, stock(**inputs).logits_per_text, rtol=0, atol=1e-10)
    assert wrapped.temperature is None
    ours.temperature = None
    assert torch.allclose(plain(**inputs).logits_per_text, ours(**inputs).logits_per_text, rtol=0, atol=1e-10)
    fresh = wrapped.madtp_guidance.vision_maps[0].weight  # initialised, not what memory held
    assert float(fresh.std()) == pytest.approx(VISION_WIDTH**-0.5, rel=0.2)


# --- the method --------------------------------------------------------------------------------------------------


def twin_of_the_text_tower(model: Any, ids: Tensor, temperature: float) -> tuple[Tensor, list[int]]:
    """One text, from its start to its end token: the pooled token's states, and the words left by each block."""
    tower, semantic = model.text_model, model.madtp_guidance.semantic_tokens
    x = tower.embeddings(input_ids=ids[None])[0]
    left = []
    for layer, query_map in zip(tower.encoder.layers, model.madtp_guidance.text_maps, strict=True):
        affinity = oracle.affinity(query_map(x), semantic)
        own, normed = layer.self_attn, layer.layer_norm1(x)
        qkv = (part(normed).view(len(x), own.num_heads, -1) for part in (own.q_proj, own.k_proj, own.v_proj))
        probability, output = oracle.attention(*qkv, causal=True)
        x = x + own.out_proj(torch.tensor(output, dtype=x.dtype).flatten(1))
        x = torch.tensor(oracle.step(x, probability, output, affinity, temperature, 1, 1)[0], dtype=x.dtype)
        left.append(len(x) - 2)
        x = x + layer.mlp(layer.layer_norm2(x))
    return tower.final_layer_norm(x)[-1], left


@torch.no_grad()
@pytest.mark.parametrize("backend", ["dense", "blocked"])
@pytest.mark.parametrize("temperature", [0.3, 2.0, 53.0])
def test_text_tower_is_the_slow_twin(temperature: float, backend: str, generator: torch.Generator) -> None:
    model = tiny_model(temperature=temperature, attention=backend).double()
    texts = sentences([0, 1, 2, 17, 31], generator)
    read = model.read(*padded(texts, POSITIONS, generator), provenance=True)
    for i, text in enumerate(texts):
        pooled, left = twin_of_the_text_tower(model, text, temperature)
        assert [int(block.tokens_out[i]) for block in read.trace.blocks] == left
        assert torch.allclose(read.states.instance(i)[-1], pooled, rtol=0, atol=1e-9)
    assert left[-1] < 31


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"method": "class_attention"}, {"method": "random"}])
def test_first_and_last_token_are_never_pruned_and_order_is_kept(
    settings: dict[str, Any], generator: torch.Generator
) -> None:
    model = tiny_model(temperature=0.4, **settings)
    words = [0, 1, 2, 3, 17, 31]
    trace = model.read(*padded(sentences(words, generator)), provenance=True).trace
    for block in trace.tower("text"):
        assert block.provenance is not None
        for i, n in enumerate(words):
            owner, share = block.provenance.of(i)
            left = int(block.tokens_out[i])
            assert owner.shape == (n,)
            assert all(1 <= place <= left for place in owner.tolist())  # 0 is the first token, left + 1 the last
            itself = owner[share == 1]
            assert torch.equal(itself, torch.arange(1, len(itself) + 1))
            merged = owner[share < 1].tolist()  # behind all that are kept; one of an earlier block may be kept itself
            assert all(len(itself) < place <= left for place in merged)
            assert block.block > 0 or all(place == left for place in merged)
    assert int(trace.blocks[-1].tokens_out[-1]) < 31


@torch.no_grad()
def test_what_each_tower_offers_to_decide_on(inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Evidence] = []
    madtp = METHODS["madtp"]

    def decide(evidence: Evidence, strength: float, training: bool) -> Any:
        seen.append(evidence)
        return madtp.decide(evidence, strength, training)

    monkeypatch.setitem(METHODS, "madtp", replace(madtp, decide=decide))
    tiny_model(temperature=1.0)(**inputs)
    assert [(e.head, e.tail, e.fewest, e.block) for e in seen] == [
        *((1, 0, 2, i) for i in range(VISION_DEPTH)),
        *((1, 1, 1, i) for i in range(TEXT_DEPTH)),
    ]


@torch.no_grad()
def test_alignment_is_that_of_the_semantic_features(inputs: dict[str, Tensor]) -> None:
    model = tiny_model(temperature=1.0).double()
    inputs["pixel_values"] = inputs["pixel_values"].double()
    out = model(**inputs, return_loss=True)
    image, text = out.encoded.image.semantic, out.encoded.text.semantic
    assert image.shape == (COUNT, SEMANTIC, SEMANTIC_WIDTH)
    expected = [oracle.alignment_loss(i, t) for i, t in zip(image, text, strict=True)]
    assert torch.allclose(out.encoded.alignment, torch.tensor(expected, dtype=torch.float64))
    assert torch.allclose(out.loss, out.loss_task + 0.1 * sum(expected) / COUNT)
    # of the first block by hand: the texts' words alone, through the block's map
    lone = model.read(inputs["input_ids"][1:2], align=True)
    model.text_model.encoder.layers = model.text_model.encoder.layers[:1]
    first = model.read(inputs["input_ids"][1:2], align=True).semantic[0]
    words = model.text_model.embeddings(input_ids=inputs["input_ids"][1:2, : WORDS[1] + 2])[0, 1:-1]
    query = model.madtp_guidance.text_maps[0](words)
    affinity = oracle.affinity(query, model.madtp_guidance.semantic_tokens)
    by_hand = oracle.semantic_feature(affinity, query, SEMANTIC, SEMANTIC_WIDTH)
    assert torch.allclose(first, torch.tensor(by_hand, dtype=torch.float64))
    assert not torch.allclose(first, lone.semantic[0])


@torch.no_grad()
def test_zero_shot_classification(generator: torch.Generator) -> None:
    """Of three images among seven classes, pruned: by the logits, by the features, and class by class."""
    model = tiny_model(temperature=1.0).double()
    images, prompts = pictures(3, generator, torch.float64), sentences([4, 11, 2, 7, 23, 5, 3], generator)
    ids, mask = padded(prompts, 31)
    out = model(ids, images, mask)
    assert out.logits_per_image.shape == (3, 7)
    assert bool((out.trace.blocks[0].tokens_out < out.trace.blocks[0].tokens_in).all())
    classes = normalize(model.get_text_features(ids, mask).pooler_output, dim=-1)
    features = normalize(model.get_image_features(images).pooler_output, dim=-1)
    assert torch.allclose(out.logits_per_image, model.logit_scale.exp() * features @ classes.T)
    alone = torch.cat([model(p[None], images).logits_per_image for p in prompts], 1)
    assert torch.allclose(out.logits_per_image, alone)
    assert torch.equal(out.logits_per_image.softmax(-1).argmax(-1), alone.argmax(-1))
    assert out.trace.image_index is None  # seven prompts of three images belong to none
    assert model.encode(ids, images[:1], mask).trace.image_index.tolist() == [0] * 7


def test_the_host_s_zero_shot_pipeline_runs_a_pruned_model() -> None:
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    entries = [*letters, *(f"{c}</w>" for c in letters), ".", ".</w>"]
    entries += [f"word{i}" for i in range(START - len(entries))]
    tokenizer = CLIPTokenizer({w: i for i, w in enumerate([*entries, "<|startoftext|>", "<|endoftext|>"])}, [])
    size = {"height": IMAGE, "width": IMAGE}
    images = CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size=size)
    model, labels = tiny_model(temperature=1.0), ["cat", "submarine", "red panda"]
    with quiet_host():
        classify = pipeline("zero-shot-image-classification", model=model, tokenizer=tokenizer, image_processor=images)
        picture = Image.effect_noise((53, 47), 90).convert("RGB")
        found = classify(picture, candidate_labels=labels, hypothesis_template="a {}.")
    ids = tokenizer([f"a {label}." for label in labels], padding=True, return_tensors="pt")
    assert int(ids["attention_mask"].sum(-1).min()) < ids["input_ids"].shape[1]
    with torch.no_grad():
        score = model(pixel_values=images(picture, return_tensors="pt")["pixel_values"], **ids).logits_per_image[0]
    expected = dict(zip(labels, score.softmax(-1).tolist(), strict=True))
    assert {one["label"]: one["score"] for one in found} == pytest.approx(expected)


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.2},
        {"temperature": 1.0},
        {"temperature": 8.0},
        {"temperature": 64.0, "attention": "dense"},
        {"temperature": 0.3, "method": "class_attention"},
        {"temperature": 0.3, "method": "random"},
    ],
)
def test_no_answer_depends_on_its_batch(settings: dict[str, Any], generator: torch.Generator) -> None:
    """Alone, or with others in another order under other padding: the same tokens stay, the same numbers come out."""
    model = tiny_model(seed=5, **settings).double()
    images, texts = pictures(7, generator, torch.float64), sentences([0, 29, 5, 13, 1, 29, 38], generator)
    order = torch.randperm(7, generator=generator)
    together = model.encode(*_batch(texts, images, None), align=True, provenance=True)
    mixed = model.encode(*_batch([texts[i] for i in order], images[order], generator), align=True, provenance=True)
    pruned = 0
    for place, i in enumerate(order.tolist()):
        alone = model.encode(*_batch([texts[i]], images[i : i + 1], generator), align=True, provenance=True)
        assert together.trace.steps(i) == mixed.trace.steps(place) == alone.trace.steps(0)
        pruned += sum(before > after for _, before, after in alone.trace.steps(0))
        for one, other, lone in zip(together.trace.blocks, mixed.trace.blocks, alone.trace.blocks, strict=True):
            for a, b, c in zip(one.provenance.of(i), other.provenance.of(place), lone.provenance.of(0), strict=True):
                assert torch.allclose(a, b)
                assert torch.allclose(a, c)
        for j, with_others in ((i, together), (place, mixed)):
            for side in ("image", "text"):
                ours, expected = getattr(with_others, side).feature[j], getattr(alone, side).feature[0]
                assert torch.allclose(ours, expected, rtol=0, atol=1e-9)
            assert torch.allclose(with_others.alignment[j], alone.alignment[0], rtol=0, atol=1e-9)
    assert pruned > 7 * VISION_DEPTH


def _batch(texts: list[Tensor], images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    extra = 0 if generator is None else int(torch.randint(0, 9, (), generator=generator))
    ids, mask = padded(texts, max(map(len, texts)) + extra, generator)
    return ids, images, mask


def test_a_text_does_not_see_later_words(generator: torch.Generator) -> None:
    """Pruned away or not, what stands behind a token has no gradient at it."""
    model = tiny_model(temperature=None).double()
    (text,) = sentences([11], generator)
    seen: list[Tensor] = []
    model.text_model.embeddings.register_forward_hook(lambda *args: seen.append(args[2].retain_grad() or args[2]))
    model.read(text[None]).states.values[6].sum().backward()
    (words,) = seen
    assert words.grad is not None
    used = words.grad.abs().sum((1, 2)) > 0
    assert used.tolist() == [True] * 7 + [False] * 6


# --- losses and gradients ----------------------------------------------------------------------------------------


def test_contrastive_loss_by_hand() -> None:
    # Texts 0 and 2 belong to image 1, text 1 to image 0, none to image 2.
    logits = torch.tensor([[0.0, 2, 1], [3, 0, 0], [1, 1, 5]])
    of_texts = (2 - logits[0].logsumexp(0) + 3 - logits[1].logsumexp(0) + 1 - logits[2].logsumexp(0)) / -3
    columns = logits.T.log_softmax(-1)
    of_images = -(columns[0, 1] + (columns[1, 0] + columns[1, 2]) / 2) / 2
    loss = contrastive_loss(logits, torch.tensor([1, 0, 1]))
    torch.testing.assert_close(loss, (of_texts + of_images) / 2)


@torch.no_grad()
def test_texts_that_share_an_image(inputs: dict[str, Tensor]) -> None:
    model = tiny_model(temperature=1.0)
    index = torch.tensor([1, 0, 1, 1, 0])
    images = inputs["pixel_values"][:2]
    out = model(inputs["input_ids"], images, image_index=index, return_loss=True)
    single = model(inputs["input_ids"], images[index], return_loss=True)
    assert torch.equal(out.trace.image_index, index)
    assert torch.allclose(out.encoded.alignment, single.encoded.alignment, atol=1e-6)
    assert torch.allclose(out.loss_task, contrastive_loss(out.logits_per_text, index))
    diagonal = torch.arange(COUNT)
    plain = (cross_entropy(single.logits_per_text, diagonal) + cross_entropy(single.logits_per_image, diagonal)) / 2
    assert torch.allclose(single.loss_task, plain)


def test_gradients_of_blocked_and_dense_attention_agree(inputs: dict[str, Tensor]) -> None:
    inputs["pixel_values"] = inputs["pixel_values"].double()
    grads = {}
    for backend in ("dense", "blocked"):
        model = tiny_model(temperature=1.0, attention=backend).double().train()
        out = model(**inputs, return_loss=True)
        out.loss.backward()
        assert all(bool((b.tokens_out < b.tokens_in).any()) for b in out.trace.blocks[:1] + out.trace.blocks[-1:])
        grads[backend] = {name: p.grad for name, p in model.named_parameters()}
    for name, dense in grads["dense"].items():
        assert dense is not None, name
        assert torch.allclose(grads["blocked"][name], dense, rtol=1e-8, atol=1e-8), name
        if ("maps" in name and "weight" in name) or "semantic" in name:
            assert float(dense.abs().max()) > 1e-6, name


@torch.no_grad()
def test_wrong_calls(inputs: dict[str, Tensor]) -> None:
    model, ids = tiny_model(), inputs["input_ids"]
    for wrong in (ids.masked_fill(ids == END, 7), torch.full((1, 5), END)):
        with pytest.raises(ValueError, match="no end token"):
            model.read(wrong)
    long = torch.cat([ids[:, :1].expand(-1, POSITIONS), ids], 1)
    model.read(torch.cat([ids, ids], 1))  # behind the end token there may be anything
    with pytest.raises(ValueError, match=f"{POSITIONS} at most"):
        model.read(long)
    with pytest.raises(ValueError, match="image_index"):
        model(ids, inputs["pixel_values"][:3], return_loss=True)
    for index in ([0, 1, 2, 3], [0, 1, 2, 3, COUNT], [0, 1, 2, 3, -1]):
        with pytest.raises(ValueError, match="image_index"):
            model(**inputs, image_index=torch.tensor(index))
    assert model.feature_width == FEATURE
