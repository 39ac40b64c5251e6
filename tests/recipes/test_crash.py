"""A few of the kills of `scripts/crash_test`."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_runs import run_crashes


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_with_the_same_bits(tmp_path: Path) -> None:
    assert run_crashes(tmp_path, kills=2, seed=1)["kills"] == 2
