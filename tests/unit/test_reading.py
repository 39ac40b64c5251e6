"""The boundary of readers: anything a file causes is a `DataError` with its name; our own errors pass."""

import pytest

from deixis.data.reading import reading
from deixis.errors import DataError, ModelError


@pytest.mark.parametrize("error", [KeyError("boxes"), MemoryError(), RecursionError("deep"), OverflowError("a\nb")])
def test_foreign_exceptions_become_one_line_with_the_file(error):
    with pytest.raises(DataError, match=r"^labels\.json: cannot be read as") as caught, reading("labels.json"):
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [DataError("x"), ModelError("x"), UserWarning("x"), ImportError("pyarrow")])
def test_errors_that_are_clear_already_pass(error):
    with pytest.raises(type(error)) as caught, reading("labels.json"):
        raise error
    assert caught.value is error


def test_the_keyboard_passes():
    with pytest.raises(KeyboardInterrupt), reading("labels.json"):
        raise KeyboardInterrupt
