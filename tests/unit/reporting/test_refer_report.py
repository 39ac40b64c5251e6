"""The report of a segmenter's run: the same page as a detector's, with other parts."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deixis.refer_records import Expression, ReferSample, Segmentation
from deixis.reporting.data import Curves
from deixis.reporting.outcome import Measured, Outcome
from deixis.reporting.refer_report import Presence, masks_row, segmenter_facts
from deixis.reporting.run_report import RunFacts, render_run_report


@pytest.fixture(scope="module")
def page() -> str:
    mask = np.zeros((60, 90), np.uint8, order="F")
    mask[5:20, 10:30] = 1
    rle, empty = coco_mask.encode(mask), coco_mask.encode(np.zeros_like(mask))
    sample = ReferSample(np.full((60, 90, 3), 100, np.uint8), (60, 90), (Expression(("a <cat>", "it"), (rle,)),))
    before, after = ([Segmentation(text, one, 1.0) for text in ("a <cat>", "it")] for one in (empty, rle))
    states = [Measured(epoch, {"gIoU": value}, {}) for epoch, value in ((0, 0.3), (2, 0.5), (5, 0.2))]
    run = RunFacts(
        "<title>",
        "a&b",
        Outcome("gIoU", *states),
        policy={"lora r": "16"},
        parameters=[("sam", 5, 10), ("vision", 0, 7)],
        curves=Curves(steps=[1], losses={"loss_mask": [1.0]}, epochs=[0, 1], epoch_metrics={"gIoU": [0.3, 0.5]}),
        facts={"minutes": "1.0"},
    )
    task = segmenter_facts(
        {"training": "3 <images>"},
        {"gIoU": 0.3},
        {"gIoU": 0.5, "exact": 0.25},
        {"by words": [("one <word>", 3, 0.2, 0.4), ("two", 1, None, 0.3)]},
        presence=Presence({"threshold": [0.1, 0.5], "N_acc": [0.2, 0.3]}, 0.5, "<threshold> 0.5"),
        pictures=[masks_row(sample, before, after)],
    )
    return render_run_report(run, task)


def test_every_part_is_there(page: str) -> None:
    titles = re.findall(r"<h2>([^<]*)</h2>", page)
    assert titles == [
        *("Summary", "Data", "What was trained", "Before and after", "Phrases without an object", "Curves"),
        *("Pictures", "The run"),
    ]
    assert page.count("data:image/jpeg;base64,") == 3
    assert page.count("<svg") == 3  # gIoU, the loss, the threshold


def test_figures_before_and_after(page: str) -> None:
    text = re.sub(r"<[^>]*>", " ", page)
    assert re.search(r"gIoU\s+30\.0 →\s+50\.0\s+\+20\.0\s+exact\s+25\.0\s+not measured before", text)
    assert re.search(r"one &lt;word&gt;\s+3\s+20\.0\s+40\.0\s+\+20\.0\s+two\s+1\s+–\s+30\.0\s+–", text)
    assert re.search(r"sam\s+5\s+10\s+vision\s+0\s+7\s+All\s+5\s+17", text)
    assert "the last epoch fell below the model before training" in text.lower()
    assert "optimistic" in text


def test_every_text_is_escaped(page: str) -> None:
    body = page[page.index("<body>") :]
    for raw in ("<title>", "<images>", "<word>", "<cat>", "<threshold>"):
        assert raw not in body
    assert "a&amp;b" in body


def test_a_model_that_answers_every_phrase_has_no_threshold() -> None:
    task = segmenter_facts({"training": "1 image"}, None, {"gIoU": 0.5}, {}, presence=Presence({}, math.nan))
    page = render_run_report(RunFacts("run", "model"), task)
    assert "Phrases without an object" not in page
    assert "not measured before" in page
