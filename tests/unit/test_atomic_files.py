"""Files written aside are whole under their name, or not there at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from deixis.atomic_files import draft_of, file_aside, write_atomic
from deixis.errors import DataError


def test_a_file_takes_its_name_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.bin"
    with file_aside(file) as draft:
        assert draft == draft_of(file)
        draft.write_bytes(b"1")
        assert not file.exists()
    assert [path.name for path in file.parent.iterdir()] == ["a.bin"]
    with file_aside(file):
        pass
    assert file.read_bytes() == b"1", "nothing was written, so nothing changes"


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")

    def interrupted() -> None:
        with file_aside(file) as draft:
            draft.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert file.read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"a.txt: cannot be written \(.*\); choose another output folder"):
        write_atomic(tmp_path / "file" / "a.txt", "text")
    with pytest.raises(OSError), file_aside(tmp_path / "file" / "a.txt"):  # noqa: PT011  # which, depends on the system
        pass
