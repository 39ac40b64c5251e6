"""The boundary of readers: anything a file causes is a `DataError` with its name; our own errors pass."""

import os
import socket
from pathlib import Path

import pytest

from deixis.data.reading import reading, require_regular
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


def _socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), _socket])
def test_pipes_and_devices_are_refused_before_they_are_opened(tmp_path, make):
    path = tmp_path / "labels.json"
    make(path)
    with pytest.raises(DataError, match="is a pipe, a device or a socket"), reading(path):
        pytest.fail("the block was entered")
    with pytest.raises(DataError, match=str(path)):
        require_regular(path)


def test_files_folders_and_what_is_not_there_pass(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    for path in (tmp_path / "a.json", tmp_path, tmp_path / "missing", Path("nul\0byte")):
        require_regular(path)
