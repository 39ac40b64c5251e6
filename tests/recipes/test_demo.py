"""The demo, shorter than `scripts/demo` runs it."""

from __future__ import annotations

import json

import pytest


@pytest.mark.slow
def test_the_demo_learns_names_it_has_never_seen(deixis, tmp_path):
    code, out, _ = deixis(["demo", "--output", tmp_path, "--epochs", "3"])
    assert code == 0
    lines = (tmp_path / "demo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    measured = [record for record in map(json.loads, lines) if "AP" in record]
    assert max(record["AP"] for record in measured[1:]) - measured[0]["AP"] >= 0.20
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
    assert "report.html" in out
