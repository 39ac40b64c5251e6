"""Results kept file by file: whatever happened to a line, the others are read, and its file is done once more."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from refer_miniatures import LEFT, rle

from deixis.errors import DataError
from deixis.inference.outputs.annotations import SCORES, failed_entry, require_annotated
from deixis.inference.outputs.cycle import NOT_AN_ENTRY
from deixis.inference.outputs.detection_lines import DetectionLines
from deixis.inference.outputs.file_lines import FileLines
from deixis.inference.outputs.segmentation_lines import SegmentationLines
from deixis.refer_records import Segmentation
from deixis.results.detections import Detections

MADE_BY = {"model": "m", "threshold": 0.3}


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: the tests' own checks would find the wrong types below."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{number}.jpg" for number in range(4)]
    for file in files:
        file.write_bytes(b"picture")
    return files


def keep_all(folder: Path, files: list[Path]) -> None:
    lines: FileLines[str] = FileLines(folder, MADE_BY, "lines.jsonl", result=lambda entry: str(entry["text"]))
    for file in files:
        lines.add(file, {"text": file.name}, file.name)


def change_line(path: Path, number: int, change: Callable[[Any], Any]) -> None:
    content = path.read_bytes().splitlines()
    changed = change(json.loads(content[number - 1]))
    content[number - 1] = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    path.write_bytes(b"\n".join(content) + b"\n")


def constant(value: object) -> Callable[[Any], Any]:
    return lambda line: value


@pytest.mark.parametrize(
    "change",
    [
        *map(constant, ([], 3, None, "x", {}, b"", b"\xff\x00", b'{"file": "0.j', b"[" * 100_000)),
        *(lambda line, name=name: {**line, name: None} for name in ("file", "stamp")),
        lambda line: {name: value for name, value in line.items() if name != "text"},
    ],
)
def test_a_damaged_line_costs_its_own_file_once(tmp_path: Path, files: list[Path], change: Any) -> None:
    keep_all(tmp_path / "out", files)
    change_line(tmp_path / "out/lines.jsonl", 3, change)
    with pytest.warns(UserWarning, match=r"lines\.jsonl: 1 damaged lines, the first is line 3; .* done again"):
        again: FileLines[str] = FileLines(tmp_path / "out", MADE_BY, "lines.jsonl", result=lambda e: str(e["text"]))
    assert [again.get(file) for file in files] == ["0.jpg", None, "2.jpg", "3.jpg"]
    again.add(files[1], {"text": "again"}, "again")
    with pytest.warns(UserWarning, match="1 damaged lines, the first is line 3"):
        last: FileLines[str] = FileLines(tmp_path / "out", MADE_BY, "lines.jsonl", result=lambda e: str(e["text"]))
    assert [last.get(file) for file in files] == ["0.jpg", "again", "2.jpg", "3.jpg"]


def test_a_damaged_first_line_is_said_and_other_settings_begin_anew(tmp_path: Path, files: list[Path]) -> None:
    keep_all(tmp_path, files)
    change_line(tmp_path / "lines.jsonl", 1, constant({"made_by": "x"}))
    with pytest.warns(UserWarning, match=r"its first line, which says what made the others, is damaged"):
        lines: FileLines[str] = FileLines(tmp_path, MADE_BY, "lines.jsonl", result=lambda entry: "")
    assert lines.count == 0
    keep_all(tmp_path, files)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FileLines(tmp_path, {**MADE_BY, "threshold": 0.5}, "lines.jsonl", result=lambda entry: "").count == 0


def test_a_folder_that_is_a_file_is_one_line(files: list[Path]) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        FileLines(files[0], MADE_BY, "lines.jsonl", result=lambda entry: "")


@pytest.mark.parametrize(
    "change",
    [
        {"boxes_xyxy_px": [[0, 0, 5]]},
        {"boxes_xyxy_px": [[0, 0, 5, None]]},
        {"boxes_xyxy_px": [[0, 0, 5, 5], [0, 0, 5, 5]]},
        {"scores": "high"},
        {"scores": [0.5, 0.5]},
        {"class_ids": [1]},
        {"class_ids": [-1]},
        {"class_ids": None},
        {"size_hw": 7},
        {"video": 3},
        {"video": {"frames": "many"}},
    ],
)
def test_detections_with_other_values_are_done_again(tmp_path: Path, files: list[Path], change: Any) -> None:
    one = Detections(np.array([[0.0, 0, 5, 5]]), np.array([0.5]), np.array([0]), ("star",), size_hw=(40, 60))
    lines = DetectionLines(tmp_path, MADE_BY, ("star",))
    for file in files[:3]:
        lines.add(one, file)
    lines.add_video(files[3], frames=3, objects=2, tracks=1)
    change_line(tmp_path / "predictions.jsonl", 3, lambda line: {**line, **change})
    with pytest.warns(UserWarning, match="the first is line 3"):
        again = DetectionLines(tmp_path, MADE_BY, ("star",))
    assert [again.has(file) for file in files] == [True, False, True, True]
    assert again.video(files[3]) == {"frames": 3, "objects": 2, "tracks": 1}


@pytest.mark.parametrize("change", [{"text": 3}, {"score": "x"}, {"mask_rle": None}, {"answer": []}, {"speed": 1}])
def test_answers_with_other_values_are_done_again(tmp_path: Path, files: list[Path], change: Any) -> None:
    lines = SegmentationLines(tmp_path, MADE_BY)
    for file in files:
        lines.add(file, [Segmentation("left", rle([LEFT]), 0.5)])
    change_line(
        tmp_path / "segmentations.jsonl", 3, lambda line: {**line, "answers": [{**line["answers"][0], **change}]}
    )
    with pytest.warns(UserWarning, match="the first is line 3"):
        again = SegmentationLines(tmp_path, MADE_BY)
    assert again.files.done(files) == 3


def test_lines_of_annotations_have_their_values() -> None:
    scores = {**dict.fromkeys(SCORES, 0.5), "detector_score": None}
    found = {"name": "star", "box_xyxy_px": [0, 0, 5, 5], "mask": rle([LEFT]), "caption": "a star", **scores}
    sound = {"image": "a.jpg", "id": 1, "height": 40, "width": 60, "left_out": 0, "objects": [found]}
    for entry in (sound, {**sound, "objects": []}, failed_entry("a.jpg", 1, "cannot be read")):
        require_annotated(entry)
    of_entry = [{name: value} for name in ("image", "id", "height", "left_out", "objects") for value in (None, [3])]
    of_object = [{name: value} for name in found if name not in SCORES for value in (None, 3)] + [{"cycle_iou": "x"}]
    for change in (*of_entry, {"error": 3}, *({"objects": [{**found, **one}]} for one in of_object)):
        with pytest.raises(NOT_AN_ENTRY):
            require_annotated({**sound, **change})
