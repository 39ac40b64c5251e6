"""`deixis detect train` and `eval` on more names than a prompt holds, federated as LVIS is."""

from __future__ import annotations

import json

from tiny_runs import records, write_coco

NAMES = ["star", *(f"thing {number}" for number in range(90))]  # spelled by letter: some 900 tokens


def write_lvis(folder):
    """Six images of a star; of the 90 other classes two were looked for in each."""
    labels = write_coco(folder)
    content = json.loads(labels.read_text())
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)]
    for number, row in enumerate(content["images"]):
        row |= {"neg_category_ids": [10 + number, 20 + number], "not_exhaustive_category_ids": [1] * (number == 0)}
    labels.write_text(json.dumps(content))
    return labels


def test_lvis_trains_and_is_measured(deixis, tiny_model, tmp_path):
    labels = write_lvis(tmp_path / "data")
    data = ("--data", labels, "--images", labels.parent / "images")
    validation = ("--val-data", labels, "--val-images", labels.parent / "images")
    code, out, err = deixis(
        [
            *("detect", "train", *data, *validation, "--model", tiny_model, "--output", tmp_path / "detector"),
            *("--gpus", "0", "--epochs", "1", "--prompt-names", "2", "--no-report", "--workers", "0"),
        ]
    )
    assert code == 0, err
    assert "91 names" in out
    (evaluation,) = records(tmp_path / "detector", "evaluation")
    assert evaluation["images"] == 6
    assert all(record["loss"] > 0 for record in records(tmp_path / "detector", "step"))
