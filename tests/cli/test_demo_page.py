"""`madtp demo --page`: what it refuses; the page itself is tested in tests/page."""

import socket
from pathlib import Path

import pytest

from cli.conftest import Run


def test_wrong_options(madtp: Run, tmp_path: Path) -> None:
    assert madtp("demo", "--model", tmp_path).wrong().startswith("--model: goes with --page")
    assert "is no port" in madtp("demo", "--page", "--port", 65537).wrong()
    assert str(tmp_path) in madtp("demo", "--page", "--port", 0, "--model", tmp_path).wrong()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert madtp("demo", "--page", "--port", port).wrong().startswith(f"--port: {port} cannot be used")


def test_without_gradio_it_says_what_to_install(madtp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from madtp.page import serve

    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert madtp("demo", "--page").wrong() == '--page: the page needs gradio; pip install "madtp[page]"'
