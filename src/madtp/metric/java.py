"""The Java programs inside pycocoevalcap: the Penn Treebank tokeniser, METEOR and SPICE.

They are called directly, for pycocoevalcap's own wrappers write into the package's folder (which may be read-only), let
the programs write to our stdout, and leave processes behind; METEOR's hangs where numbers are written with a comma, and
SPICE's downloads its parser. The programs, their arguments and so the figures are the same.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

# Numbers with a point, whatever the user's language: METEOR cannot read its own otherwise.
_ENGLISH = [f"-Duser.{name}" for name in ("language=en", "country=US", "language.format=en", "country.format=US")]
# SPICE's parser, which pycocoevalcap does not contain.
SPICE_PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


class Unavailable(Exception):
    """A program cannot be run here; the text says why, in a few words."""


def _jar(folder: str, name: str) -> str:
    from pycocoevalcap.tokenizer import ptbtokenizer

    path = Path(ptbtokenizer.__file__).parents[1] / folder / name
    if not path.is_file():
        raise Unavailable(f"no {name} in pycocoevalcap/{folder}")
    return str(path)


def _java() -> list[str]:
    java = shutil.which("java")
    if java is None:
        raise Unavailable("no Java on the PATH")
    return [java, *_ENGLISH, "-Dfile.encoding=UTF-8"]


def _run(command: Sequence[str], text: str = "") -> str:
    # Bytes: Python would take a lone carriage return for a line's end.
    done = subprocess.run(command, input=text.encode(), capture_output=True)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise Unavailable(f"Java failed: {last[0].strip()}")
    return done.stdout.decode()


def ptb_tokenise(texts: Sequence[str]) -> list[str]:
    """Each text in lower-case Penn Treebank tokens with one space between, punctuation left out, as COCO's scores want.

    Args:
        texts: without line breaks of any kind.

    Raises:
        Unavailable: no Java that runs.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

    program = [*_java(), "-cp", _jar("tokenizer", STANFORD_CORENLP_3_4_1_JAR), "edu.stanford.nlp.process.PTBTokenizer"]
    lines = _run([*program, "-preserveLines", "-lowerCase"], "".join(f"{text}\n" for text in texts)).split("\n")[:-1]
    if len(lines) != len(texts):
        raise Unavailable(f"the tokeniser made {len(lines)} lines of {len(texts)}")
    return [" ".join(word for word in line.split(" ") if word and word not in PUNCTUATIONS) for line in lines]


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR 1.5 of a corpus of tokenised captions, 0..1.

    Raises:
        Unavailable: no Java that runs, or not the memory for METEOR's 2 GB.
    """
    options = ["-", "-", "-stdio", "-l", "en", "-norm"]
    command = [*_java(), "-Xmx2G", "-jar", _jar("meteor", "meteor-1.5.jar"), *options]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="utf-8") as program:
            try:
                return _ask_meteor(program, candidates, references)
            finally:
                program.kill()
    except (BrokenPipeError, EOFError):
        raise Unavailable("METEOR ended early; it needs 2 GB of memory") from None


def _ask_meteor(
    program: subprocess.Popen[str], candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    """Counts for each caption, then the score for all counts. It answers each line before it reads the next."""
    assert program.stdin is not None and program.stdout is not None
    source, target = program.stdout, program.stdin

    def answer(line: str = "") -> str:
        target.write(line)
        target.flush()
        if not (answered := source.readline()):
            raise EOFError
        return answered.strip()

    counts = []
    for candidate, known in zip(candidates, references, strict=True):
        fields = [text.replace("|||", "") for text in (*known, candidate)]
        counts.append(answer(" ||| ".join(["SCORE", *fields]) + "\n"))
    scores = [answer(" ||| ".join(["EVAL", *counts]) + "\n"), *(answer() for _ in counts)]
    return float(scores[-1])  # the corpus, behind the captions one by one


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """SPICE of a corpus of tokenised captions: mean F of scene-graph tuples, 0..1.

    Raises:
        Unavailable: no Java that runs, no parser, or not the memory for SPICE's 8 GB. Nothing is downloaded.
    """
    jar = _jar("spice", "spice-1.0.jar")
    for part in SPICE_PARSER:
        _jar("spice/lib", part)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.json", Path(folder) / "out.json"
        rows = [
            {"image_id": number, "test": candidate, "refs": list(known)}
            for number, (candidate, known) in enumerate(zip(candidates, references, strict=True))
        ]
        source.write_text(json.dumps(rows), encoding="utf-8")
        _run([*_java(), "-Xmx8G", "-jar", jar, str(source), "-out", str(target), "-subset", "-silent"])
        results = json.loads(target.read_text(encoding="utf-8"))
    return fmean(float(result["scores"]["All"]["f"]) for result in results)
