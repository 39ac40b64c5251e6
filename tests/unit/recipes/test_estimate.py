"""`deixis plan`: its formulas at their edges, and where a rule of arithmetic must hold."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deixis.cli.main import main
from deixis.options.plan import PlanOptions
from deixis.recipes.engine import estimate as formulas
from deixis.recipes.engine.estimate import Job, bytes_per_gpu, estimate, seconds_per_picture
from deixis.recipes.plan import advice, job_of, plan

MILLION = Job(1_000_000, price=2.5)


def test_cost_is_hours_of_all_devices():
    found = estimate(replace(MILLION, picture_s=0.36, gpus=100))
    assert found.seconds == pytest.approx(3600)
    assert found.cost == pytest.approx(250)
    assert found.read == pytest.approx(100 / 0.36)
    assert found.network == pytest.approx(found.read * 300e3)


def test_one_picture_keeps_one_device_busy_however_many_there_are():
    for gpus in (0, 1, 64):
        job = Job(1, gpus=gpus)
        assert estimate(job).seconds == seconds_per_picture(job) > 0


def test_no_gpu_computes_on_cores_and_needs_no_gpu_memory():
    found = estimate(Job(10, parameters=0, gpus=0, cores=2))
    # measured: a forward pass on two cores took 1.69 s
    assert found.seconds / 10 == pytest.approx(1.687, rel=0.01)
    assert found.fits
    assert estimate(Job(10, gpus=0, trains=True)).exchanged == 0


def test_a_price_of_nothing_costs_nothing():
    assert estimate(replace(MILLION, price=0.0)).cost == 0


def test_no_objects_are_described_in_no_time():
    some, none = replace(MILLION, objects=5), replace(MILLION, objects=0)
    assert seconds_per_picture(none) < seconds_per_picture(some)
    assert estimate(none).result_bytes == 1_000_000 * formulas.ROW_BYTES


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("parameters", [0, 1e9, 8e9, 26e9])
def test_more_pictures_take_longer_and_twice_the_gpus_half_as_long(parameters, trains):
    job = Job(10_240_000, parameters=parameters, trains=trains, gpus=8, price=1)
    once, twice = estimate(job), estimate(replace(job, gpus=16))
    assert once.seconds == pytest.approx(2 * twice.seconds)
    assert once.cost == pytest.approx(twice.cost)
    assert estimate(replace(job, pictures=100_000_000)).seconds > once.seconds


def test_state_is_sharded_and_what_every_gpu_holds_is_not():
    """Full training of 8 B: 16 bytes a parameter over all GPUs; the rest does not shrink."""
    job = Job(1, trains=True)
    each = {gpus: bytes_per_gpu(replace(job, gpus=gpus)) for gpus in (1, 8, 1024)}
    assert each[1] - each[8] == pytest.approx(formulas.HEADROOM * 16 * 8e9 * 7 / 8)
    assert each[1024] > formulas.HEADROOM * 2 * 2 * 8e9 / 32  # a layer, gathered, and the next
    assert not estimate(replace(job, gpus=1)).fits
    assert estimate(replace(job, gpus=8)).fits
    lora = bytes_per_gpu(replace(job, gpus=1, lora=0.01))
    assert each[1] - lora == pytest.approx(formulas.HEADROOM * 14 * 0.99 * 8e9)


def test_a_large_segmenter_does_not_fit_a_small_gpu_and_the_plan_says_what_helps(capsys):
    plan(PlanOptions(billions=26, gpu_memory_gb=24))
    assert "It does not fit: labelling needs a copy of the model on one GPU" in capsys.readouterr().out
    assert "LoRA" in advice(Job(1, trains=True))
    assert "LoRA" not in advice(Job(1, trains=True, lora=0.01))


def test_one_gpu_exchanges_nothing():
    assert estimate(Job(1, trains=True, gpus=1)).exchanged == 0
    assert estimate(Job(1, trains=True, gpus=2)).exchanged > 0
    assert estimate(Job(1, gpus=2)).exchanged == 0


def test_what_was_measured_by_the_user_replaces_the_estimate():
    assert seconds_per_picture(Job(1, picture_s=0.4)) == 0.4
    assert job_of(PlanOptions(seconds_per_picture=0.4, picture_mb=2)).picture_bytes == 2e6


@pytest.fixture
def deixis(capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["plan", *arguments])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run


def test_the_command_prints_what_a_program_reads(deixis):
    code, out, _ = deixis("--pictures", "7", "--gpus", "1", "--price", "3.6", "--seconds-per-picture", "1", "--json")
    assert code == 0
    assert json.loads(out)["estimate"]["cost"] == pytest.approx(0.007)
    code, out, _ = deixis("--pictures", "100000000", "--billions", "26", "--gpus", "256", "--price", "2.5")
    assert code == 0
    assert "days" in out
    assert "per 1,000 pictures" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--pictures", "0"), "--pictures"),
        (("--gpus", "-1"), "--gpus"),
        (("--utilisation", "0"), "--utilisation"),
        (("--price", "-1"), "--price"),
        (("--epochs", "2"), "--epochs: expected --task train"),
        (("--seconds-per-picture", "0"), "--seconds-per-picture"),
    ],
)
def test_an_impossible_plan_is_one_line(deixis, arguments, line):
    code, out, err = deixis(*arguments)
    assert (code, out) == (2, "")
    assert line in err
    assert len(err.splitlines()) == 1
