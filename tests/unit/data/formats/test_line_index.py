"""ODVG files read line by line from disk: positions, awkward files, and what stays in memory."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data.formats.odvg import scan as odvg_scan
from deixis.data.formats.odvg.line_index import LineIndex, LineReader
from deixis.data.formats.odvg.read import read_odvg
from deixis.errors import DataError


def lines_file(folder: Path, count: int, blank: str = "") -> Path:
    Image.new("RGB", (40, 10)).save(folder / "a.jpg")
    rows = [
        {
            "filename": "a.jpg",
            "height": 10,
            "width": 40,
            "detection": {"instances": [{"bbox": [0, 0, i + 1, 5], "label": i % 3, "category": f"name é{i % 3}"}]},
        }
        for i in range(count)
    ]
    text = f"\n{blank}".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "lines.jsonl").write_text(text, encoding="utf-8")
    return folder / "lines.jsonl"


@pytest.mark.parametrize("blank", ["", "\n", "  \n\n"])
def test_any_line_at_any_time(tmp_path, blank):
    dataset = read_odvg(lines_file(tmp_path, 30, blank))
    assert len(dataset) == 30
    for index in (29, 0, 17, 3, 17, -1):
        assert dataset[index].instances.boxes_xyxy_px[0, 2] == index % 30 + 1
        assert dataset[index].image_id == index % 30 + 1
    step = 1 + blank.count("\n")
    assert dataset[4].source == f"lines.jsonl: line {4 * step + 1}"
    assert dataset.vocabulary.names == ("name é0", "name é1", "name é2")
    assert dataset.size_hw(7) == (10, 40)
    assert [sample.image_id for sample in dataset] == list(range(1, 31)), "iteration ends"
    with pytest.raises(IndexError):
        dataset[30]


def test_a_byte_order_mark_and_windows_line_ends(tmp_path):
    file = lines_file(tmp_path, 3)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    dataset = read_odvg(file)
    assert [dataset[i].instances.boxes_xyxy_px[0, 2] for i in range(3)] == [1, 2, 3]


def test_nothing_in_memory_but_the_index(tmp_path):
    dataset = read_odvg(lines_file(tmp_path, 300))
    assert len(pickle.dumps(dataset)) < 300 * 20 + 3000, "20 bytes a line, when it goes to a process that is spawned"
    assert isinstance(dataset._index._entries, np.memmap)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert copy[234].instances.boxes_xyxy_px.tolist() == dataset[234].instances.boxes_xyxy_px.tolist()


def test_an_index_longer_than_one_write(tmp_path):
    (tmp_path / "x").write_text("".join(f"{i}\n" for i in range(9000)))
    index = LineIndex(tmp_path / "x", ((line, (line.number, 2)) for line in LineReader(tmp_path / "x")))
    assert len(index) == 9000
    assert [index.line(i).text for i in (0, 4095, 4096, 8999)] == ["0\n", "4095\n", "4096\n", "8999\n"]
    assert index.size_hw(8999) == (9000, 2)


def test_the_vocabulary_does_not_grow_with_the_phrases(tmp_path, monkeypatch):
    monkeypatch.setattr(odvg_scan, "MAX_PHRASES", 5)
    Image.new("RGB", (40, 10)).save(tmp_path / "a.jpg")
    rows = [
        {"filename": "a.jpg", "height": 10, "width": 40}
        | {"grounding": {"caption": f"see thing {i}", "regions": [{"bbox": [0, 0, 9, 9], "phrase": f"thing {i}"}]}}
        for i in range(9)
    ]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = read_odvg(tmp_path / "lines.jsonl")
    assert dataset.vocabulary.names == tuple(f"thing {i}" for i in range(5))
    assert dataset[8].vocabulary.names == ("thing 8",)


def test_the_digest_is_the_contents(tmp_path):
    first = read_odvg(lines_file(tmp_path, 3)).digest
    assert read_odvg(lines_file(tmp_path, 3)).digest == first
    assert read_odvg(lines_file(tmp_path, 4)).digest != first


def test_a_file_or_image_that_goes_away_is_told(tmp_path):
    dataset = read_odvg(lines_file(tmp_path, 3))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"line 2: the image 'a\.jpg' is gone"):
        dataset[1]
    (tmp_path / "lines.jsonl").unlink()
    with pytest.raises(DataError, match="cannot be read any more"):
        dataset[1]


def test_a_line_that_is_no_text_is_named(tmp_path):
    file = lines_file(tmp_path, 2)
    file.write_bytes(file.read_bytes() + b'\n{"filename": "\xff"}')
    with pytest.raises(DataError, match=r"line 3: is no UTF-8 text"):
        read_odvg(file)
