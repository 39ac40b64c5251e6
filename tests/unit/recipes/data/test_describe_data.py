"""`deixis data stats`: the counts, and a page that needs nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deixis.cli.main import run
from deixis.data.formats import read_dataset
from deixis.data.formats.writing import write_dataset
from deixis.options.data_stats import DataStatsOptions
from deixis.recipes.data.stats import describe_data
from deixis.reporting.plots import histogram


def test_counts_are_those_of_the_file(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared_data / "coco_cc_instances" / "instances_tiny_coco_train.json"
    content = json.loads(path.read_text())
    counts = Counter(row["category_id"] for row in content["annotations"])
    facts = describe_data(DataStatsOptions(data=str(path), output=tmp_path / "stats.html", show=3))
    assert (facts.images, facts.boxes, facts.empty_images) == (11, 67, 2)
    assert sorted(facts.boxes_per_class.values())[-3:] == sorted(counts.values())[-3:]
    out = capsys.readouterr().out
    assert re.search(r"objects\s+│\s+67", out)
    assert "77 more" in out


def test_the_page_needs_nothing_else(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "coco_cc_instances" / "instances_tiny_coco_train.json"
    page = tmp_path / "stats.html"
    assert run(["data", "stats", "--data", str(path), "--output", str(page), "--pictures", "4"]) == 0
    text = page.read_text()
    assert text.count("<img ") == 4
    assert text.count("<svg") == 4
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<script" not in text


def test_names_are_escaped(tmp_path: Path) -> None:
    data = write_dataset(read_dataset("scenes:split=demo_train,count=2,seed=1"), tmp_path / "set", "coco")
    content = json.loads(data.read_text())
    content["categories"][0]["name"] = "<b>[red]"
    data.write_text(json.dumps(content))
    assert run(["data", "stats", "--data", str(data), "--output", str(tmp_path / "a.html"), "--pictures", "0"]) == 0
    assert "<b>[red]" not in (tmp_path / "a.html").read_text()


def test_embedded_pictures_and_scenes_are_shown(tmp_path: Path) -> None:
    scenes = "scenes:split=demo_train,count=3,seed=1"
    data = write_dataset(read_dataset(scenes), tmp_path / "set", "parquet")
    for source in (scenes, str(data)):
        facts = describe_data(DataStatsOptions(data=source, output=tmp_path / "page.html", pictures=2))
        assert facts.images == 3
        assert (tmp_path / "page.html").read_text().count("<img ") == 2


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [3.0, 500.0, 7.0], [1.0, 2.0, 3.0]])
@pytest.mark.parametrize("options", [{}, {"whole": True}, {"log": True}])
def test_histograms_of_few_values(values: list[float], options: dict[str, bool]) -> None:
    assert histogram(np.array(values), "x", **options).startswith("<svg")
    assert histogram(np.zeros(0), "x", **options) == ""
