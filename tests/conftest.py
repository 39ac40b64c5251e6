"""Fixtures shared by all tests, and jaxtyping's shape checks on every deixis function."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import shape_checks

shape_checks.install()


@pytest.fixture(autouse=True)
def first_calls_checked() -> None:
    """Shapes and types are checked in the first calls of every function by this test."""
    shape_checks.next_test()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real data sets; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DEIXIS_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("the real data sets are absent; set DEIXIS_SHARED_DATA to their folder")
    return folder
