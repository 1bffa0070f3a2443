"""Texts to token ids: first tokens, padding, and a memory of what was tokenised before."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

INSIDE, WORD_END = "##", "</w>"  # marks of a token within a word (WordPiece), and at the end of one (CLIP)
LONGEST = 35
"""Most tokens of a text, the ones that begin and end it included (BLIP's own limit for questions and captions)."""


def pieces(tokenizer: Any, ids: Sequence[int] | Tensor) -> tuple[str, ...]:
    """What each token stands for, in words; a part of a word has a dot where the word goes on: "pur·", "·ple".

    Args:
        tokenizer: WordPiece, like BLIP's, or of byte pairs with ends of words, like CLIP's.
        ids: `[l]` tokens of one text.
    """
    ids = [int(i) for i in ids]
    names: list[str] = tokenizer.convert_ids_to_tokens(ids)
    special = set(tokenizer.all_special_ids)
    ends_named = any(name.endswith(WORD_END) for name in names)
    shown = []
    for place, (name, number) in enumerate(zip(names, ids, strict=True)):
        after = names[place + 1] if place + 1 < len(names) else ""
        if number in special:
            shown.append(name)
        elif ends_named:
            before, last = names[place - 1] if place else "", name.endswith(WORD_END)
            goes_on = bool(before) and ids[place - 1] not in special and not before.endswith(WORD_END)
            text = tokenizer.decode([number]).strip() or name
            shown.append(f"{'·' * goes_on}{text}{'' if last else '·'}")
        else:
            inside = name.startswith(INSIDE)
            shown.append(f"{'·' * inside}{name.removeprefix(INSIDE)}{'·' * after.startswith(INSIDE)}")
    return tuple(shown)


def tell_if_cut(tokenizer: Any, text: str, longest: int) -> bool:
    """True, and a line in the log, if a text has more than `longest` tokens."""
    n = len(tokenizer(text, verbose=False).input_ids)
    if n > longest:  # the text itself is nobody's business who reads a server's log
        logger.warning("a text of %d tokens is cut at %d, as all such are (said once)", n, longest)
    return n > longest


class Words:
    """The tokenizer of a BLIP model, and BLIP's ways to begin a text.

    Args:
        tokenizer: with [CLS], and where the vocabulary has them [DEC] and [ENC].
        longest: most tokens of a text.
    """

    def __init__(self, tokenizer: Any, longest: int = LONGEST) -> None:
        self.tokenizer, self.longest = tokenizer, longest
        self._ids: dict[str, list[int]] = {}
        self._told = False  # that texts are cut

    @property
    def enc(self) -> int:
        """Begins a text that looks at a picture: [ENC] where there is one."""
        enc = self.tokenizer.convert_tokens_to_ids("[ENC]")
        return int(self.tokenizer.cls_token_id if enc in (None, self.tokenizer.unk_token_id) else enc)

    @property
    def dec(self) -> int:
        """Begins a text that is generated: [DEC] where there is one."""
        start = self.tokenizer.bos_token_id
        return int(self.tokenizer.cls_token_id if start is None else start)

    def tokens(self, text: str, first: int) -> list[int]:
        """Ids of a text from `first` to [SEP]."""
        if text not in self._ids:
            if len(self._ids) > 100_000:
                self._ids.clear()
            ids = self.tokenizer(text, truncation=True, max_length=self.longest).input_ids
            if len(ids) == self.longest and not self._told:
                self._told = tell_if_cut(self.tokenizer, text, self.longest)
            self._ids[text] = ids[1:]
        return [first, *self._ids[text]]

    def padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """`[n, l]` ids and mask, padded on the right."""
        width = max((len(row) for row in rows), default=1)
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        return ids, (torch.arange(width) < lengths[:, None]).long()

    def looking(self, texts: Iterable[str]) -> tuple[Tensor, Tensor]:
        """`[q, l]` ids and mask of texts that look at pictures; the first token is `enc`."""
        return self.padded([self.tokens(text, self.enc) for text in texts])

    def said(self, texts: Iterable[str]) -> tuple[Tensor, Tensor]:
        """`[a, l]` ids and mask of texts that are generated, from `dec` to [SEP]."""
        return self.padded([self.tokens(text, self.dec) for text in texts])

    def plain(self, texts: Iterable[str]) -> tuple[Tensor, Tensor]:
        """`[q, l]` ids and mask of texts on their own, from [CLS] to [SEP]."""
        return self.padded([self.tokens(text, self.tokenizer.cls_token_id) for text in texts])
