"""What may take over two seconds shows on a terminal that it goes on, and how far it is; piped, it is quiet."""

import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.conftest import Run
from madtp.cli import common

SMALL = ("--limit", 3, "--batch-size", 2)
# What is run on the fixtures MODEL and DATA with an --out, and what it shows; ETA: where its length is known.
LONG: dict[str, tuple[tuple[Any, ...], tuple[str, ...]]] = {
    "evaluate": (("--model", "MODEL", "--data", "DATA", *SMALL), ("evaluating on", "ETA", "timing dense and pruned")),
    "calibrate": (("--model", "MODEL", "--data", "DATA", "--reduction", 0.3, *SMALL), ("reading", "measuring", "ETA")),
    "predict": (("--model", "MODEL", "--data", "DATA/test/images", "--text", "is it red?"), ("vqa of", "ETA")),
    "view": (("--model", "MODEL", "--data", "DATA", "--worst", 1, *SMALL), ("dense and pruned on", "ETA")),
    "bench": (("--model", "MODEL", "--pairs", 1, "--text-tokens", 7), ("timing towers", "ETA")),
    "flops": (("--model", "MODEL", "--data", "DATA", "--limit", 3), ("measuring on", "ETA")),
    "answers": (("--data", "DATA", "--min-count", 1), ("counting the answers", "100%", "0:00:00")),
    "convert": (("MODEL", "OUT", "--to", "hf-dense"), ("converting", "100%", "0:00:00")),
    "compare": (
        ("--model", "MODEL", "--data", "DATA", "--methods", "dense,madtp", "--reduction", 0.3, "--pairs", 1, *SMALL),
        ("comparing on", "ETA", "the hardest examples"),
    ),
    "train": (
        ("--data", "DATA", "--size", "tiny", "--epochs", 1, *SMALL),
        ("looking at the first pictures", "train on", "ETA"),
    ),
    "compress": (
        ("--model", "MODEL", "--data", "DATA", "--reduction", 0.45, "--epochs", 1, *SMALL),
        ("compress", "ETA", "dense model, for the report"),
    ),
}
SLOW = {"compare", "train", "compress"}


def shown(err: str) -> str:
    """What stood on the terminal, its codes taken out; times to go as ETA. Notes of quick steps may never be drawn."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err)
    return re.sub(r"\d+/\d+ [-\d:]+ [-\d]:[-\d:]+", "ETA", " ".join(plain.split()))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=pytest.mark.slow) if verb in SLOW else verb for verb in LONG]
)
def test_progress(
    verb: str, madtp: Run, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, words = LONG[verb]
    for terminal in (True, False):
        monkeypatch.setattr(common, "stderr", Console(stderr=True, force_terminal=terminal, width=200))
        out = tmp_path / f"out-{terminal}"
        names = {"MODEL": model, "DATA": data, "DATA/test/images": data / "test" / "images", "OUT": out}
        given = [names.get(option, option) for option in options]
        given += [] if verb in {"flops", "convert"} else ["--out", out]
        ended = madtp(verb, *given)
        assert ended.code == 0, ended
        assert ended.out.strip()
        if terminal:
            for word in words:
                assert word in shown(ended.err), (word, shown(ended.err))
        else:
            assert ended.err == ""
