"""`python -m madtp`."""

from madtp.cli.main import run

run()
