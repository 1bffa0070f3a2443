"""Checkpoints of the original codes become models of ours, value for value; all else is refused in one line."""

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertTokenizer, CLIPProcessor, CLIPTokenizer

from madtp.errors import InputError
from madtp.model.blip import MadtpBlipForQuestionAnswering
from madtp.model.checkpoint import read_checkpoint
from madtp.model.convert import ConvertedInfo, convert
from madtp.model.convert_names import BLIP_PARTS, kinds_of
from madtp.model.load import load, load_processor
from model import tiny_clip
from model.public import GIVEN, MAKE, given, made, original, original_clip, pretrained
from model.tiny import (
    END,
    HEADS,
    IMAGE,
    PATCH,
    POSITIONS,
    SEMANTIC,
    START,
    TEXT_DEPTH,
    VISION_DEPTH,
    VOCABULARY,
    batch_of,
    tiny_examples,
    tiny_model,
)


def same_model(folder: Path, model: Any, guided: bool = True) -> bool:
    loaded = load(folder).state_dict()
    return loaded.keys() == model.state_dict().keys() and all(
        torch.equal(tensor, loaded[name])
        for name, tensor in model.state_dict().items()
        if guided or not name.startswith("madtp_")
    )


def outputs(kind: str, model: Any, generator: torch.Generator) -> list[Tensor]:
    """What a model makes of a random batch; every part of it has a say."""
    batch = batch_of(tiny_examples(generator, images=2, most_questions=1), generator)
    ids, mask, pixels = batch["input_ids"], batch["attention_mask"], batch["pixel_values"]
    if kind == "vqa":
        generated = model.generate(**{k: v for k, v in batch.items() if k[:7] != "decoder"}, max_new_tokens=3)
        return [model(**batch).logits, generated]
    if kind == "reasoning":
        return [model(ids[:1], pixels, mask[:1]).logits]
    if kind == "caption":
        written = model.generate(pixels, max_new_tokens=3)
        return [model(pixels, batch["decoder_input_ids"], batch["decoder_attention_mask"]).logits, written]
    out = model.encode(ids, pixels, mask, match=True)
    return [out.image.feature, out.text.feature, out.logits]


@torch.no_grad()
@pytest.mark.parametrize("kind", BLIP_PARTS)
@pytest.mark.parametrize("stock", [True, False])
def test_madtp_checkpoint(tmp_path: Path, kind: str, stock: bool) -> None:
    model = MAKE[kind](stock=stock, temperature=0.75)
    state = original(model)
    extra = [name for name in state if name.endswith("position_ids")]
    if kind == "retrieval":
        training = ["temp", "idx_queue", "ptr_queue", "visual_encoder_m.cls_token", "text_proj_m.bias"]
        state |= dict.fromkeys(training, torch.ones(1))
        extra += training
    torch.save({"model": state, "epoch": 2, "temperature": 0.75}, tmp_path / "checkpoint_02.pth")
    info = convert(tmp_path / "checkpoint_02.pth", tmp_path / "out", **given(kind))
    assert info == ConvertedInfo(
        tensors=len(list(model.parameters())),
        dropped=tuple(sorted(extra)),
        semantic_tokens=SEMANTIC,
        temperature=0.75,
        kind=kind,
    )
    assert sorted(f.name for f in tmp_path.iterdir()) == ["checkpoint_02.pth", "out"]
    again: Any = load(tmp_path / "out")
    assert type(again) is type(model)
    assert same_model(tmp_path / "out", model)
    assert again.pruning == model.pruning
    # A loaded file's numbers lie where it put them; at other alignments matrix products round otherwise.
    made_of = [outputs(kind, m, torch.Generator().manual_seed(3)) for m in (copy.deepcopy(again), model)]
    assert all(torch.equal(*pair) for pair in zip(*made_of, strict=True))


@pytest.mark.parametrize("form", ["state dict", "madtp"])
def test_clip_checkpoint(tmp_path: Path, form: str) -> None:
    model = tiny_clip.tiny_model(temperature=2.5)
    state = original_clip(model, madtp=form == "madtp")
    torch.save(state if form == "state dict" else {"model": state, "temperature": 2.5}, tmp_path / "clip.pt")
    info = convert(tmp_path / "clip.pt", tmp_path / "out", heads=HEADS)
    assert (info.kind, info.semantic_tokens) == ("clip", SEMANTIC if form == "madtp" else None)
    assert type(load(tmp_path / "out")) is type(model)
    assert same_model(tmp_path / "out", model, guided=form == "madtp")
    assert load(tmp_path / "out").temperature == (2.5 if form == "madtp" else None)
    assert load(tmp_path / "out").config.semantic_width == (tiny_clip.SEMANTIC_WIDTH if form == "madtp" else None)


def as_modules(state: dict[str, Tensor]) -> nn.Module:
    """Modules whose tensors have these names."""
    root = nn.Module()
    for name, tensor in state.items():
        at, (*path, last) = root, name.split(".")
        for part in path:
            if part not in at._modules:
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        at.register_parameter(last, nn.Parameter(tensor))
    return root


def test_clip_archive(tmp_path: Path) -> None:
    """As OpenAI publishes it: TorchScript, half precision, no guidance."""
    model = tiny_clip.tiny_model().half().float()  # the values that survive
    modules = as_modules(original_clip(model, madtp=False)).half()
    with warnings.catch_warnings(action="ignore"):  # deprecated, but what OpenAI published stays
        torch.jit.save(torch.jit.script(modules), tmp_path / "ViT.pt")
    info = convert(tmp_path / "ViT.pt", tmp_path / "out", task="retrieval", heads=HEADS)
    assert info.kind == "clip"
    assert same_model(tmp_path / "out", model, guided=False)


@pytest.mark.parametrize("kind", ["vqa", "caption", "retrieval"])
def test_the_pretrained_checkpoint_becomes_what_is_asked_for(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "model_base.pth"
    torch.save({"model": pretrained()}, file)
    info = convert(file, tmp_path / "out", task=kind, **given(kind))
    model: Any = load(tmp_path / "out")
    assert type(model) is type(MAKE[kind]())
    assert info.kind == kind and info.semantic_tokens == SEMANTIC
    assert {name.partition(".")[0] for name in pretrained()} >= {"text_encoder", "text_decoder", "itm_head"}
    left = {name.partition(".")[0] for name in info.dropped}
    other = {"text_encoder", "text_decoder", "vision_proj", "text_proj", "itm_head"} - set(BLIP_PARTS[kind])
    # of the task's own towers only what the host makes itself is left out
    assert left >= other | {"image_queue", "queue_ptr", "temp", "vision_proj_m", "text_encoder_m"}
    own = [n for n in info.dropped if n.partition(".")[0] in BLIP_PARTS[kind]]
    assert all(name.endswith("position_ids") for name in own)
    expected = pretrained()
    held = {name: tensor for name, tensor in model.state_dict().items() if name in expected}
    assert {name.partition(".")[0] for name in held} == set(BLIP_PARTS[kind])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in held.items())


def test_a_task_that_the_names_do_not_tell(tmp_path: Path) -> None:
    file = tmp_path / "model_base.pth"
    torch.save({"model": pretrained()}, file)
    with pytest.raises(InputError, match=r"pre-trained .* for vqa, caption or retrieval; choose with --task"):
        convert(file, tmp_path / "out", **GIVEN)
    with pytest.raises(InputError, match="for vqa, caption or retrieval, not for reasoning"):
        convert(file, tmp_path / "out", task="reasoning", **GIVEN)
    half = {name: tensor for name, tensor in made("vqa").items() if not name.startswith("text_decoder")}
    torch.save({"model": half}, file)
    with pytest.raises(InputError, match=r"not a whole checkpoint .* name the --task"):
        convert(file, tmp_path / "out", **GIVEN)
    with pytest.raises(InputError, match=r"missing tensors: \d+ \(text_decoder\."):
        convert(file, tmp_path / "out", task="vqa", **GIVEN)
    with pytest.raises(InputError, match="missing tensor vision_proj"):
        convert(file, tmp_path / "out", task="retrieval", heads=HEADS)
    torch.save({"model": pretrained() | {"itm_head.extra": torch.ones(1)}}, file)
    with pytest.raises(InputError, match=r"unknown tensors: 1 \(itm_head.extra\)"):
        convert(file, tmp_path / "out", task="caption", **GIVEN)
    assert [f.name for f in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("kind", [*BLIP_PARTS, "clip"])
def test_another_task_is_refused(tmp_path: Path, kind: str) -> None:
    state = original_clip(tiny_clip.tiny_model()) if kind == "clip" else made(kind)
    assert kinds_of(state) == (kind,)
    torch.save({"model": state}, tmp_path / "a.pth")
    own = "retrieval" if kind == "clip" else kind
    for task in BLIP_PARTS.keys() - {own}:
        with pytest.raises(InputError, match=f"is a checkpoint for {own}, not for {task}; ") as caught:
            convert(tmp_path / "a.pth", tmp_path / "out", task=task)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="unknown task 'vqaa'; use auto, vqa, reasoning, caption or retrieval"):
        convert(tmp_path / "a.pth", tmp_path / "out", task="vqaa")
    if own not in ("vqa", "caption"):
        with pytest.raises(InputError, match="writes no text; leave out --start-token"):
            convert(tmp_path / "a.pth", tmp_path / "out", end_token_id=3)
    assert [f.name for f in tmp_path.iterdir()] == ["a.pth"]


@torch.no_grad()
def test_blip_checkpoint_starts_with_fresh_semantic_tokens(tmp_path: Path) -> None:
    model = tiny_model()
    torch.save({"model": original(model, madtp=False)}, tmp_path / "blip.pth")
    state = torch.random.get_rng_state()
    info = convert(tmp_path / "blip.pth", tmp_path / "out", **GIVEN)
    assert torch.equal(torch.random.get_rng_state(), state)
    convert(tmp_path / "blip.pth", tmp_path / "twice", **GIVEN)
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "twice/model.safetensors").read_bytes()
    assert info.semantic_tokens is None
    assert info.temperature is None
    ours: Any = load(tmp_path / "out")
    assert ours.temperature is None
    assert ours.madtp_guidance.semantic_tokens.shape == (100, model.config.text_config.hidden_size)
    assert float(ours.madtp_guidance.semantic_tokens.norm(dim=-1).mean()) == pytest.approx(1, abs=0.1)
    theirs = model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.state_dict().items() if not k.startswith("madtp_"))


@pytest.mark.parametrize("form", ["bare", "safetensors", "half"])
def test_other_forms(tmp_path: Path, form: str) -> None:
    model = tiny_model()
    state = original(model)
    file = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
    if form == "safetensors":
        save_file(state, file)
    elif form == "half":
        model.half().float()  # the values that survive
        torch.save({n: t.half() if t.is_floating_point() else t for n, t in state.items()}, file)
    else:
        torch.save(state, file)
    info = convert(file, tmp_path / "out", **GIVEN)
    assert info.temperature is None
    assert same_model(tmp_path / "out", model)
    assert load(tmp_path / "out").dtype == torch.float32


@pytest.mark.parametrize(
    ("stored", "temperature"), [(0, None), (0.0, None), (torch.tensor(1.5), 1.5), (3, 3.0), (None, None)]
)
def test_temperature(tmp_path: Path, stored: Any, temperature: float | None) -> None:
    torch.save({"model": {"a": torch.ones(3)}, "temperature": stored}, tmp_path / "a.pth")
    checkpoint = read_checkpoint(tmp_path / "a.pth")
    assert checkpoint.temperature == temperature
    assert torch.equal(checkpoint.state["a"], torch.ones(3))


def test_config_says_what_the_host_gets_wrong(tmp_path: Path) -> None:
    torch.save({"model": original(tiny_model(stock=False))}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "out", **GIVEN)
    config = load(tmp_path / "out").config
    vision, text = config.vision_config, config.text_config
    assert (vision.layer_norm_eps, vision.num_attention_heads, vision.num_hidden_layers) == (1e-6, HEADS, VISION_DEPTH)
    assert (vision.image_size, vision.patch_size, vision.intermediate_size) == (IMAGE, PATCH, 31)
    assert (text.num_attention_heads, text.num_hidden_layers, text.intermediate_size) == (HEADS, TEXT_DEPTH, 37)
    assert (text.vocab_size, text.max_position_embeddings, text.label_smoothing) == (VOCABULARY, POSITIONS, 0.1)
    assert (text.bos_token_id, text.sep_token_id, text.pad_token_id) == (START, END, 0)
    assert text.encoder_hidden_size == vision.hidden_size != text.hidden_size


def broken(state: dict[str, Tensor], fault: str) -> Any:
    """A checkpoint with one fault."""
    if fault == "unknown":
        return {"model": state | {f"extra.{i}": torch.ones(1) for i in range(7)}}
    if fault == "missing":
        return {"model": {k: v for k, v in state.items() if "text_decoder.bert.encoder.layer.0.output" not in k}}
    if fault == "no image tower":
        return {"model": {k: v for k, v in state.items() if not k.startswith("visual")}}
    if fault == "half a map":
        return {"model": {k: v for k, v in state.items() if k != "space_dict"} | {VISION_MAP: torch.ones(3)}}
    if fault == "shape":
        return {"model": state | {"visual_encoder.blocks.1.mlp.fc1.weight": torch.ones(3, 5)}}
    if fault == "dimensions":
        return {"model": state | {"visual_encoder.pos_embed": torch.ones(50, 22)}}
    if fault == "not square":
        return {"model": state | {"visual_encoder.pos_embed": torch.ones(1, 48, 22)}}
    if fault == "deeper decoder":
        key = "text_decoder.bert.encoder.layer.{}.output.dense.bias"
        return {"model": state | {key.format(TEXT_DEPTH): state[key.format(0)]}}
    return {
        "temperature is text": {"model": state, "temperature": "warm"},
        "temperature below 0": {"model": state, "temperature": -1.0},
        "not tensors": {"model": {"a": 1, "b": "c"}},
        "empty": {"model": {}},
        "a number": 3,
    }[fault]


VISION_MAP = "visual_encoder.img_query_model.q_map.0.bias"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("unknown", r"unknown tensors: 7 \(extra.0, extra.1, extra.2, extra.3, extra.4, \.\.\.\)"),
        ("missing", r"missing tensors: 4 \(text_decoder.bert.encoder.layer.0.output.LayerNorm.bias, "),
        ("no image tower", "missing tensor vision_model"),
        ("half a map", "missing tensors: 1 .*semantic_tokens"),
        ("shape", r"another shape than the others imply: 1 \(.*layers.1.mlp.fc1.weight \[3, 5\] for \[31, 22\]"),
        ("dimensions", "needs 3 dimensions"),
        ("not square", "48 image positions"),
        ("deeper decoder", "has not: 1 "),
        ("temperature is text", "temperature is no number"),
        ("temperature below 0", "temperature is -1.0"),
        ("not tensors", "holds no state dict"),
        ("empty", "holds no state dict"),
        ("a number", "holds no state dict"),
    ],
)
def test_wrong_checkpoints(tmp_path: Path, fault: str, says: str) -> None:
    file = tmp_path / "a.pth"
    torch.save(broken(made(), fault), file)
    with pytest.raises(InputError, match=says) as caught:
        convert(file, tmp_path / "out", **GIVEN)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.pth"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_wrong_files(tmp_path: Path, suffix: str) -> None:
    whole, file = tmp_path / f"whole{suffix}", tmp_path / f"a{suffix}"
    state = made()
    save_file(state, whole) if suffix == ".safetensors" else torch.save({"model": state}, whole)
    data = whole.read_bytes()
    for content in (data[: len(data) // 2], data[:7], b"", b"not a checkpoint\n" * 99):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"cut short or not a") as caught:
            convert(file, tmp_path / "out", **GIVEN)
        assert str(caught.value).startswith(f"{file}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        convert(tmp_path / f"gone{suffix}", tmp_path / "out", **GIVEN)
    with pytest.raises(InputError, match="is a folder"):
        convert(tmp_path, tmp_path / "out", **GIVEN)


class Trap:
    """Writes a file if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    file, sprung = tmp_path / "a.pth", tmp_path / "sprung"
    torch.save({"model": made(), "config": Trap(sprung)}, file)
    with pytest.raises(InputError, match="could run code") as caught:
        convert(file, tmp_path / "out", **GIVEN)
    assert not sprung.exists()
    assert "\n" not in str(caught.value)
    torch.load(file, weights_only=False)
    assert sprung.exists()  # it was a trap


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_pickle_with_code_is_not_run(tmp_path: Path, protocol: int) -> None:
    """Not written by torch: torch stumbles over it before it sees what it holds."""
    file, sprung = tmp_path / "a.pth", tmp_path / "sprung"
    file.write_bytes(pickle.dumps({"model": Trap(sprung)}, protocol))
    with pytest.raises(InputError, match="could run code"):
        convert(file, tmp_path / "out", **GIVEN)
    assert not sprung.exists()


def test_a_table_is_no_pickle_with_code(tmp_path: Path) -> None:
    """Its first letter is the opcode of a call, and a line follows."""
    (tmp_path / "a.pth").write_text("image,caption\nok.png,a red square\n")
    with pytest.raises(InputError, match="cut short or not a checkpoint"):
        convert(tmp_path / "a.pth", tmp_path / "out", **GIVEN)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"heads": 3}, "3 heads do not share the width of 22 of the image tower"),
        ({"heads": None}, "give the number of heads"),
        ({"end_token_id": None}, r"101 entries, not BERT's 30524; give the id of \[SEP\]"),
        ({"end_token_id": VOCABULARY}, "outside the vocabulary"),
        ({"start_token_id": -1}, "outside the vocabulary"),
    ],
)
def test_wrong_arguments(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    torch.save(made(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=says):
        convert(tmp_path / "a.pth", tmp_path / "out", **(GIVEN | changed))
    assert not (tmp_path / "out").exists()


def test_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "a.pth", tmp_path / "new" / "out"
    torch.save(made(), source)
    convert(source, out, **GIVEN)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="is not empty"):
        convert(source, out, **GIVEN)
    other = tiny_model(seed=5)
    torch.save(original(other), source)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MadtpBlipForQuestionAnswering, "save_pretrained", full)
        with pytest.raises(InputError, match="No space left"):
            convert(source, out, overwrite=True, **GIVEN)
        with pytest.raises(InputError, match="No space left"):
            convert(source, tmp_path / "fresh", **GIVEN)
    assert (out / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "fresh").exists()
    convert(source, out, overwrite=True, **GIVEN)
    assert same_model(out, other)
    assert [f.name for f in out.parent.iterdir()] == ["out"]

    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="no model"):
        convert(source, notes, overwrite=True, **GIVEN)
    with pytest.raises(InputError, match="is a file"):
        convert(source, notes / "mine.txt", overwrite=True, **GIVEN)
    inside = source.rename(out / "a.pth")
    with pytest.raises(InputError, match="holds what is to be converted"):
        convert(inside, out, overwrite=True, **GIVEN)
    assert inside.exists()


def test_tokenizer_is_saved_beside_the_weights(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY - 2 - 5))]
    vocabulary = tmp_path / "words" / "vocab.txt"
    vocabulary.parent.mkdir()
    vocabulary.write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(vocab=str(vocabulary)).save_pretrained(tmp_path / "words")
    torch.save(made(), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "out", heads=HEADS, end_token_id=3, tokenizer=str(tmp_path / "words"))
    processor = load_processor(tmp_path / "out")
    model: Any = load(tmp_path / "out")
    tokenizer = processor.tokenizer
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.convert_tokens_to_ids("[DEC]") == tokenizer.bos_token_id == VOCABULARY - 2
    assert tokenizer.bos_token_id == model.decoder_start_token_id
    assert tokenizer.convert_tokens_to_ids("[ENC]") == VOCABULARY - 1
    assert tokenizer("w3 w5").input_ids == [2, 8, 10, 3]
    assert dict(processor.image_processor.size) == {"height": IMAGE, "width": IMAGE}
    vocabulary.write_text("\n".join(words[:-3]), encoding="utf-8")
    BertTokenizer(vocab=str(vocabulary)).save_pretrained(tmp_path / "words")
    with pytest.raises(InputError, match=f"has {VOCABULARY - 5} words, the checkpoint {VOCABULARY}"):
        convert(tmp_path / "a.pth", tmp_path / "new", tokenizer=str(tmp_path / "words"), **GIVEN)
    with pytest.raises(InputError, match="no tokenizer can be loaded"):
        convert(tmp_path / "a.pth", tmp_path / "new", tokenizer=str(tmp_path / "nowhere"), **GIVEN)
    assert not (tmp_path / "new").exists()


def test_tokenizer_of_a_clip(tmp_path: Path) -> None:
    words = [f"w{i}</w>" for i in range(VOCABULARY - 2)] + ["<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer({word: i for i, word in enumerate(words)}, []).save_pretrained(tmp_path / "words")
    torch.save(original_clip(tiny_clip.tiny_model()), tmp_path / "clip.pt")
    convert(tmp_path / "clip.pt", tmp_path / "out", heads=HEADS, tokenizer=str(tmp_path / "words"))
    processor: Any = load_processor(tmp_path / "out")
    assert type(processor) is CLIPProcessor
    config = load(tmp_path / "out").config.text_config
    ids = processor.tokenizer("").input_ids
    assert ids == [config.bos_token_id, config.eos_token_id] == [VOCABULARY - 2, VOCABULARY - 1]
    image = processor.image_processor(Image.new("RGB", (53, 41)), return_tensors="pt").pixel_values
    assert image.shape == (1, 3, IMAGE, IMAGE)
