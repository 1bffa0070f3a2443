"""Texts to ids: BLIP's three ways to begin a text, padding, and a memory that changes nothing."""

import pytest
import torch

from madtp.task.retrieval import RetrievalTask
from madtp.task.words import Words
from small import nano_processor


def words(longest: int = 35) -> Words:
    return Words(nano_processor("retrieval").tokenizer, longest)


def spoken(made: Words, ids: torch.Tensor) -> list[list[str]]:
    return [made.tokenizer.convert_ids_to_tokens(row.tolist()) for row in ids]


def test_a_text_begins_by_what_is_done_with_it() -> None:
    made = words()
    for way, first in ((made.looking, "[ENC]"), (made.said, "[DEC]"), (made.plain, "[CLS]")):
        ids, mask = way(["a circle", "a"])
        assert spoken(made, ids) == [[first, "a", "circle", "[SEP]"], [first, "a", "[SEP]", "[PAD]"]]
        assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_what_was_tokenised_before_is_the_same() -> None:
    made, text = words(), "a circle"
    first = [way([text])[0] for way in (made.looking, made.said, made.plain)]
    again = [way([text])[0] for way in (made.looking, made.said, made.plain)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    made.tokens(text, 0).append(99)
    assert torch.equal(made.plain([text])[0], first[2]), "the memory is not handed out"


def test_no_texts_and_texts_without_words() -> None:
    made = words()
    ids, mask = made.plain([])
    assert ids.shape == mask.shape == (0, 1) and ids.dtype == mask.dtype == torch.long
    assert spoken(made, made.plain([""])[0]) == [["[CLS]", "[SEP]"]]


def test_the_longest_is_cut_and_still_ends_which_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    made = words(longest=7)
    assert made.said(["circle " * 5])[0].shape == (1, 7) and not caplog.text, "it just fits"
    ids, _ = made.said(["circle " * 11])
    assert spoken(made, ids) == [["[DEC]", *["circle"] * 5, "[SEP]"]]
    made.said(["square " * 11])
    assert caplog.messages == ["a text of 13 tokens is cut at 7, as all such are (said once)"]


def test_clip_says_once_that_captions_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    task = RetrievalTask(nano_processor("clip"))
    longest = task.tokenizer.model_max_length
    task.tokens(["a circle"])
    assert not caplog.text
    for _ in range(2):
        ids, mask = task.tokens(["a circle", "circle " * longest])
        assert ids.shape[1] == int(mask.sum(-1).max()) == longest
    (said,) = caplog.messages
    assert said.endswith(f"is cut at {longest}, as all such are (said once)")


def test_a_word_that_is_not_known_is_spelled() -> None:
    made = words()
    assert spoken(made, made.plain(["qxv"])[0]) == [["[CLS]", "q", "##x", "##v", "[SEP]"]]
