"""What a measurement was made with."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

import madtp
from madtp.report import settings
from madtp.report.settings import _commit


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_settings() -> None:
    told = settings()
    assert set(told) == {"hardware", "versions", "commit"}
    assert set(told["hardware"]) == {"cpu", "cores", "memory_gb", "gpu"}
    assert told["hardware"]["cores"] >= 1
    assert told["hardware"]["memory_gb"] > 0
    assert told["versions"]["python"] == platform.python_version()
    assert told["versions"]["madtp"] == madtp.__version__
    assert told["versions"]["torch"]


def test_settings_without_git_and_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError("no such file")))
    assert settings()["commit"] is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_is_that_of_the_packages_own_checkout(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    assert _commit(package) is None  # no repository
    git(tmp_path, "init")
    (tmp_path / "other").write_text("1")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-m", "other")
    (package / "__init__.py").write_text("")
    assert _commit(package) is None  # another project's repository
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "package")
    head = git(tmp_path, "rev-parse", "HEAD")
    index = (tmp_path / ".git" / "index").read_bytes()
    os.utime(package / "__init__.py", (7, 7))  # git would look at the file anew and note its time
    assert _commit(package) == head
    assert (tmp_path / ".git" / "index").read_bytes() == index, (
        "nothing is written where a killed process leaves a lock"
    )
    (package / "__init__.py").write_text("changed = True")
    assert _commit(package) == f"{head}-dirty"
