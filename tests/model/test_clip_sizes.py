"""CLIP from scratch: byte pairs that are learned the same in every process, and a processor that is saved as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from madtp.errors import InputError
from madtp.model.clip_sizes import CLIP_SIZES, END, START, build_clip_config, build_clip_processor
from madtp.model.load import load, load_processor
from madtp.model.save import save_model
from madtp.model.sizes import find_size
from small import NANO_CLIP, nano, nano_processor

TEXTS = ["A red circle, left of 2 squares.", "the red square isn't left", "two circles", "red red circle"] * 3
DUMP = """
import json, sys
from madtp.model.clip_sizes import CLIP_SIZES, build_clip_processor
words = build_clip_processor(CLIP_SIZES["clip-tiny"], json.loads(sys.argv[1]), 600).tokenizer
print(json.dumps([words.get_vocab(), words("a red rectangle").input_ids], sort_keys=True))
"""


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    path = str(Path(__file__).parents[2] / "src")
    runs = [
        subprocess.run(
            [sys.executable, "-c", DUMP, json.dumps(TEXTS)],
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    vocabulary, ids = json.loads(runs[0])
    here = build_clip_processor(CLIP_SIZES["clip-tiny"], TEXTS, 600).tokenizer
    assert here.get_vocab() == vocabulary and here("a red rectangle").input_ids == ids


def test_ids_are_numbered_without_gaps_and_words_of_the_texts_are_whole() -> None:
    tokenizer = build_clip_processor(NANO_CLIP, TEXTS).tokenizer
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (START, END, END)
    assert tokenizer.tokenize("A red CIRCLE") == ["a</w>", "red</w>", "circle</w>"]


@pytest.mark.parametrize("text", ["qxv", "zebra 77", "naïve; ÷ 猫", "it's"])
def test_letters_spell_any_other_word(text: str) -> None:
    tokenizer = build_clip_processor(NANO_CLIP, TEXTS).tokenizer
    ids = tokenizer(text).input_ids
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(ids[1:-1]), "nothing is unknown"
    said = tokenizer.decode(ids, skip_special_tokens=True)
    assert said.replace(" ", "") == text.replace(" ", "")


def test_long_texts_are_cut_to_the_size() -> None:
    tokenizer = build_clip_processor(NANO_CLIP, TEXTS).tokenizer
    ids = tokenizer("red " * 99, truncation=True).input_ids
    assert len(ids) == NANO_CLIP.longest and ids[-1] == tokenizer.eos_token_id


def test_a_saved_processor_and_model_are_the_same_when_loaded(tmp_path: Path) -> None:
    model, processor = nano("clip"), nano_processor("clip")
    save_model(model, processor, tmp_path)
    loaded = load_processor(tmp_path)
    assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    texts = [*TEXTS, "a zebra; 77 猫"]
    for mine, theirs in zip(processor.tokenizer(texts).input_ids, loaded.tokenizer(texts).input_ids, strict=True):
        assert mine == theirs
    assert loaded.tokenizer.model_max_length == NANO_CLIP.longest
    assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
    mine, theirs = (made.config.text_config.to_diff_dict() for made in (model, load(tmp_path)))
    assert {**mine, "dtype": None} == {**theirs, "dtype": None}


def test_the_config_is_of_the_vocabulary() -> None:
    tokenizer = nano_processor("clip").tokenizer
    config = build_clip_config(NANO_CLIP, tokenizer)
    text = config.text_config
    assert (text.vocab_size, text.eos_token_id, text.bos_token_id) == (
        len(tokenizer),
        *tokenizer.convert_tokens_to_ids([END, START]),
    )
    assert text.max_position_embeddings == NANO_CLIP.longest and config.madtp["semantic_tokens"] == 5


def test_sizes_of_clip_are_for_retrieval() -> None:
    assert find_size("clip-tiny", "retrieval") is CLIP_SIZES["clip-tiny"]
    with pytest.raises(InputError, match="--size: unknown size 'clip-tiny' for vqa; one of tiny, small, base"):
        find_size("clip-tiny", "vqa")
