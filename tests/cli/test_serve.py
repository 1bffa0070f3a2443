"""`madtp serve`: what is wrong is told before anything is served. How it serves is in tests/serve."""

import socket
from pathlib import Path

import pytest

from cli.conftest import Run


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: is open to other machines; set --token, or MADTP_TOKEN"),
        (["--token", " "], "--token: is empty"),
        (["--reduction", "0.5"], "--data and --reduction: go together"),
        (["--data", "scenes"], "--data and --reduction: go together"),
        (["--data", "scenes", "--reduction", "1.5"], "--reduction: 1.5 is impossible"),
        (["--data", "scenes", "--reduction", "0.999", "--limit", "2"], "--reduction: 0.999 is above the most"),
        (["--host", "not.a.host.invalid", "--token", "x"], "cannot be listened on"),
        (["--device", "abacus"], "--device"),
        (["--port", "70000"], "65535"),
    ],
)
def test_wrong_options(options: list[str], said: str, madtp: Run, model: Path) -> None:
    assert said in madtp("serve", "--model", model, "--port", 0, *options).wrong()


def test_a_port_that_is_taken_and_no_model(madtp: Run, model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = madtp("serve", "--model", model, "--port", port).wrong()
    assert said.startswith(f"127.0.0.1:{port}: cannot be listened on") and "choose another --host or --port" in said
    assert "no such folder" in madtp("serve", "--model", tmp_path / "none").wrong()
