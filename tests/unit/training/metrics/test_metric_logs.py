"""metrics.jsonl, and the services that repeat it: TensorBoard, wandb, mlflow."""

import json
import math
import re
import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deixis.errors import TrainingError
from deixis.training.metrics.logs import MetricLogs
from deixis.training.processes import make_accelerator


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_records_are_written_in_order(tmp_path):
    with MetricLogs(tmp_path) as logs:
        logs.log("step", 0, {"loss": 1.5, "lr": {"heads": 0.1}})
        logs.log("evaluation", 1, {"AP": 0.5, "best": True})
    assert records(tmp_path) == [
        {"kind": "step", "step": 0, "loss": 1.5, "lr": {"heads": 0.1}},
        {"kind": "evaluation", "step": 1, "AP": 0.5, "best": True},
    ]


def test_tensorboard_has_the_numbers(tmp_path):
    with MetricLogs(tmp_path) as logs:
        logs.log("step", 3, {"loss": 1.5, "lr": {"heads": 0.1}})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"step/loss", "step/lr/heads"}
    assert [(event.step, event.value) for event in events.Scalars("step/loss")] == [(3, 1.5)]


def test_lines_are_strict_json(tmp_path):
    with MetricLogs(tmp_path) as logs:
        logs.log("skip", 0, {"loss": math.nan, "list": [math.inf, "é"]})

    def refuse(name):
        raise AssertionError(name)

    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse)["loss"] == "nan"


def test_resuming_cuts_what_came_after_the_checkpoint(tmp_path):
    with MetricLogs(tmp_path) as logs:
        logs.log("step", 0, {"loss": 1.0})
        kept = logs.sync()
        logs.log("step", 1, {"loss": 2.0})
    with MetricLogs(tmp_path, (kept, 1)) as logs:
        logs.log("step", 1, {"loss": 3.0})
    assert [record["loss"] for record in records(tmp_path)] == [1.0, 3.0]


def test_another_process_writes_nothing(tmp_path):
    with MetricLogs(None) as logs:
        logs.log("step", 0, {"loss": 1.0})
        assert logs.sync() == 0
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        MetricLogs(tmp_path / "file" / "run")


class FullDisk:
    """A file or a tracker that nothing more fits into."""

    def write(self, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    log = flush = finish = close = write


def test_a_full_disk_is_one_line_that_names_the_log(tmp_path):
    with MetricLogs(tmp_path) as logs:
        logs._file.close()
        logs._file = FullDisk()
        with pytest.raises(TrainingError, match=r"metrics\.jsonl: cannot be written \(No space.*--resume"):
            logs.log("step", 0, {"loss": 1.0})
        with pytest.raises(TrainingError, match="No space"):
            logs.sync()


def test_a_run_continues_without_tensorboard(tmp_path, capsys):
    with MetricLogs(tmp_path) as logs:
        logs._services._trackers["tensorboard"].finish()
        logs._services._trackers["tensorboard"] = FullDisk()
        for step in range(3):
            logs.log("step", step, {"loss": 1.0})
        logs.sync()
    assert [record["step"] for record in records(tmp_path)] == [0, 1, 2]
    assert capsys.readouterr().err.count("tensorboard failed ([Errno 28] No space left on device)") == 1


def test_without_services_the_file_stands_alone(tmp_path):
    with MetricLogs(tmp_path, services=()) as logs:
        logs.log("step", 0, {"loss": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def scalars(folder):
    """{name: [(step, value), ...]} as TensorBoard's own reader has them."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        name: [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def logged_until_a_crash(folder, **more):
    """An epoch of two steps with its evaluation, then a step that the checkpoint does not have; where to resume."""
    with MetricLogs(folder, **more) as logs:
        logs.log("baseline", 0, {"AP": 0.1})
        logs.log("step", 0, {"loss": 3.0})
        logs.log("step", 1, {"loss": 2.0})
        logs.log("evaluation", 2, {"AP": 0.4, "per_class": {"a/b: c": 0.4}})
        kept = logs.sync()
        logs.log("step", 2, {"loss": 1.0})
    return kept, 2


WHOLE = {
    "baseline/AP": [(0, 0.1)],
    "step/loss": [(0, 3.0), (1, 2.0), (2, 1.5), (3, 0.5)],
    "evaluation/AP": [(2, 0.4)],
    "evaluation/per_class/a_b_ c": [(2, 0.4)],
    "test/best/AP": [(4, 0.3)],
    "test/last/AP": [(4, 0.2)],
}


def resume(folder, resume_at, **more):
    time.sleep(1.1)  # TensorBoard orders the files of a folder by their names, which hold the second
    with MetricLogs(folder, resume_at, **more) as logs:
        logs.log("step", 2, {"loss": 1.5})
        logs.log("step", 3, {"loss": 0.5})
        logs.log("test", 4, {"weights": "best", "AP": 0.3})
        logs.log("test", 4, {"weights": "last", "AP": 0.2})


def test_a_resumed_run_is_whole_in_tensorboard(tmp_path):
    """The evaluation at the checkpoint's own step, which the reader discards with what comes after it, is there."""
    resume(tmp_path, logged_until_a_crash(tmp_path))
    assert scalars(tmp_path) == WHOLE


def test_tensorboard_named_first_at_a_resume_has_the_whole_run(tmp_path):
    resume(tmp_path, logged_until_a_crash(tmp_path, services=()))
    assert {name: len(found) for name, found in scalars(tmp_path).items() if "per_class" not in name} == {
        name: len(found) for name, found in WHOLE.items() if "per_class" not in name
    }


class Service(ModuleType):
    """A stand-in for the modules wandb and mlflow: runs with their options and their metrics, kept as they come."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.runs = {}
        self.current, self.offline = None, False
        self.config = SimpleNamespace(update=lambda values, **_: self.kept["options"].update(values))
        self.utils = SimpleNamespace(
            validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
        )

    @property
    def kept(self):
        return self.runs[self.current]

    def begin(self, run_id):
        if self.offline:
            raise ConnectionError("no\nnetwork")
        self.current = run_id or f"run{len(self.runs)}"
        self.runs.setdefault(self.current, {"options": {}, "metrics": {}, "finished": 0})

    def add(self, values, step):
        assert len(values) <= 1000
        for name, value in values.items():
            self.kept["metrics"].setdefault(name, []).append((step, value))

    def end(self):
        self.kept["finished"] += 1

    # as wandb
    def init(self, project, name, id, resume, dir):
        assert (project, resume) == ("deixis", "allow")
        self.begin(id)
        self.kept["name"] = name
        return SimpleNamespace(id=self.current, log=lambda values, step: self.add(values, step), finish=self.end)

    # as mlflow
    def search_experiments(self, filter_string):
        assert filter_string == "name = 'deixis'"
        return [SimpleNamespace(experiment_id=7)]

    def start_run(self, run_id, experiment_id, run_name, **_):
        self.begin(run_id)
        self.kept["name"] = run_name
        return SimpleNamespace(info=SimpleNamespace(run_id=self.current))

    def log_params(self, values):
        assert not values.keys() & self.kept["options"].keys(), "mlflow's options cannot be changed"
        self.kept["options"].update(values)

    def log_metrics(self, values, step):
        assert all(re.fullmatch(r"[\w.\-/ ]+", name) for name in values)
        self.add(values, step)

    end_run = end


@pytest.fixture(params=["wandb", "mlflow"])
def service(request, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "MLFLOW_TAGS", "MLFLOW_NESTED_RUN"):
        monkeypatch.delenv(name, raising=False)
    make_accelerator(cpu=True)
    module = Service(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def test_a_service_has_the_numbers_and_the_options(tmp_path, service):
    options = {"epochs": 3, "data": ["a", "b"], "lora": False, "images": None}
    logged_until_a_crash(tmp_path / "runs" / "mine", services=(service.__name__,), options=options)
    (run,) = service.runs.values()
    assert run["name"] == "runs/mine"
    assert run["options"] == {"epochs": 3, "data": "['a', 'b']", "lora": False, "images": "None"}
    assert run["metrics"]["step/loss"] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert run["metrics"]["evaluation/per_class/a_b_ c"] == [(2, 0.4)]
    assert run["finished"] == 1
    assert not (tmp_path / "runs" / "mine" / "tensorboard").exists()


def test_a_resumed_run_writes_no_step_twice(tmp_path, service):
    """The step after the checkpoint keeps the value that was sent first, and a second resume sends nothing again."""
    more = {"services": ("tensorboard", service.__name__), "options": {"epochs": 3}}
    resume_at = logged_until_a_crash(tmp_path, **more)
    with MetricLogs(tmp_path, resume_at, **more) as logs:
        logs.log("step", 2, {"loss": 1.0})  # and it is killed again
    resume(tmp_path, resume_at, **more)
    resume(tmp_path, resume_at, **more)
    (run,) = service.runs.values()
    assert run["metrics"] == {**WHOLE, "step/loss": [(0, 3.0), (1, 2.0), (2, 1.0), (3, 0.5)]}
    assert scalars(tmp_path)["step/loss"] == WHOLE["step/loss"]


def test_a_service_named_first_at_a_resume_has_the_whole_run(tmp_path, service):
    resume(tmp_path, logged_until_a_crash(tmp_path), services=(service.__name__,), options={"epochs": 3})
    (run,) = service.runs.values()
    assert run["metrics"] == WHOLE


def test_a_new_run_in_the_folder_of_one_that_never_saved_is_a_new_run_there(tmp_path, service):
    for _ in range(2):
        logged_until_a_crash(tmp_path, services=(service.__name__,))
    assert len(service.runs) == 2
    assert all(run["metrics"]["step/loss"] == [(0, 3.0), (1, 2.0), (2, 1.0)] for run in service.runs.values())


def test_many_classes_are_sent_in_portions(tmp_path, service):
    with MetricLogs(tmp_path, services=(service.__name__,)) as logs:
        logs.log("evaluation", 1, {"per_class": {f"{'long' * 90} {i}"[-300:]: 0.5 for i in range(1500)} | {"..": 0.1}})
    (run,) = service.runs.values()
    assert "evaluation/per_class/_" in run["metrics"]
    assert all(len(name) <= 250 for name in run["metrics"])


def test_a_service_that_cannot_be_reached_is_one_line(tmp_path, service):
    service.offline = True
    name = service.__name__
    with pytest.raises(TrainingError, match=rf"^--log-with {name}: cannot be started \(no network\); \S+") as caught:
        MetricLogs(tmp_path, services=(name,))
    assert "\n" not in str(caught.value)


def test_a_run_continues_without_a_service_that_fails(tmp_path, service, capsys, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("gone")

    monkeypatch.setattr(service, "add", fail)
    resume_at = logged_until_a_crash(tmp_path, services=(service.__name__,))
    assert capsys.readouterr().err.count(f"{service.__name__} failed (gone); the run continues without it") == 1
    assert resume_at[0] > 0


def test_a_damaged_state_is_one_line(tmp_path, service):
    resume_at = logged_until_a_crash(tmp_path, services=(service.__name__,))
    (tmp_path / "metric_services.json").write_text("[]")
    with pytest.raises(TrainingError, match=r"metric_services\.json: cannot be read .*remove it"):
        MetricLogs(tmp_path, resume_at, services=(service.__name__,))
