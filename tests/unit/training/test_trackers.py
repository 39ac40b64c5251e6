"""metrics.jsonl and TensorBoard."""

import json
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deixis.errors import TrainingError
from deixis.training.metric_logs import Trackers


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_records_are_written_in_order(tmp_path):
    with Trackers(tmp_path) as trackers:
        trackers.log("step", 0, {"loss": 1.5, "lr": {"heads": 0.1}})
        trackers.log("evaluation", 1, {"AP": 0.5, "best": True})
    assert records(tmp_path) == [
        {"kind": "step", "step": 0, "loss": 1.5, "lr": {"heads": 0.1}},
        {"kind": "evaluation", "step": 1, "AP": 0.5, "best": True},
    ]


def test_tensorboard_has_the_numbers(tmp_path):
    with Trackers(tmp_path) as trackers:
        trackers.log("step", 3, {"loss": 1.5, "lr": {"heads": 0.1}})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"step/loss", "step/lr/heads"}
    assert [(event.step, event.value) for event in events.Scalars("step/loss")] == [(3, 1.5)]


def test_lines_are_strict_json(tmp_path):
    with Trackers(tmp_path) as trackers:
        trackers.log("skip", 0, {"loss": math.nan, "list": [math.inf, "é"]})

    def refuse(name):
        raise AssertionError(name)

    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse)["loss"] == "nan"


def test_resuming_cuts_what_came_after_the_checkpoint(tmp_path):
    with Trackers(tmp_path) as trackers:
        trackers.log("step", 0, {"loss": 1.0})
        kept = trackers.sync()
        trackers.log("step", 1, {"loss": 2.0})
    with Trackers(tmp_path, keep_bytes=kept, step=1) as trackers:
        trackers.log("step", 1, {"loss": 3.0})
    assert [record["loss"] for record in records(tmp_path)] == [1.0, 3.0]


def test_another_process_writes_nothing(tmp_path):
    with Trackers(None) as trackers:
        trackers.log("step", 0, {"loss": 1.0})
        assert trackers.sync() == 0
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        Trackers(tmp_path / "file" / "run")


class FullDisk:
    """A file or a board that nothing more fits into."""

    def write(self, _: str) -> None:
        raise OSError(28, "No space left on device")

    def add_scalar(self, *_: object) -> None:
        raise OSError(28, "No space left on device")

    flush = close = lambda self: self.write("")


def test_a_full_disk_is_one_line_that_names_the_log(tmp_path):
    with Trackers(tmp_path) as trackers:
        trackers._file.close()
        trackers._file = FullDisk()
        with pytest.raises(TrainingError, match=r"metrics\.jsonl: cannot be written \(No space.*--resume"):
            trackers.log("step", 0, {"loss": 1.0})
        with pytest.raises(TrainingError, match="No space"):
            trackers.sync()


def test_a_run_goes_on_without_tensorboard(tmp_path, capsys):
    with Trackers(tmp_path) as trackers:
        trackers._board.close()
        trackers._board = FullDisk()
        for step in range(3):
            trackers.log("step", step, {"loss": 1.0})
        trackers.sync()
    assert [record["step"] for record in records(tmp_path)] == [0, 1, 2]
    assert capsys.readouterr().err.count("TensorBoard's file cannot be written") == 1
