"""A model folder is replaced whole: a save that fails leaves the model that was there."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from madtp.errors import InputError
from madtp.model.load import load, load_processor
from madtp.model.save import save_model
from small import contents, nano_model, processor, small_disk


def same_weights(left: Any, right: Any) -> bool:
    theirs = right.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in left.state_dict().items())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(nano_model(seed=1), processor(), tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = nano_model(seed=1, temperature=2.5, reduction=0.37, alpha=0.3, method="madtp")
    out = tmp_path / "deep" / "down"
    save_model(model, processor(), out)
    again = load(out)
    assert same_weights(model, again) and again.pruning == model.pruning
    assert {p.name for p in out.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    tokenizer = load_processor(out).tokenizer
    question = "is there a circle?"
    assert tokenizer(question).input_ids == processor().tokenizer(question).input_ids
    assert tokenizer.convert_tokens_to_ids("[ENC]") == processor().tokenizer.convert_tokens_to_ids("[ENC]")
    assert capfd.readouterr() == ("", ""), "no bars of the host's"


def test_a_disk_full_at_the_tokenizer_is_said(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizers library raises a bare Exception then."""
    before, tools = contents(saved), processor()

    def failing(*_: Any, **__: Any) -> None:
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr(type(tools), "save_pretrained", failing)
    with pytest.raises(InputError, match=r"cannot write: No space left on device .* free the disk"):
        save_model(nano_model(seed=2), tools, saved)
    assert contents(saved) == before


def test_saving_over_replaces_the_model(saved: Path) -> None:
    (saved / "log.jsonl").write_text("kept")
    new = nano_model(seed=2, temperature=3.0)
    save_model(new, processor(), saved)
    assert same_weights(new, load(saved)) and load(saved).temperature == 3.0
    assert (saved / "log.jsonl").read_text() == "kept"


def test_a_full_disk_leaves_the_old_model(saved: Path) -> None:
    before = contents(saved)
    with small_disk(20_000), pytest.raises(InputError, match=r"cannot write: .*; free the disk") as error:
        save_model(nano_model(seed=2), processor(), saved)
    assert str(error.value).startswith(str(saved)) and "\n" not in str(error.value)
    assert contents(saved) == before
    assert same_weights(nano_model(seed=1), load(saved))


@pytest.mark.parametrize("part", ["model", "processor"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_between_the_files_leaves_the_old_model(
    saved: Path, monkeypatch: pytest.MonkeyPatch, part: str, error: BaseException
) -> None:
    before = contents(saved)
    new, words = nano_model(seed=2), processor()

    def failing(folder: Path, **_: Any) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr({"model": new, "processor": words}[part], "save_pretrained", failing)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        save_model(new, words, saved)
    assert contents(saved) == before


def test_a_new_folder_is_a_model_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any rename, what is there has no config and so is no model yet: the config comes last."""
    replace, order = os.replace, list[str]()

    def recorded(source: Any, target: Any) -> None:
        order.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", recorded)
    save_model(nano_model(), processor(), tmp_path)
    assert order[-1] == "config.json" and "model.safetensors" in order[:-1]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "file" / "model")) + ": cannot write"):
        save_model(nano_model(), processor(), tmp_path / "file" / "model")
