"""What is written for transformers loads there with nothing missing or left over, and answers as ours does dense."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipProcessor,
    CLIPModel,
)

from madtp.errors import InputError
from madtp.model.dense import DenseInfo, export_dense
from madtp.model.load import load, quiet_host
from model import tiny_clip
from model.tiny import START, batch_of, tiny_captioner, tiny_examples, tiny_model, tiny_reasoner
from model.tiny_retrieval import tiny_retrieval
from small import contents, model_folder, processor

CASES: dict[str, tuple[Any, Any]] = {
    "vqa": (tiny_model, BlipForQuestionAnswering),
    "caption": (tiny_captioner, BlipForConditionalGeneration),
    "retrieval": (tiny_retrieval, BlipForImageTextRetrieval),
    "clip": (tiny_clip.tiny_model, CLIPModel),
}


def save(model: Any, folder: Path) -> Path:
    with quiet_host():
        model.save_pretrained(folder)
    return folder


def outputs(kind: str, model: Any, generator: torch.Generator) -> list[Tensor]:
    """Of a model of ours or of the host's, on one image and one text without padding."""
    if kind == "clip":
        ids, mask = tiny_clip.padded(tiny_clip.sentences([7], generator), 9)
        out = model(ids, tiny_clip.pictures(1, generator), mask)
        return [out.image_embeds, out.text_embeds, out.logits_per_image]
    batch = batch_of(tiny_examples(generator, images=1, most_questions=1))
    ids, pixels = batch["input_ids"], batch["pixel_values"]
    if kind == "vqa":
        return [model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=5, num_beams=2)]
    if kind == "caption":
        ids[:, 0] = START
        return [model(pixels, ids).logits, model.generate(pixels, max_new_tokens=5)]
    return [model(ids, pixels, use_itm_head=use).itm_score for use in (True, False)]


@torch.no_grad()
@pytest.mark.parametrize("kind", CASES)
def test_the_host_loads_it_and_answers_alike(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    make, stock = CASES[kind]
    ours = make(temperature=1.0)
    task = "retrieval" if kind == "clip" else kind
    info = export_dense(save(ours, tmp_path / "ours"), tmp_path / "dense", task=task)
    plain, report = stock.from_pretrained(tmp_path / "dense", output_loading_info=True)
    assert not any(report.values()), report
    guidance = sorted(name for name, _ in ours.named_parameters() if name.startswith("madtp_"))
    count = len(list(plain.parameters()))
    assert info == DenseInfo(task, stock.__name__, count, info.dropped) and sorted(info.dropped) == guidance
    assert count == len(list(ours.parameters())) - len(guidance)
    ours.temperature = None
    made = [outputs(kind, model, torch.Generator().manual_seed(5)) for model in (ours, plain)]
    for left, right in zip(*made, strict=True):
        assert torch.equal(left, right) if left.dtype == torch.long else torch.allclose(left, right, atol=1e-5)
    config = json.loads((tmp_path / "dense" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [stock.__name__]
    assert config["model_type"] == ("clip" if kind == "clip" else "blip")
    assert "madtp" not in json.dumps(config) and "semantic_width" not in config
    assert not caplog.records


def test_and_comes_back_as_ours(tmp_path: Path) -> None:
    ours = tiny_model(temperature=1.0)
    export_dense(save(ours, tmp_path / "ours"), tmp_path / "dense")
    again: Any = load(tmp_path / "dense")
    assert type(again) is type(ours) and again.temperature is None
    mine = ours.state_dict()
    assert all(torch.equal(v, mine[k]) for k, v in again.state_dict().items() if not k.startswith("madtp_"))


def test_the_processor_goes_along(tmp_path: Path) -> None:
    export_dense(model_folder(tmp_path / "ours", temperature=1.0), tmp_path / "dense")
    again = BlipProcessor.from_pretrained(tmp_path / "dense")
    question = "is there a circle?"
    assert again.tokenizer(question).input_ids == processor().tokenizer(question).input_ids
    assert again.image_processor.size == processor().image_processor.size


def test_models_that_the_host_has_not(tmp_path: Path) -> None:
    folder = save(tiny_reasoner(), tmp_path / "reasoner")
    with pytest.raises(InputError, match="reasoner: transformers has no model of two images"):
        export_dense(folder, tmp_path / "dense")
    folder = save(tiny_model(stock=False), tmp_path / "wide")
    with pytest.raises(InputError, match=r"wide: .* has other shapes for 4 \(text_decoder.* \[26, 26\] for \[26, 22\]"):
        export_dense(folder, tmp_path / "dense")
    assert not (tmp_path / "dense").exists()


def test_wrong_input(tmp_path: Path) -> None:
    folder, out = save(tiny_model(), tmp_path / "ours"), tmp_path / "dense"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.pth").write_bytes(b"weights")
    faults: dict[str, tuple[Path, dict[str, Any], str]] = {
        "no folder": (tmp_path / "none", {}, "none: no such folder"),
        "a file": (tmp_path / "file.pth", {}, "file.pth: is a file, not a model folder"),
        "no model": (tmp_path / "empty", {}, "empty: no config.json"),
        "another task": (folder, {"task": "caption"}, "is a model for vqa, not for caption"),
    }
    for source, options, says in faults.values():
        with pytest.raises(InputError, match=says) as caught:
            export_dense(source, out, **options)
        assert "\n" not in str(caught.value)
    assert not out.exists()
    export_dense(folder, out)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"dense: is not empty; .* --overwrite"):
        export_dense(folder, out)
    with pytest.raises(InputError, match="ours: holds what is to be converted"):
        export_dense(folder, folder, overwrite=True)
    assert contents(tmp_path) == before
    export_dense(save(tiny_model(seed=5), folder), out, overwrite=True)
    assert contents(out)["model.safetensors"] != before["dense/model.safetensors"]
