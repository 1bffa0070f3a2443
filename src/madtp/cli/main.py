"""`madtp`: the command line.

Exit codes: 0 done, 2 the user's input is wrong (one line says what), 1 our fault, 130 interrupted.
"""

import logging
import os
import sys

import typer
from rich.logging import RichHandler

from madtp import __version__
from madtp.cli.common import stderr
from madtp.errors import InputError

INTERRUPTED = 130

app = typer.Typer(
    name="madtp",
    help="Prune the tokens of vision-language transformers to a compute budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"madtp {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Prune the tokens of vision-language transformers to a compute budget."""


def _register() -> None:
    from madtp.cli import (
        answers,
        bench,
        calibrate,
        compare,
        compress,
        convert,
        demo,
        evaluate,
        flops,
        predict,
        serve,
        train,
        view,
    )

    for verb in (demo.demo, train.train, compress.compress, calibrate.calibrate, evaluate.evaluate, predict.predict):
        app.command()(verb)
    app.command()(compare.compare)
    app.command()(flops.flops)
    app.command()(bench.bench)
    app.command()(convert.convert)
    app.command()(answers.answers)
    app.command()(view.view)
    app.command()(serve.serve)


def run(arguments: list[str] | None = None) -> None:
    """Entry point: run a verb and turn errors into exit codes."""
    from madtp.runtime import keep_freed_memory

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    keep_freed_memory()
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=stderr, show_path=False)]
    )
    _register()
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    command = typer.main.get_command(app)
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = command.main(arguments, prog_name="madtp", standalone_mode=False)
    except InputError as error:
        return _wrong(str(error))
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if hasattr(error, "format_message"):  # what the option parser says
            return _wrong(" ".join(error.format_message().split()))
        if type(error).__name__ == "Abort":
            return _interrupted()
        raise
    if code == INTERRUPTED:  # some versions of typer turn the interrupt into this
        return _interrupted()
    return code if isinstance(code, int) else 0


def _wrong(line: str) -> int:
    print(f"madtp: {line}", file=sys.stderr)
    return 2


def _interrupted() -> int:
    print("madtp: interrupted; a training run goes on with --resume", file=sys.stderr)
    return INTERRUPTED
