"""What is said of a run's figures: on which data, of which epoch, and when they are no gain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deixis.errors import DataError
from deixis.reporting.metrics_file import read_curves, read_outcome
from deixis.reporting.outcome import Measured, Outcome
from deixis.reporting.run_report import outcome_table, outcome_warnings
from deixis.reporting.seeds import seed_table, write_seeds_page


def state(epoch: int, validation: float, test: float | None = None) -> Measured:
    return Measured(epoch, {"AP": validation, "images": 9}, {} if test is None else {"AP": test, "images": 7})


def outcome(before: Measured | None, best: Measured, last: Measured) -> Outcome:
    return Outcome("AP", before, best, last)


def test_test_figures_are_those_reported() -> None:
    found = outcome(state(0, 0.4, 0.3), state(2, 0.7, 0.5), state(5, 0.6, 0.45))
    assert found.lines(["AP"]) == [
        "AP before 0.3000, after 0.5000 (+0.2000) on test data (7 images)",
        "best epoch 2: AP validation 0.7000, test 0.5000",
        "last epoch 5: AP validation 0.6000, test 0.4500",
    ]
    assert not found.as_dict()["optimistic"]
    assert "optimistic" not in " ".join(outcome_warnings(found))


def test_every_epoch_that_was_measured_has_a_row() -> None:
    table = outcome_table(outcome(state(0, 0.4, 0.3), state(2, 0.7, 0.5), state(5, 0.6, 0.45)))
    assert table is not None
    assert table.heads == ["Weights", "Epoch", "AP, validation", "AP, test"]
    assert table.rows == [
        ["Before training", 0, "40.0", "30.0"],
        ["Best", 2, "70.0", "50.0"],
        ["Last", 5, "60.0", "45.0"],
    ]
    alone = outcome_table(outcome(None, state(2, 0.7), state(5, 0.6)))
    assert alone is not None
    assert alone.heads[-1] == "AP, validation"
    assert alone.rows == [["Best", 2, "70.0"], ["Last", 5, "60.0"]]


def test_validation_figures_alone_are_called_optimistic() -> None:
    found = outcome(state(0, 0.4), state(2, 0.7), state(5, 0.6))
    first = found.lines(["AP"])[0]
    assert first.startswith("AP before 0.4000, after 0.7000 (+0.3000) on the validation data that chose the epoch")
    assert "optimistic" in first
    assert "--test-data" in first
    assert found.as_dict()["optimistic"]
    assert "optimistic" in " ".join(outcome_warnings(found))


def test_a_best_epoch_under_the_baseline_is_no_gain() -> None:
    found = outcome(state(0, 0.62), state(3, 0.59), state(4, 0.2))
    assert not found.gained
    (line,) = found.warnings()
    assert line.startswith("no gain: no epoch was better on validation data than the model before training (AP 0.6200)")
    assert "epoch 3" in line
    assert "no epoch was better" in " ".join(outcome_warnings(found))


def test_an_equal_epoch_is_no_gain_either() -> None:
    assert not outcome(state(0, 0.5), state(1, 0.5), state(1, 0.5)).gained


def test_a_last_epoch_under_the_baseline_is_told_beside_the_gain() -> None:
    found = outcome(state(0, 0.6), state(1, 0.63), state(9, 0.4))
    assert found.gained
    assert any("the last epoch fell below the model before training" in line for line in found.lines(["AP"]))


def test_a_gain_that_the_test_data_does_not_show() -> None:
    found = outcome(state(0, 0.6, 0.6), state(1, 0.63, 0.58), state(1, 0.63, 0.58))
    assert any(line.startswith("no gain on test data") for line in found.warnings())


def test_without_a_baseline_there_is_nothing_to_compare_with() -> None:
    found = outcome(None, state(1, 0.6), state(2, 0.1))
    assert found.lines(["AP"])[0].startswith("AP 0.6000 on the validation data")
    assert found.warnings() == []


def test_a_score_that_cannot_be_measured_is_no_gain_and_said_so() -> None:
    missing = Measured(3, {"images": 9}, {})
    found = outcome(None, missing, missing)
    first, last, warning = found.lines(["AP"])
    assert (first, last) == ("best epoch 3: AP validation not measured", "last epoch 3: AP validation not measured")
    assert warning.startswith("AP cannot be measured on this validation data, so it chose no epoch")
    assert "those of epoch 3" in warning
    table = outcome_table(found)
    assert table is not None
    assert table.rows == [["Best", 3, "–"], ["Last", 3, "–"]]
    assert not outcome(state(0, 0.5), missing, missing).gained
    assert outcome(Measured(0, {"images": 9}, {}), state(1, 0.5), state(1, 0.5)).gained
    tested = outcome(state(0, 0.4, 0.3), Measured(2, {"AP": 0.5, "images": 9}, {"images": 7}), state(3, 0.5, 0.4))
    assert tested.lines(["AP"])[0] == "best epoch 2: AP validation 0.5000, test not measured"
    assert tested.warnings() == []


def test_the_log_is_read_back(tmp_path: Path) -> None:
    lines = [
        {"kind": "baseline", "step": 0, "epoch": 0, "AP": 0.1, "images": 9},
        {"kind": "test", "step": 0, "weights": "before", "epoch": -1, "AP": 0.2, "images": 7},
        {"kind": "evaluation", "step": 3, "epoch": 0, "best": True, "AP": 0.5, "images": 9, "seconds": 1.0},
        {"kind": "evaluation", "step": 6, "epoch": 1, "best": False, "AP": 0.4, "images": 9, "seconds": 1.0},
        {"kind": "test", "step": 6, "weights": "best", "epoch": 0, "AP": 0.45, "images": 7},
        {"kind": "test", "step": 6, "weights": "last", "epoch": 1, "AP": 0.35, "images": 7},
    ]
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_outcome(log, "AP") == outcome(state(0, 0.1, 0.2), state(1, 0.5, 0.45), state(2, 0.4, 0.35))
    log.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    assert read_outcome(log, "AP") is None


@pytest.mark.parametrize(
    "line",
    [
        *("[]", "3", "null", '"x"', "{}", '{"kind": "evaluation"}', '{"kind": "evaluation", "step": 3, "AP": 1}'),
        *('{"kind": "baseline", "step": 3, "losses": 7}', '{"kind": "test", "step": 3, "weights": []}', "\xff"),
        '{"kind": "evaluation", "step": 3, "epoch": null, "best": true}',
    ],
)
def test_a_log_with_other_values_is_one_line(tmp_path: Path, line: str) -> None:
    log, sound = tmp_path / "metrics.jsonl", json.dumps({"kind": "evaluation", "step": 3, "epoch": 0, "best": True})
    log.write_bytes(f"{line}\n{sound}\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"metrics\.jsonl") as caught:
        read_curves(log), read_outcome(log, "AP")
    assert "\n" not in str(caught.value)


def test_figures_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    record = {"kind": "evaluation", "step": 3, "epoch": 0, "best": True, "AP": "nan", "chat_loss": "inf", "images": 9}
    log.write_text(json.dumps(record) + "\n")
    found = read_outcome(log, "AP")
    assert found is not None
    assert found.best.validation == {"images": 9}


def test_the_best_epoch_that_is_the_last_is_measured_once(tmp_path: Path) -> None:
    lines = [
        {"kind": "evaluation", "step": 3, "epoch": 0, "best": True, "AP": 0.5, "images": 9, "seconds": 1.0},
        {"kind": "test", "step": 3, "weights": "best", "epoch": 0, "AP": 0.45, "images": 7},
    ]
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_outcome(log, "AP")
    assert found is not None
    assert found.best == found.last == state(1, 0.5, 0.45)


def test_mean_and_spread_of_seeds(tmp_path: Path) -> None:
    runs = {
        4: outcome(state(0, 0.1, 0.2), state(2, 0.7, 0.5), state(5, 0.6, 0.4)),
        5: outcome(state(0, 0.1, 0.2), state(3, 0.8, 0.6), state(5, 0.8, 0.5)),
        6: outcome(state(0, 0.1, 0.2), state(1, 0.05, 0.1), state(5, 0.8, 0.5)),
    }
    table = seed_table(runs, ["AP", "absent"])
    assert table.heads == ("seed", "best epoch", "AP before", "AP best", "AP last", "AP gain")
    assert [row[0] for row in table.rows] == ["4", "5", "6"]
    figures = table.statistics["AP best"]
    assert figures["mean"] == pytest.approx(0.4)
    assert figures["std"] == pytest.approx(0.2645751)  # of a sample
    assert (figures["min"], figures["max"]) == (0.1, 0.6)
    assert table.statistics["AP gain"]["mean"] == pytest.approx(0.2)
    assert any(line.startswith("seed 6: no gain") for line in table.warnings)
    write_seeds_page(tmp_path / "seeds.html", "<run>", table)
    page = (tmp_path / "seeds.html").read_text()
    assert "&lt;run&gt;" in page
    assert "0.4000" in page


def test_seeds_measured_on_validation_data_are_optimistic() -> None:
    table = seed_table({0: outcome(None, state(1, 0.5), state(1, 0.5))}, ["AP"])
    assert any("optimistic" in line for line in table.warnings)
    assert table.heads == ("seed", "best epoch", "AP best", "AP last")
    assert table.statistics["AP best"]["std"] == 0
