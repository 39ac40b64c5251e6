"""The demo, shorter than `scripts/demo` runs it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deixis.errors import Terminated
from deixis.options.demo import DemoOptions
from deixis.recipes.demo import demo_training


@pytest.mark.slow
def test_the_demo_learns_names_it_has_never_seen(deixis, tmp_path, monkeypatch):
    def measured_less(options: DemoOptions):
        # a third of the time is measuring what was forgotten, which other tests do
        return replace(demo_training(options), forgetting_data="")

    monkeypatch.setattr("deixis.recipes.demo.demo_training", measured_less)
    code, out, _ = deixis(["demo", "--output", tmp_path, "--epochs", "3"])
    assert code == 0
    result = json.loads((tmp_path / "demo" / "result.json").read_text(encoding="utf-8"))
    assert result["reported_on"] == "test"
    assert result["best"]["test"]["AP"] - result["before"]["test"]["AP"] >= 0.20
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
    assert "report.html" in out


@pytest.mark.parametrize("words", [("demo",), ("demo", "refer")])
def test_a_demo_that_is_asked_to_stop_says_so_in_one_line(words, tmp_path, deixis, monkeypatch) -> None:
    def stopped(*_: object) -> None:
        raise Terminated

    monkeypatch.setattr("deixis.recipes.demo.finetune", stopped)
    monkeypatch.setattr("deixis.recipes.demo.finetune_segmenter", stopped)
    code, _, err = deixis([*words, "--output", str(tmp_path)])
    assert code == 143
    assert err == "deixis: stopped by SIGTERM after saving; --resume resumes a training run\n"
