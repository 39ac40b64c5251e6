"""What a run's log says of its speed."""

from __future__ import annotations

from deixis.reporting.metrics_file import speed_facts


def test_the_speed_of_a_run_is_that_of_its_steps() -> None:
    def step(images: float, share: float, **more: object) -> dict[str, object]:
        return {"kind": "step", "images_per_second": images, "data_wait_share": share, **more}

    slow = {"data_wait_most": {"process": 1, "share": 0.5}}
    records = [step(0.1, 0.9), {"kind": "evaluation"}, step(2, 0.1, **slow), step(4, 0.3, **slow)]
    assert speed_facts(records, 2, 3.6) == {
        "speed": "3 images per second in 2 processes",
        "waiting for data": "20.0 % of a step",
        "cost of 1,000 images": "0.185 device hours, 0.667",
        "waits longest": "process 1, in 100 % of the steps",
    }
    assert "," not in speed_facts(records, 1, 0.0)["cost of 1,000 images"].replace("1,000", "")
    assert speed_facts(records[:1], 1, 0.0) == {}, "a run's first step also starts its workers"
