"""Texts to ids: BLIP's three ways to begin a text, padding, and a memory that changes nothing."""

import torch

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


def test_the_longest_is_cut_and_still_ends() -> None:
    made = words(longest=7)
    ids, _ = made.said(["circle " * 11])
    assert spoken(made, ids) == [["[DEC]", *["circle"] * 5, "[SEP]"]]


def test_a_word_that_is_not_known_is_spelled() -> None:
    made = words()
    assert spoken(made, made.plain(["qxv"])[0]) == [["[CLS]", "q", "##x", "##v", "[SEP]"]]
