"""`madtp`: the command line.

Exit codes: 0 done, or stopped by SIGTERM with a checkpoint (a line on stderr says so), 2 the user's input is wrong
(one line says what), 1 our fault or, of several processes, another is gone (a line says so), 130 interrupted.
"""

import logging
import os
import sys
import traceback
from difflib import get_close_matches
from typing import Any

import typer
from rich.logging import RichHandler

from madtp import __version__
from madtp.cli import lost
from madtp.cli.common import stderr
from madtp.errors import InputError
from madtp.stop import INTERRUPTED, Stopped

SEVERAL = ("--reduction", "--batch-size")  # options of several numbers, commas or spaces between them

HELP = """madtp makes BLIP and CLIP models cheaper to run by pruning tokens, guided by how image and text align. You
give a model and a share of its GFLOPs to save; you get a model that meets it, and an account of what it cost.

\b
Look first; this needs no data and no network:
  madtp demo           a small bundled model, dense and at two budgets; a page
  madtp demo --page    the same in your browser: your picture, your question,
                       any budget

\b
A model of your own, and half of its GFLOPs saved:
  madtp convert model_base_vqa.pth runs/blip --tokenizer bert-base-uncased
  madtp compress --model runs/blip --data DATA --reduction 0.5 --out runs/half
  madtp evaluate --model runs/half --data DATA --out runs/report

\b
The same budget without training, one answer, and what was pruned for it:
  madtp calibrate --model runs/blip --data DATA --reduction 0.5 --out runs/quick \\
                  --method tome_dynamic
  madtp predict --model runs/half --image a.jpg --text "what is on the table?"
  madtp view --model runs/half --image a.jpg --text "..." --out runs/view

DATA is a folder or file of a known form (docs/data.md), your own table of pictures and texts, or "scenes": generated,
without files. Which task it is follows from the model. `madtp VERB --help` says what a verb takes.
"""

EPILOG = """Results go to stdout, progress and logs to stderr; with --json stdout is one JSON object (docs/json.md).
Exit codes: 0 done, 2 the input is wrong (one line says what and what would be right), 1 our fault, 130 interrupted.
`madtp --install-completion` makes the shell complete verbs, options and their values.
"""

app = typer.Typer(
    name="madtp",
    help=HELP,
    epilog=EPILOG,
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
    pass


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
        tune,
        view,
    )

    # In the order in which a stranger needs them; a line each, short enough for 80 columns.
    for verb, line in (
        (demo.demo, "A bundled model at three budgets; --page: in the browser."),
        (train.train, "Make a dense model, from scratch or fine-tuned."),
        (compress.compress, "Train a dense model to meet a budget."),
        (calibrate.calibrate, "Meet a budget without training."),
        (evaluate.evaluate, "Quality, GFLOPs and tokens kept on a split; a report."),
        (predict.predict, "One answer, and what it cost."),
        (view.view, "What was pruned, by which scores; where it costs most."),
        (compare.compare, "Many methods at the same budgets: table, plots, page."),
        (tune.tune, "Search the settings of a compression."),
        (bench.bench, "Time, dense against pruned, beside GFLOPs."),
        (flops.flops, "What one example costs, by part."),
        (serve.serve, "Answers over HTTP, requests of any size in one batch."),
        (convert.convert, "A public checkpoint to a model folder, or back."),
        (answers.answers, "The list of answers that --inference rank picks from."),
    ):
        app.command(short_help=line)(verb)


def main() -> None:
    """Entry point of the process."""
    try:
        run()
    except SystemExit as ended:
        if not isinstance(ended.code, int):  # a message, which Python prints
            raise
        lost.leave(ended.code)
    except Exception:
        traceback.print_exc()
        lost.leave(1)


def run(arguments: list[str] | None = None) -> None:
    """Run a verb and turn errors into exit codes.

    Raises:
        SystemExit: always, with the code.
    """
    from madtp.runtime import few_kernels, keep_freed_memory

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    keep_freed_memory()
    few_kernels()
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=stderr, show_path=False)]
    )
    _register()
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    command = typer.main.get_command(app)
    arguments = joined(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = command.main(arguments, prog_name="madtp", standalone_mode=False)
    except InputError as error:
        return _wrong(str(error))
    except Stopped as stopped:
        print(f"madtp: {stopped}", file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if hasattr(error, "format_message"):  # what the option parser says
            return _wrong(_said(error))
        if type(error).__name__ == "Abort":
            return _interrupted()
        if lost.tell(error):
            return 1
        raise
    if code == INTERRUPTED:  # some versions of typer turn the interrupt into this
        return _interrupted()
    return code if isinstance(code, int) else 0


def joined(arguments: list[str]) -> list[str]:
    """`--reduction 0.5 0.8` as `--reduction 0.5,0.8`: the numbers behind an option that takes several, as one word."""
    out: list[str] = []
    several = False
    for word in arguments:
        numeric = word.replace(",", "").replace(".", "").isdigit()
        if several and numeric and out[-1] not in SEVERAL:
            out[-1] += f",{word}"
            continue
        several = word in SEVERAL or (several and numeric)
        out.append(word)
    return out


def _said(error: Any) -> str:
    """What the option parser says, and what to do next: the nearest option, or where they are listed."""
    line = " ".join(str(error.format_message()).split())
    context = getattr(error, "ctx", None)
    asked = getattr(error, "option_name", None)
    if asked is not None and context is not None:
        known = [name for option in context.command.params for name in option.opts if name.startswith("--")]
        nearest = get_close_matches(asked, [*known, "--help"], n=1, cutoff=0.6)
        line = f"No such option: {asked}"
        if nearest:
            return f"{line}; did you mean {nearest[0]}?"
    if "Did you mean" in line:
        return line
    if "unexpected extra argument" in line:
        return f"{line}; a text of several words goes in quotes"
    return f'{line.rstrip(".")}; see "{context.command_path if context else "madtp"} --help"'


def _wrong(line: str) -> int:
    print(f"madtp: {line}", file=sys.stderr)
    return 2


def _interrupted() -> int:
    said = "madtp: interrupted; train and compress go on with --resume, compare and tune when called again"
    print(said, file=sys.stderr)
    return INTERRUPTED
