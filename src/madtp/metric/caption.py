"""Captioning: BLEU, ROUGE-L, METEOR, CIDEr-D and SPICE, as COCO's evaluation computes them (Chen et al., 2015).

The scores are pycocoevalcap's (`pip install "madtp[caption]"`). Java is needed for the tokeniser that published figures
were made with; without it a simple one of ours takes its place, and the result says so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from madtp.errors import InputError
from madtp.metric.java import Unavailable, meteor, ptb_tokenise, spice

_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))\b")
_WORD = re.compile(r"'(?:s|m|d|re|ve|ll)\b|\w+(?:[-'.,/]\w+)*")


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a corpus of captions, higher = better. Multiply by 100 for the published form.

    Attributes:
        values: ``bleu1`` .. ``bleu4`` (corpus BLEU), ``rouge_l``, ``meteor`` and ``spice``, each 0..1, and ``cider``
            (CIDEr-D, the variant everyone reports), 0..10. What could not be computed is not among them.
        tokenizer: ``"ptb"`` (the official one) or ``"simple"``: such figures compare only with others of the kind.
        left_out: what is missing, and why: ``"ptb"``, ``"meteor"``, ``"spice"``.
        cider_each: CIDEr-D of every caption, whose mean is ``cider``.
    """

    values: Mapping[str, float]
    tokenizer: Literal["ptb", "simple"]
    left_out: Mapping[str, str] = field(default_factory=dict)
    cider_each: tuple[float, ...] = ()


def check_installed() -> None:
    """Raise InputError where pycocoevalcap is not installed; for whoever works long before the first score."""
    try:
        import pycocoevalcap.tokenizer.ptbtokenizer  # noqa: F401
    except ImportError:
        raise InputError("pycocoevalcap is not installed", "caption scores", 'pip install "madtp[caption]"') from None


def simple_tokenise(text: str) -> str:
    """Lower-case words with one space between; punctuation left out, ``'s`` and ``n't`` apart: ``"man 's"``.

    What the Penn Treebank tokeniser does to plain English; it also knows abbreviations, currencies and smileys.
    """
    return " ".join(_WORD.findall(_CLITIC.sub(r" \1", text.lower().replace("’", "'"))))


def caption_scores(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenizer: Literal["auto", "ptb", "simple"] = "auto",
    slow: bool = True,
) -> CaptionScores:
    """Score one caption a picture against what people said of it.

    CIDEr weighs n-grams by how few of *these* pictures' references have them: a subset's CIDEr is not comparable with
    the whole's, and one picture's is 0.

    Args:
        candidates: the model's captions.
        references: of each picture, at least one.
        tokenizer: "ptb", "simple", or "auto": PTB where Java runs.
        slow: also METEOR and SPICE, which take Java programs seconds to minutes. They need the PTB tokeniser.

    Raises:
        InputError: pycocoevalcap is not installed, or "ptb" was asked for and cannot be had.
        ValueError: no captions, lengths that differ, or a picture without references.
    """
    if not candidates:
        raise ValueError("scores of no captions are not defined")
    if len(candidates) != len(references):
        raise ValueError(f"lengths differ: {len(candidates)} candidates, {len(references)} lists of references")
    if not all(references):
        raise ValueError("caption scores need at least one reference a picture")
    check_installed()
    used, texts, left_out = _tokenise([*candidates, *(text for some in references for text in some)], tokenizer)
    said, rest = texts[: len(candidates)], iter(texts[len(candidates) :])
    known = [[next(rest) for _ in some] for some in references]
    values, cider_each = _scores(said, known)
    programs: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], float]] = {"meteor": meteor, "spice": spice}
    for name, program in programs.items() if slow else ():
        try:
            if used != "ptb":
                raise Unavailable(left_out.get("ptb", "needs the PTB tokeniser"))
            values[name] = program(said, known)
        except Unavailable as reason:
            left_out[name] = str(reason)
    return CaptionScores(values, used, left_out, cider_each)


def _tokenise(texts: list[str], tokenizer: str) -> tuple[Literal["ptb", "simple"], list[str], dict[str, str]]:
    """The tokeniser used, the texts in tokens, and why it is not PTB where that was wanted."""
    # A text with a line break of any kind would be taken for two.
    texts = [" ".join(text.split()) for text in texts]
    left_out = {}
    if tokenizer != "simple":
        try:
            return "ptb", ptb_tokenise(texts), {}
        except Unavailable as reason:
            if tokenizer == "ptb":
                raise InputError(str(reason), "PTB tokeniser", "install Java, or use the simple tokeniser") from None
            left_out["ptb"] = str(reason)
    return "simple", [simple_tokenise(text) for text in texts], left_out


def _scores(candidates: list[str], references: list[list[str]]) -> tuple[dict[str, float], tuple[float, ...]]:
    """What pycocoevalcap computes without Java, of tokenised captions, and CIDEr-D of each."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    said, known = {number: [text] for number, text in enumerate(candidates)}, dict(enumerate(references))
    bleu = Bleu(4).compute_score(known, said, verbose=0)[0]
    values = {f"bleu{length}": float(score) for length, score in enumerate(bleu, start=1)}
    values["rouge_l"] = float(Rouge().compute_score(known, said)[0])
    cider, each = Cider().compute_score(known, said)
    values["cider"] = float(cider)
    return values, tuple(map(float, each))
