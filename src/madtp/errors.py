"""The one error type for wrong input from a user."""


class InputError(ValueError):
    """The user's input is wrong: says what is wrong, where, and what would be right, in one line.

    The command line prints it without a traceback and exits with code 2.

    Args:
        what: what is wrong, e.g. ``"no such folder"``.
        where: the file, option or field concerned.
        fix: what would be right.
    """

    def __init__(self, what: object, where: object | None = None, fix: str | None = None) -> None:
        # Torch's data loader raises a worker's error again with its whole traceback as the text: the last line is ours.
        text = str(what).rpartition(f"{__name__}.{type(self).__name__}: ")[2]
        line = " ".join(text.split())
        if where is not None:
            line = f"{where}: {line}"
        if fix is not None:
            line = f"{line}; {fix}"
        super().__init__(" ".join(line.splitlines()))
