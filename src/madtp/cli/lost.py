"""How a process of several ends: by itself, or as another is gone: killed, out of memory, its machine lost."""

import atexit
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

# Of gloo, NCCL and the store, none of which has a type of error for it.
_GONE = re.compile(
    "connection (?:was likely )?(?:reset|closed|refused)(?: by peer)?|broken pipe|remote process exited|timed out",
    re.IGNORECASE,
)
_UNWRITTEN = 120  # Python's own code where what was printed could not be written


def tell(error: Exception) -> bool:
    """Say in one line that another process of the run is gone, where `error` is of that; whether it is."""
    several, gone = int(os.environ.get("WORLD_SIZE", "1")), _GONE.search(str(error))
    if several == 1 or not isinstance(error, RuntimeError) or gone is None:
        return False
    who = f"process {os.environ.get('RANK')} of {several}"
    said = f"another process of the run is gone ({gone[0].lower()}); a training run goes on with --resume"
    print(f"madtp: {who}: {said}", file=sys.stderr, flush=True)
    return True


@contextmanager
def noticing() -> Iterator[None]:
    """For the block, `tell` on the spot: torchrun then sends SIGTERM, and what is said after it may not be heard.

    Raises:
        typer.Exit: another process is gone, and it was said.
    """
    try:
        yield
    except RuntimeError as error:
        if tell(error):
            raise typer.Exit(1) from error
        raise


def leave(code: int) -> NoReturn:
    """End this process; one of several at once, after atexit's handlers. Threads are not waited for.

    A thread of gloo may still hold tensors that Python knows. Freed while the interpreter shuts down, they abort the
    process, all its work done (pytorch issue 190489): torchrun then says that the run failed.
    """
    torch = sys.modules.get("torch")
    if torch is None or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # a full disk, a closed pipe
            code = code or _UNWRITTEN
    os._exit(code)
