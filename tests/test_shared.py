"""What all rows of a folder share: settings, the data's content, the model's values."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from madtp.errors import InputError
from madtp.shared import check_blocks, check_settings, content_of, model_of, read_json
from small import nano_model, nano_processor, processor, samples


def test_settings_must_be_the_same(tmp_path: Path) -> None:
    check_settings(tmp_path / "a", {"lr": 1})
    check_settings(tmp_path / "a", {"lr": 1})
    with pytest.raises(InputError, match="lr 1 -> 2"):
        check_settings(tmp_path / "a", {"lr": 2})
    (tmp_path / "a" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        check_settings(tmp_path / "a", {"lr": 1})
    (tmp_path / "b").write_text("")
    with pytest.raises(InputError, match="something else"):
        check_settings(tmp_path / "b", {})


def test_content_is_what_the_samples_say() -> None:
    for task in ("vqa", "reasoning", "caption"):
        train, val = (samples(task, split, 3) for split in ("train", "val"))
        whole = content_of([train, val])
        assert whole == content_of([replace(train, name="elsewhere"), val]), "wherever it lies"
        assert len({whole, content_of([train]), content_of([val, train]), content_of([train[:2], val])}) == 4
        assert content_of([replace(train, answers=("red",)), val]) != whole, "ranked over another list"
        field = {"vqa": "questions", "reasoning": "statements"}.get(task, "captions")
        first, *rest = train.samples
        for other in (replace(first, image_id="other"), replace(first, **{field: first.texts[:1]})):
            assert content_of([replace(train, samples=(other, *rest)), val]) != whole
    (sample,) = samples("vqa", "train", 1).samples
    question = sample.questions[0]
    changed = replace(sample, questions=(replace(question, answers=("never",), weights=(1.0,)), *sample.questions[1:]))
    assert content_of([samples("vqa", "train", 1)]) != content_of(
        [replace(samples("vqa", "train", 1), samples=(changed,))]
    )


def test_a_model_is_its_values_its_settings_and_its_processor() -> None:
    one, mine = nano_model(), processor()
    whole = model_of(one, mine)
    assert whole == model_of(nano_model(temperature=3.0), processor()), "whatever it was set to"
    others = [
        nano_model(seed=1),
        nano_model().bfloat16(),
        nano_model(first_block=1),
        nano_model(alignment="contrastive"),
    ]
    assert len({whole, *(model_of(other, mine) for other in others)}) == 5
    with torch.no_grad():
        next(reversed(list(one.parameters()))).view(-1)[-1] += 1e-6
    assert model_of(one, mine) != whole
    brighter, wordier = deepcopy(mine), deepcopy(mine)
    brighter.image_processor.image_mean = [0.9, 0.9, 0.9]
    wordier.tokenizer.add_tokens(["never"])
    assert len({whole, *(model_of(nano_model(), other) for other in (brighter, wordier, nano_processor("clip")))}) == 4


def test_a_block_must_be_there() -> None:
    model = nano_model(first_block=1)
    check_blocks(model, (0, 2))
    assert model.pruning.first_block == 1
    with pytest.raises(InputError, match="no block has the number 3; from 0, the towers have 3"):
        check_blocks(model, (0, 3))


def test_what_was_written_here(tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text("[1]")
    with pytest.raises(InputError, match="is no JSON object"):
        read_json(tmp_path / "row.json")
