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


def test_the_share_of_the_peak_is_that_of_one_process() -> None:
    steps = [{"kind": "step", "images_per_second": 4.0, "data_wait_share": 0.1} for _ in range(3)]
    counted = [steps[0] | {"gflop_per_image": 500.0}, *steps[1:]]  # 500 GFLOP x 4 / 2 processes: 1 TFLOP/s
    assert speed_facts(counted, 2, 0.0, peak_tflops=4.0)["arithmetic"] == "1 TFLOP/s per process, MFU 25 %"
    assert "HFU 25 %" in speed_facts(counted, 2, 0.0, peak_tflops=4.0, recomputes=True)["arithmetic"]
    assert speed_facts(counted, 2, 0.0)["arithmetic"] == "1 TFLOP/s per process"
    assert "arithmetic" not in speed_facts(steps, 2, 0.0, peak_tflops=4.0)
