"""What the command line says to a person: its help, its suggestions, its progress; and what a shell completes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cli.conftest import Run
from madtp.cli import common, main
from madtp.data.load import TASKS
from madtp.data.sample import SPLITS
from madtp.prune import METHODS
from test_house import shell_commands


def test_help_reads_like_a_readme_and_tells_the_truth(madtp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = madtp("--help").out
    assert said.index("madtp demo") < said.index("Commands:") < said.index("Exit codes")
    assert "..." not in said.partition("Commands:")[2], "every verb's line is whole"
    assert max(map(len, said.splitlines())) <= 84
    lines = main.HELP.replace("\\\n", " ").splitlines()
    examples = "\n".join(line.strip() for line in lines if line.startswith("  madtp "))
    commands = shell_commands(f"```bash\n{examples}\n```\n")
    assert len(commands) >= 8
    for _, verb, *words in commands:
        told = madtp(verb, "--help").out
        for word in words:
            assert not word.startswith("--") or word in told, f"madtp {verb} has no {word}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("evalute",), "No such command 'evalute'. Did you mean 'evaluate'?"),
        (("evaluate", "--modle", "x"), "No such option: --modle; did you mean --model?"),
        (("compress", "--reducton", "0.5"), "No such option: --reducton; did you mean --reduction?"),
        (("--verson",), "No such option: --verson; did you mean --version?"),
        (("evaluate", "--wxyz"), 'No such option: --wxyz; see "madtp evaluate --help"'),
        (("evaluate",), "Missing option '--model'; see \"madtp evaluate --help\""),
        (("predict", "--model", "m", "--image", "i", "--text", "is", "it"), "a text of several words goes in quotes"),
    ],
)
def test_what_to_do_next(line: tuple[str, ...], said: str, madtp: Run) -> None:
    assert said in madtp(*line).wrong()


def completed(words: str) -> list[str]:
    """What bash would offer for the last of these words."""
    own = {"_MADTP_COMPLETE": "complete_bash", "COMP_WORDS": f"madtp {words}", "COMP_CWORD": str(len(words.split(" ")))}
    path = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-m", "madtp"]
    done = subprocess.run(command, env=os.environ | own | path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_shell_completion() -> None:
    assert completed("eva") == ["evaluate"]
    assert completed("evaluate --spl") == ["--split"]
    assert completed("compress --method cr") == ["crossget"]


def test_what_is_completed_is_what_there_is(madtp: Run) -> None:
    assert set(common.METHOD_NAMES) <= set(METHODS)
    changed = {name for name in METHODS if name.startswith("madtp_") and name != "madtp_nearest"}
    assert set(METHODS) - set(common.METHOD_NAMES) == changed
    assert common.SPLIT_NAMES == SPLITS
    assert set(common.one_of("vqa", "reasoning", "caption", "retrieval")("")) == set(TASKS)
    assert common.one_of("train", "val")("v") == ["val"]


def test_progress_has_an_eta_and_is_silent_when_piped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal in (True, False):
        console = Console(stderr=True, force_terminal=terminal, width=120)
        monkeypatch.setattr(common, "stderr", console)
        with common.progress("measuring", 7) as advance:
            list(common.tracked([{"samples": [0, 1]}, {"samples": [2]}], advance))
        with common.working("loading"):
            pass
        out, err = capsys.readouterr()
        assert out == ""
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err)
        assert ("3/7" in plain and "measuring" in plain and "-:--:--" in plain) if terminal else err == ""
