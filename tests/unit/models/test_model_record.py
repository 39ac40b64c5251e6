"""`deixis.json`: read, merged and written without loss; damaged ones are one clear error."""

import json

import pytest

from deixis.errors import ModelError
from deixis.models.model_record import ModelRecord, read_record, trained_record, update_record, write_record


def test_a_folder_without_a_record_has_an_empty_one(tmp_path):
    assert read_record(tmp_path) == ModelRecord()


def test_what_is_written_is_read(tmp_path):
    record = ModelRecord(
        "detector", "photographs", ("raccoon", "naïve cat"), {"score": 0.4}, {"test": {"AP": 0.5}}, {"raccoon": 0.3}
    )
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record


def test_updates_merge_and_keep_what_is_unknown(tmp_path):
    (tmp_path / "deixis.json").write_text(
        json.dumps({"version": 1, "thresholds": {"a": 0.1}, "later": [1, 2]}), encoding="utf-8"
    )
    update_record(tmp_path, thresholds={"b": 0.2}, task="segmenter")
    values = json.loads((tmp_path / "deixis.json").read_text(encoding="utf-8"))
    assert values["thresholds"] == {"a": 0.1, "b": 0.2}
    assert values["later"] == [1, 2]
    assert values["task"] == "segmenter"


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", "null", "{}", '{"version": "1"}', '{"version": 2}', '{"version": 1, "names": "raccoon"}',
        '{"version": 1, "names": [1]}', '{"version": 1, "thresholds": {"a": "high"}}',
        '{"version": 1, "thresholds": {"a": NaN}}', '{"version": 1, "thresholds": {"a": true}}',
        '{"version": 1, "class_thresholds": {"a": "high"}}',
        '{"version": true}', '{"version": -5}', '{"version": 0}', '{"version": 1, "thresholds": {"a": -0.1}}',
        '{"version": 1, "class_thresholds": {"a": 1.5}}',
        '{"version": 1, "calibration": {"temperature": -1, "shift": 0}}',
        '{"version": 1, "calibration": {"temperature": 1, "shift": Infinity}}',
        '{"version": 1, "calibration": {"temperature": 1, "shift": 1%s}}' % ("0" * 400),
        '{"version": 1, "sinks": {"count": -1}}', '{"version": 1, "sinks": {"count": true}}',
        '{"version": 1, "training": {"images": true}}', '{"version": 1, "training": {"epochs": -3}}',
        '{"version": 1, "domain": []}', '{"version": 1, "task": "judge"}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_record_is_one_error_that_names_the_file(tmp_path, content):
    (tmp_path / "deixis.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"deixis\.json: "):
        read_record(tmp_path)


def test_a_trained_model_does_not_inherit_figures() -> None:
    base = ModelRecord(
        "detector", "photographs", ("cat",), {"presence": 0.8}, {"test": {"AP": 0.9}}, {"cat": 0.1}, {"later": 1}
    )
    assert trained_record(base, "detector", ["dog"]) == ModelRecord(
        "detector", "photographs", ("dog",), extra={"later": 1}
    )
