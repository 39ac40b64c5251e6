"""A damaged set is refused by training; the copy that `deixis data check --fix` writes trains."""

from __future__ import annotations

import math

from damaged_sets import DamagedSet
from tiny_runs import records, train_arguments, write_tiny_model


def test_a_fixed_copy_trains(shared_data, tmp_path, deixis):
    data = DamagedSet(shared_data, tmp_path / "set")
    names = {word for row in data.content["categories"] for word in row["name"].split()}
    data.damage()
    data.write()
    model = write_tiny_model(tmp_path / "model", words=sorted(names))
    fixed = tmp_path / "fixed"

    def train(labels):
        both = ("--data", labels, "--val-data", data.val_labels, "--max-steps", "1", "--image-size", "48", "64")
        return deixis(train_arguments(model, tmp_path / "runs", *both, "--batch-size", "2", "--no-baseline"))

    code, _, err = train(data.labels)
    assert code == 2
    assert err.startswith("deixis: error: ")
    code, _, err = deixis(["data", "check", "--data", data.labels, "--model", model, "--fix", fixed])
    assert code == 0, err
    code, _, err = train(fixed)
    assert code == 0, err
    steps = records(tmp_path / "runs" / "detector", "step")
    assert len(steps) == 1
    assert math.isfinite(steps[0]["loss"])
