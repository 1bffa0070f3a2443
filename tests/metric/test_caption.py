"""Caption scores: against pycocoevalcap's own pipeline, by hand, and with Java missing, broken or short of memory."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from madtp.errors import InputError
from madtp.metric.caption import caption_scores, simple_tokenise
from madtp.metric.java import SPICE_PARSER, ptb_tokenise

java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java on the PATH")

CANDIDATES = ["A red cat sits on the mat.", "two dogs don't run", "The man's hat"]
REFERENCES = [
    ("a red cat is sitting on a mat", "the cat sits"),
    ("Two dogs are running, aren't they?",),
    ("a man's hat", "a hat of a man", "(really) a black-and-white hat"),
]
METEOR = 0.4384074562360103  # as the package's own wrapper computes it
WITHOUT_JAVA = {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"}


def package() -> Path:
    from pycocoevalcap.bleu import bleu

    return Path(bleu.__file__).parents[1]


def package_files() -> list[Path]:
    return sorted(path for path in package().rglob("*") if "__pycache__" not in path.parts)


def test_a_perfect_caption_by_hand() -> None:
    """Every n-gram is in one picture's references only, so that CIDEr is 10 times a cosine of 1."""
    captions = ["one two three four five", "six seven eight nine ten"]
    scores = caption_scores(captions, [[caption] for caption in captions], tokenizer="simple")
    expected = {name: 10.0 if name == "cider" else 1.0 for name in WITHOUT_JAVA}
    assert dict(scores.values) == pytest.approx(expected)


def test_bleu_and_rouge_by_hand() -> None:
    """3 of 4 words and 1 of 3 pairs are there; 5 words are the nearest length: brevity exp(1 - 5/4)."""
    values = caption_scores(["a b x c"], [["a b c d e"]], tokenizer="simple").values
    brevity = 2.718281828459045 ** (1 - 5 / 4)
    assert values["bleu1"] == pytest.approx(brevity * 3 / 4)
    assert values["bleu2"] == pytest.approx(brevity * (3 / 4 * 1 / 3) ** 0.5)
    precision, recall, weight = 3 / 4, 3 / 5, 1.2**2
    assert values["rouge_l"] == pytest.approx((1 + weight) * precision * recall / (recall + weight * precision))
    assert values["cider"] == 0.0  # of one picture, no n-gram is rare


def test_cider_depends_on_the_other_pictures() -> None:
    """A third picture, wrongly captioned, makes the words of its reference common: the first two score otherwise."""
    two = caption_scores(CANDIDATES[:2], REFERENCES[:2], tokenizer="simple").values["cider"]
    for reference, same in (("nothing else", True), ("a red cat", False)):
        candidates, references = [*CANDIDATES[:2], "x"], [*REFERENCES[:2], (reference,)]
        three = caption_scores(candidates, references, tokenizer="simple").values["cider"]
        assert (3 * three == pytest.approx(2 * two)) is same


@java
def test_equals_the_packages_own_pipeline(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where numbers are written with a comma; nothing is printed, written into the package or downloaded."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    before = package_files()
    with monkeypatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
        scores = caption_scores(CANDIDATES, REFERENCES)
    assert capfd.readouterr() == ("", "")
    assert package_files() == before

    said = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(CANDIDATES)})
    known = PTBTokenizer().tokenize({i: [{"caption": text} for text in some] for i, some in enumerate(REFERENCES)})
    expected = dict(zip(["bleu1", "bleu2", "bleu3", "bleu4"], Bleu(4).compute_score(known, said, 0)[0], strict=True))
    expected |= {"rouge_l": Rouge().compute_score(known, said)[0], "cider": Cider().compute_score(known, said)[0]}
    expected["meteor"] = METEOR
    assert scores.tokenizer == "ptb"
    assert {name: scores.values[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    if not all((package() / "spice" / "lib" / part).exists() for part in SPICE_PARSER):
        assert scores.left_out == {"spice": "no stanford-corenlp-3.6.0.jar in pycocoevalcap/spice/lib"}
        assert scores.values.keys() == expected.keys()


@java
@pytest.mark.parametrize("language", ["C", "de_DE.UTF-8"])
def test_ptb_tokens_of_awkward_texts(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", language)
    texts = ["", "A man's (old) dog; don't!", "", "Été — 5.50", "x-y/z", ""]
    assert ptb_tokenise(texts) == ["", "a man 's -lrb- old -rrb- dog do n't", "", "été 5.50", "x-y/z", ""]
    assert ptb_tokenise([]) == []


@java
def test_line_breaks_move_nothing() -> None:
    """Each of these ends a line for the tokeniser; the package's own wrapper then gives captions to other pictures."""
    breaks = ["\n", "\r", "\r\n", "\u2028", "\x85", "\x0b", "\x0c"]
    candidates = [f"a cat{mark}sits {n}" for n, mark in enumerate(breaks)]
    plain = [f"a cat sits {n}" for n in range(len(breaks))]
    references = [[f"the{mark}cat {n}", f"{mark}"] for n, mark in enumerate(breaks)]
    scores = caption_scores(candidates, references, slow=False)
    assert scores == caption_scores(plain, [[f"the cat {n}", ""] for n in range(len(breaks))], slow=False)
    assert scores.values.keys() == WITHOUT_JAVA


@java
def test_the_simple_tokeniser_is_ptb_on_plain_english() -> None:
    texts = [
        "Two dogs, one black-and-white, aren't running: they're asleep!",
        "the man's hat is at 5 o'clock; he'll move it 1,000 times...",
        'A "red" umbrella - the woman I\'d seen',
    ]
    assert [simple_tokenise(text) for text in texts] == ptb_tokenise(texts)


def test_without_java_the_result_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    scores = caption_scores(CANDIDATES, REFERENCES)
    assert (scores.tokenizer, scores.values.keys()) == ("simple", WITHOUT_JAVA)
    assert scores.left_out == dict.fromkeys(["ptb", "meteor", "spice"], "no Java on the PATH")
    asked = caption_scores(CANDIDATES, REFERENCES, tokenizer="simple")
    assert asked.values == scores.values
    assert asked.left_out == dict.fromkeys(["meteor", "spice"], "needs the PTB tokeniser")
    with pytest.raises(InputError, match="no Java on the PATH; install Java"):
        caption_scores(CANDIDATES, REFERENCES, tokenizer="ptb")


@java
def test_java_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_JAVA_OPTIONS", "-XX:NoSuchOption")
    scores = caption_scores(CANDIDATES, REFERENCES)
    assert scores.tokenizer == "simple" and scores.left_out["ptb"].startswith("Java failed: ")


@java
@pytest.mark.slow
def test_meteor_that_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_JAVA_OPTIONS", "-Xmx20m")
    scores = caption_scores(CANDIDATES, REFERENCES)
    assert scores.tokenizer == "ptb" and "meteor" not in scores.values
    assert scores.left_out["meteor"] == "METEOR ended early; it needs 2 GB of memory"


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="no captions"):
        caption_scores([], [])
    with pytest.raises(ValueError, match="lengths differ"):
        caption_scores(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="at least one reference"):
        caption_scores(["a", "b"], [["a"], []])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.tokenizer.ptbtokenizer", None)
    with pytest.raises(InputError, match=r'not installed; pip install "madtp\[caption\]"'):
        caption_scores(CANDIDATES, REFERENCES)
