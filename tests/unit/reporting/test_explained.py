"""The part of a page that explains a detector's figures, in an evaluation's page and in a run's report."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from deixis.evaluation.analysis import analyse
from deixis.evaluation.coco_map import evaluate_detections
from deixis.records import Instances, Sample, SampleList, Vocabulary
from deixis.reporting.explained import explain
from deixis.reporting.page import Table, render_page
from deixis.reporting.run_report import RunFacts, TaskFacts, render_run_report
from deixis.results.detections import Detections

AWKWARD = "<b>cat</b> & co"
SECTIONS = ("Classes", "Mistakes", "Worst mistakes", "Likely label errors")


class Tags(HTMLParser):
    """Counts tags, and fails on those that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.metas: list[dict[str, str | None]] = []
        self.resources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.resources += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag == "meta":
            self.metas.append(dict(attrs))
        elif tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.resources += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def measured(classes: int = 2):
    """A data set, and detections of which one of each image is right and one confident and wrong."""
    names = Vocabulary((AWKWARD, *(f"thing {number}" for number in range(classes - 1))))
    samples, found = [], []
    for image in range(3):
        pixels = np.full((80, 120, 3), 90, np.uint8)
        boxes = np.array([[5.0, 5, 45, 30], [60, 40, 110, 70]])
        samples.append(Sample(pixels, (80, 120), Instances.build(boxes, [0, 1]), names, image, f"<i>{image}.jpg"))
        away = np.array([boxes[0], [5.0, 45, 50, 75]])
        found.append(Detections(away, np.array([0.9, 0.8]), np.array([0, 1]), names.names, image))
    return SampleList(tuple(samples), names, "<u>data"), found


def explained(classes: int = 2, pictures: bool = True):
    dataset, found = measured(classes)
    truth = [dataset[index] for index in range(len(dataset))]
    metrics = evaluate_detections(truth, found, dataset.vocabulary)
    return explain(analyse(truth, found, dataset.vocabulary, metrics), dataset, pictures=pictures, images="3 of 9")


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(
        "detect_eval",
        title="<em>model",
        figures=Table(["Metric", "Percent"], [["AP", "1.0"]], numbers=1),
        note="a note",
        found=explained(),
    )


def test_it_is_a_page_by_itself(page: str) -> None:
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    assert all(resource.startswith(("#", "data:image/jpeg;base64,")) for resource in parser.resources)
    assert "http" not in page.replace("http-equiv", "")
    for raw in ("<b>cat", "<i>0", "<u>data", "<em>model"):
        assert raw not in page
    for section in ("Summary", "Curves", *SECTIONS):
        assert f"<h2>{section}</h2>" in page


def test_a_phone_can_show_it(page: str) -> None:
    """The page takes the width of the screen, and nothing in it has a width of its own."""
    parser = Tags()
    parser.feed(page)
    (viewport,) = [meta["content"] for meta in parser.metas if meta.get("name") == "viewport"]
    assert viewport == "width=device-width, initial-scale=1"
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.findall(r"(?<![-\w])width:\s*[\d.]+(?:px|rem|em)", style.replace("width: .8em", ""))
    assert not re.findall(r"minmax\(\s*(?:[2-9]\d\d|\d{4})px", style), "columns wider than a phone"
    assert re.search(r"max-width: 640px\)[^@]*\.pictures \{ grid-template-columns: 1fr", style)
    assert not re.findall(r"<(?:img|svg|table)[^>]* width=", page)


def test_what_is_known_of_the_mistakes_is_told(page: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert re.search(r"Background 3 Missed 3", text)
    assert "found &#39;thing 0&#39; (0.80), nothing like it is annotated there" in page
    assert page.count("<figure>") == 3 * 2 + 3
    assert page.count("<svg") == 3
    assert "Confusion matrix" in page


def test_classes_sort_by_every_column(page: str) -> None:
    table = page[page.index('<table class="sortable">') :]
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", table[: table.index("</thead>")])
    assert heads[:1] == ["Class"]
    assert {"AP", "F1", "Precision", "Recall", "Threshold", "Missed"} <= set(heads)
    assert page.count("<script>") == 1
    assert 'querySelectorAll("table.sortable th")' in page


def test_many_classes_have_their_worst_confusions() -> None:
    found = explained(classes=40, pictures=False)
    assert found.confusion.sortable
    assert found.confusion.title == "The 2 most frequent confusions"
    assert [list(row) for row in found.confusion.rows] == [["thing 0", "background", 3], ["background", "thing 0", 3]]
    assert (found.worst, found.label_errors) == ([], [])


def test_the_report_of_a_run_has_it_too() -> None:
    task = TaskFacts(tiles=[], metrics_note="", figures=[])
    without = render_run_report(RunFacts("run", "model"), task)
    page = render_run_report(RunFacts("run", "model"), replace(task, explained=explained()))
    for section in ("Thresholds and calibration", *SECTIONS):
        assert f"<h2>{section}</h2>" in page
        assert f"<h2>{section}</h2>" not in without
    assert "<script" not in without
    assert "3 of 9" in page


def test_nothing_found_is_explained() -> None:
    dataset, found = measured()
    truth = [dataset[index] for index in range(len(dataset))]
    nothing = [one[:0] for one in found]
    metrics = evaluate_detections(truth, nothing, dataset.vocabulary)
    part = explain(analyse(truth, nothing, dataset.vocabulary, metrics), dataset)
    assert math.isnan(metrics.ECE)
    assert "cannot be measured" in part.calibration
    assert len(part.worst) == 3
