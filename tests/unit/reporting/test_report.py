"""The report: one file that needs nothing else and says what was measured."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deixis.errors import DataError
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.evaluation.trade_off import TradeOff
from deixis.records import Instances, Sample, SampleList, Vocabulary
from deixis.reporting.data import Curves, DatasetFacts, ForgettingFacts, dataset_facts
from deixis.reporting.detect_report import detections_row, detector_facts
from deixis.reporting.metrics_file import read_curves
from deixis.reporting.page import is_our_page
from deixis.reporting.run_report import RunFacts, TaskFacts, render_run_report, write_run_report
from deixis.results.detections import Detections

AWKWARD = '<b>cat</b> & "co" $x_{'
VOCABULARY = Vocabulary((AWKWARD, "dog"))
VOID = {"meta", "img", "br", "link", "input", "hr"}


class _Balance(HTMLParser):
    """Fails on tags that do not match, and keeps every attribute that names a resource."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.resources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.resources += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.resources += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def _metrics(ap: float, small: float = math.nan) -> DetectionMetrics:
    return DetectionMetrics(ap, ap, ap, small, ap, ap, ap, {AWKWARD: ap}, images=2, boxes=3)


def _sample(image_id: int, boxes: list[list[float]], crowd: list[bool] | None = None) -> Sample:
    pixels = np.full((60, 90, 3), 100, np.uint8)
    instances = Instances.build(np.asarray(boxes, float), [0] * len(boxes), crowd)
    return Sample(pixels, (60, 90), instances, VOCABULARY, image_id)


def _dataset() -> SampleList:
    return SampleList(
        (
            _sample(1, [[0, 0, 20, 20], [0, 0, 50, 50]]),
            _sample(2, []),
            _sample(3, [[0, 0, 9, 9], [0, 0, 90, 60]], [True, False]),
        ),
        VOCABULARY,
        name="<i>pets</i>",
    )


def _report(before: DetectionMetrics | None, **changes: Any) -> tuple[RunFacts, TaskFacts]:
    """The parts of a detector's report. Changes: arguments of `RunFacts` and `detector_facts`."""
    facts = dataset_facts(_dataset())
    found = Detections(np.array([[0.0, 0, 20, 20]]), np.array([0.8]), np.array([0]), VOCABULARY.names)
    sample = _sample(1, [[0, 0, 20, 20]])
    run: dict[str, Any] = {
        "title": "<script>alert(1)</script>",
        "model": "a&b",
        "policy": {"Recipe": "<u>small</u>"},
        "parameters": [("<em>backbone</em>", 0, 1000), ("heads", 500, 500)],
        "curves": Curves(
            steps=[1, 2, 3],
            losses={"loss": [3.0, math.nan, 1.0], "loss_ce": [1.0, 1.0, 1.0], "<gg>": [math.nan] * 3},
            learning_rates={"heads <h>": [0.0, 1e-4, 1e-4], "$x_{": [0.0, 0.0, 0.0]},
            epochs=[0, 1],
            epoch_metrics={"AP": [0.4, 0.75]},
            skipped=["step 2: <loss> not finite"],
        ),
        "facts": {"Command": "deixis detect train\n--data <x>"},
    }
    task: dict[str, Any] = {
        "training": facts,
        "validation": facts,
        "test": None,
        "before": before,
        "after": _metrics(0.75, small=0.5),
        "pictures": [detections_row(sample.evolve(source="<a>.jpg"), None if before is None else found, found)],
        "forgetting": None,
    }
    run |= {name: value for name, value in changes.items() if name in run or name == "outcome"}
    task |= {name: value for name, value in changes.items() if name in task}
    assert changes.keys() <= run.keys() | task.keys()
    return RunFacts(**run), detector_facts(**task)


@pytest.fixture(scope="module")
def page() -> str:
    return render_run_report(*_report(_metrics(0.4)))


def test_needs_nothing_from_outside(page: str) -> None:
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.resources) > 5
    assert all(resource.startswith(("#", "data:image/jpeg;base64,")) for resource in parser.resources)
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)'\"]*)", page))
    assert "script" not in parser.tags


def test_every_text_is_escaped(page: str) -> None:
    for raw in ("<script>", "<b>cat", "<i>pets", "<u>small", "<em>", "<loss>", "<x>", "<a>.jpg", "<gg>", "<h>"):
        assert raw not in page
    assert "&lt;b&gt;cat&lt;/b&gt; &amp; &#34;co&#34; $x_{" in page


def test_tells_before_after_and_change(page: str) -> None:
    text = re.sub(r"<[^>]*>", " ", page)
    assert re.search(r"heads\s+500\s+500\s+All\s+500\s+1\u202f500", text)
    assert re.search(r"AP\s+40\.0 →\s+75\.0\s+\+35\.0", text)
    assert re.search(r"small\s+1\s+–\s+50\.0\s+–", text), "unmeasured stays a dash"
    assert "Optimiser steps that were skipped: 1" in text


def test_has_pictures_and_every_section(page: str) -> None:
    assert page.count("data:image/jpeg;base64,") == 3
    for title in ("Summary", "Data", "What was trained", "Before and after", "Curves", "Pictures", "The run"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<svg") == 3
    assert "prefers-color-scheme: dark" in page
    links = re.findall(r'<a href="#([^"]*)">', page)
    assert links == re.findall(r'<section id="([^"]*)">', page)
    assert len(links) == 7


def test_pages_are_recognised_as_ours(page: str) -> None:
    assert is_our_page(page)
    assert not is_our_page(page[1:])


def test_forgetting_has_its_curve_its_knee_and_its_command() -> None:
    points = [TradeOff(0, 0.1, 0.8), TradeOff(0.5, 0.6, 0.7), TradeOff(1, 0.65, 0.4)]
    page = render_run_report(
        *_report(_metrics(0.4), forgetting=ForgettingFacts("<old>", 60, 40, points, "merge <knee>"))
    )
    assert page.count("<svg") == 4
    assert "<h2>Forgetting</h2>" in page
    assert "<td>0.5 <b>knee</b></td>" in page
    assert "<td>0 (before)</td>" in page
    assert "40 of &lt;old&gt; (old)" in page
    assert "<pre>merge &lt;knee&gt;</pre>" in page
    assert "<h2>Forgetting</h2>" not in render_run_report(*_report(_metrics(0.4)))


def test_a_fall_is_shown_as_one() -> None:
    assert '<span class="down">-15.0</span>' in render_run_report(*_report(_metrics(0.9)))


def test_without_a_baseline_and_without_curves() -> None:
    page = render_run_report(*_report(None, curves=Curves(), pictures=[], policy={}, parameters=[]))
    assert "not measured before" in page
    assert "<svg" not in page
    assert "<h2>Pictures</h2>" not in page
    assert "<h2>What was trained</h2>" not in page
    assert "No optimiser step was skipped." in page


def test_every_loss_component_has_a_panel() -> None:
    losses = {f"loss_{kind}{layer}": [1.0] for kind in ("ce", "bbox", "giou") for layer in ("", "_0", "_enc")}
    page = render_run_report(*_report(None, curves=Curves(steps=[1], losses=losses)))
    for name in losses:
        assert f">{name}<" in page


def test_writes_one_file(tmp_path: Path) -> None:
    write_run_report(tmp_path / "new" / "report.html", *_report(None))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_run_report(tmp_path / "file" / "report.html", *_report(None))


def test_facts_of_a_data_set() -> None:
    facts = dataset_facts(_dataset())
    assert (facts.images, facts.boxes, facts.crowds, facts.empty_images, facts.max_boxes) == (3, 3, 1, 1, 2)
    assert facts.boxes_per_class == {AWKWARD: 3, "dog": 0}
    assert facts.boxes_per_size == {"small": 1, "medium": 2, "large": 0}
    assert facts.box_side_px == pytest.approx((20, 50, math.sqrt(5400)))
    assert facts.image_sizes_hw == ((60, 90),) * 3


def test_facts_of_an_empty_data_set() -> None:
    facts = dataset_facts(SampleList((), VOCABULARY))
    assert isinstance(facts, DatasetFacts)
    assert (facts.images, facts.boxes, facts.box_side_px, facts.image_sizes_hw) == (0, 0, (0, 0, 0), ())
    assert "0 / 0 / 0" in render_run_report(*_report(None, training=facts))


def test_reads_the_curves_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"kind": "baseline", "step": 0, "AP": 0.25, "AP50": 0.5}\n'
        '{"kind": "step", "step": 0, "epoch": 0, "loss": 3.0, "loss_ce": 1.0, "class_error": 50, "lr": 0.1}\n'
        '{"kind": "skip", "step": 1, "non_finite": ["loss"], "samples": ["a.jpg"]}\n'
        '{"kind": "step", "step": 2, "epoch": 0, "loss": "nan", "lr": {"heads": 0.2}}\n'
        '{"kind": "evaluation", "step": 3, "epoch": 0, "AP": 0.75, "best": true}\n'
        '{"kind": "step", "st'
    )
    curves = read_curves(path)
    assert curves.steps == [0, 2]
    assert list(curves.losses) == ["loss", "loss_ce", "class_error"]
    assert curves.losses["loss"] == pytest.approx([3.0, math.nan], nan_ok=True)
    assert curves.learning_rates["heads"] == pytest.approx([math.nan, 0.2], nan_ok=True)
    assert curves.epochs == [0, 1]
    assert curves.epoch_metrics == {"AP": [0.25, 0.75], "AP50": pytest.approx([0.5, math.nan], nan_ok=True)}
    assert curves.skipped == ["step 1: loss not finite; samples: a.jpg"]
    path.write_text("no json\n{}\n")
    with pytest.raises(DataError, match="line 1"):
        read_curves(path)
    with pytest.raises(DataError, match="was the run started"):
        read_curves(tmp_path / "absent.jsonl")
