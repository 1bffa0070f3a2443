"""`python -m madtp`."""

from madtp.cli.main import main

main()
