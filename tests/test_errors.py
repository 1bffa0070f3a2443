"""InputError: one line, whatever it is made of."""

import pickle
import traceback

import pytest

from madtp.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("no such folder",), "no such folder"),
        (("no such folder", "data"), "data: no such folder"),
        (("no such folder", None, "make it"), "no such folder; make it"),
        (("no such folder", "data", "make it"), "data: no such folder; make it"),
        (("first\n  second", "a\nb", "try\nthis"), "a b: first second; try this"),
        (("broken", "two  spaces.png"), "two  spaces.png: broken"),
        ((KeyError("x"), 7), "7: 'x'"),
    ],
)
def test_one_line(arguments: tuple[object, ...], line: str) -> None:
    assert str(InputError(*arguments)) == line


def test_is_a_value_error_and_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputError("broken", "a.png", "replace it")))
    assert isinstance(error, ValueError)
    assert type(error) is InputError
    assert str(error) == "a.png: broken; replace it"


def test_raised_again_by_a_data_loader_it_is_still_its_line() -> None:
    # Torch's loader raises type(error)(text) in the main process, text being the worker's traceback.
    try:
        try:
            raise OSError("truncated")
        except OSError as error:
            raise InputError("broken", "a.png", "replace it") from error
    except InputError:
        text = f"Caught InputError in DataLoader worker process 0.\nOriginal {traceback.format_exc()}"
    assert str(InputError(text)) == "a.png: broken; replace it"
