"""Runs that end in awkward places: nothing that was trained is lost, and what is promised to be saved is."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tiny_runs import environment, finish, records, train_arguments

from deixis.cli.main import main
from deixis.recipes.detect.measure import DetectorMeasure


def run(words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


def wait_for(ready, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ready(), process.communicate()


def test_sigterm_while_the_baseline_is_measured_saves_what_it_promises(tiny_model, tmp_path, monkeypatch, capsys):
    evaluate = DetectorMeasure.__call__

    def stopped(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return evaluate(*arguments)

    arguments = train_arguments(tiny_model, tmp_path, "--epochs", "1", "--no-report")
    monkeypatch.setattr(DetectorMeasure, "__call__", stopped)
    assert run(arguments) == 143
    assert "stopped by SIGTERM after saving" in capsys.readouterr().err
    last = tmp_path / "detector" / "checkpoints" / "last"
    assert json.loads((last / "state.json").read_text(encoding="utf-8"))["progress"]["step"] == 0
    monkeypatch.setattr(DetectorMeasure, "__call__", evaluate)
    assert run([*arguments, "--resume"]) == 0
    kinds = [record["kind"] for record in records(tmp_path / "detector")]
    assert kinds.count("baseline") == 1
    assert kinds.count("step") == 3


def test_a_run_that_fails_in_its_evaluation_has_saved_its_epoch(tiny_model, tmp_path, monkeypatch):
    evaluate, calls = DetectorMeasure.__call__, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:  # the baseline passes
            raise ZeroDivisionError("in the evaluation")
        return evaluate(*arguments)

    arguments = train_arguments(tiny_model, tmp_path, "--epochs", "1", "--no-report")
    monkeypatch.setattr(DetectorMeasure, "__call__", failing)
    with pytest.raises(ZeroDivisionError):
        main([str(word) for word in arguments])
    monkeypatch.setattr(DetectorMeasure, "__call__", evaluate)
    assert run([*arguments, "--resume"]) == 0
    kinds = [record["kind"] for record in records(tmp_path / "detector")]
    assert [kinds.count(kind) for kind in ("step", "evaluation")] == [3, 1]  # no step is done twice


@pytest.mark.slow
def test_a_killed_loading_worker_is_one_line_and_the_run_resumes(tiny_model, tmp_path):
    arguments = train_arguments(tiny_model, tmp_path, "--epochs", "40", "--no-baseline", "--no-report")
    arguments[arguments.index("--workers") + 1] = "1"
    arguments += ["--evaluate-every", "100"]
    command = [sys.executable, "-m", "deixis", *arguments]
    process = subprocess.Popen(command, env=environment(), stdout=-1, stderr=-1, text=True)
    log = tmp_path / "detector" / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 0, process)

    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
        while process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            time.sleep(0.05)
    _, err = finish(process, 2)
    errors = [line for line in err.splitlines() if not line.startswith("deixis: warning")]
    assert len(errors) == 1, err
    assert "a data loading worker died" in errors[0]
    state = json.loads((tmp_path / "detector/checkpoints/last/state.json").read_text(encoding="utf-8"))
    assert state["progress"]["step"] >= 1
