"""The command line in this process: what it printed where, and how it ended; folders of a model and of data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from madtp.cli import main
from madtp.model import sizes
from small import NANO, data_folder, model_folder


@dataclass(frozen=True)
class Ended:
    """Exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def wrong(self) -> str:
        """The one line of a run that ended for the user's mistake."""
        assert self.code == 2, self
        assert self.out == "", "nothing but results on stdout"
        (line,) = self.err.splitlines()
        assert line.startswith("madtp: ") and "Traceback" not in line
        return line.removeprefix("madtp: ")


Run = Callable[..., Ended]


@pytest.fixture(scope="session", autouse=True)
def registered() -> None:
    main._register()


@pytest.fixture
def madtp(capfd: pytest.CaptureFixture[str]) -> Run:
    """`madtp("evaluate", "--model", folder)`: as from a shell, with all that the process prints."""

    def run(*arguments: Any) -> Ended:
        capfd.readouterr()
        code = main._run([str(argument) for argument in arguments])
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_folder(tmp_path_factory.mktemp("data") / "scenes-on-disk")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pruned, at a temperature that cuts about half."""
    return model_folder(tmp_path_factory.mktemp("model") / "model", temperature=8.0, reduction=0.45)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--size tiny` makes a still smaller model."""
    monkeypatch.setitem(sizes.SIZES, "tiny", NANO)
