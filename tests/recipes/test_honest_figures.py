"""The epoch is chosen on validation data and figures are reported on test data, which chose nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import TRAIN_SCENES, records, train_arguments, write_coco

from deixis.errors import DataError, OptionError
from deixis.models.model_record import read_record
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.detect.data.facts import fingerprint
from deixis.recipes.detect.data.sources import read_training_data
from deixis.recipes.detect.train import finetune
from deixis.recipes.refer.train import read_data
from deixis.recipes.run import repeat

pytestmark = pytest.mark.slow  # whole runs

TEST_SCENES = "scenes:split=demo_val,count=5,seed=9"
REFER_TEST = "scenes:split=refer_seen,count=4,seed=9"


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


def test_test_data_is_reported_and_kept(deixis, tiny_model, tmp_path):
    arguments = train_arguments(tiny_model, tmp_path, "--epochs", "2", "--test-data", TEST_SCENES)
    code, out, err = deixis(arguments)
    assert code == 0, err
    folder = tmp_path / "detector"
    assert "12 training and 4 validation images, 5 test" in out
    assert "on test data (5 images)" in out
    assert "optimistic" not in out
    assert "best epoch" in out
    assert "last epoch 2" in out
    result = json.loads((folder / "result.json").read_text())
    tests = {record["weights"]: record for record in records(folder, "test")}
    assert {"before", "best"} <= tests.keys()
    assert result["reported_on"] == "test"
    assert result["best"]["test"]["AP"] == tests["best"]["AP"]
    assert result["best"]["test"]["images"] == 5
    assert result["best"]["validation"]["images"] == 4
    record = read_record(folder / "teachers/grounding_dino")
    assert record.metrics["test"]["AP"] == tests["best"]["AP"]
    assert record.metrics["validation"]["AP"] == result["best"]["validation"]["AP"]
    chosen = result["best"]["validation"]  # not on test data
    assert record.thresholds == ({"score": chosen["threshold"]} if chosen["F1"] and chosen["boxes"] >= 10 else {})
    assert record.class_thresholds == chosen["class_thresholds"]
    measured = ["detect", "eval", "--model", folder / "teachers/grounding_dino", "--data", TEST_SCENES]
    assert deixis([*measured, "--output", tmp_path / "again"])[0] == 0
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert again["AP"] == pytest.approx(tests["best"]["AP"])
    page = (folder / "report.html").read_text()
    assert "Test data: 5 images" in page
    assert TEST_SCENES in page
    assert "optimistic" not in page


def test_a_resumed_run_reports_the_same(deixis, tiny_model, tmp_path):
    arguments = train_arguments(tiny_model, tmp_path, "--epochs", "2", "--test-data", TEST_SCENES, "--no-report")
    assert deixis(arguments)[0] == 0
    before = records(tmp_path / "detector"), (tmp_path / "detector/result.json").read_text()
    assert deixis([*arguments, "--resume"])[0] == 0
    assert (records(tmp_path / "detector"), (tmp_path / "detector/result.json").read_text()) == before


def test_without_test_data_the_figures_are_called_optimistic(deixis, tiny_model, tmp_path):
    code, out, err = deixis(train_arguments(tiny_model, tmp_path, "--epochs", "1"))
    assert code == 0, err
    assert "no test data" in out  # in the plan
    (line,) = [line for line in out.splitlines() if line.startswith("AP before")]
    assert "optimistic" in line
    assert "optimistic" in (tmp_path / "detector/report.html").read_text()
    assert records(tmp_path / "detector", "test") == []
    assert "test" not in read_record(tmp_path / "detector/teachers/grounding_dino").metrics


def test_a_run_without_a_gain_says_so(deixis, tiny_model, tmp_path):
    code, out, err = deixis(train_arguments(tiny_model, tmp_path, "--epochs", "1", "--learning-rate", "1e-12"))
    assert code == 0, err
    assert "no gain: no epoch was better on validation data than the model before training" in out
    assert "No gain" in (tmp_path / "detector/report.html").read_text()


def test_test_data_without_an_object(tmp_path):
    labels = write_coco(tmp_path, annotations=[])
    options = DetectTrainOptions(data=(TRAIN_SCENES,), test_data=str(labels), test_images=tmp_path / "images")
    with pytest.raises(DataError, match="no object in the test data"):
        read_training_data(options)


@pytest.mark.parametrize(
    ("count", "given", "sizes", "told"),
    [
        (100, {}, (70, 15, 15), "15% for validation, 15% for test"),
        (99, {}, (79, 20, None), "a test set is held out from 100 on"),
        (100, {"test_data": TEST_SCENES}, (80, 20, 5), "reported on test"),
        (100, {"val_data": TEST_SCENES}, (100, 5, None), "no test data"),
        (100, {"val_data": TEST_SCENES, "test_data": TEST_SCENES}, (100, 5, 5), "reported on test"),
    ],
)
def test_what_is_held_out(count, given, sizes, told):
    options = DetectTrainOptions(data=(f"scenes:split=demo_train,count={count},seed=1",), **given)
    data = read_training_data(options)
    assert (len(data.training), len(data.validation), None if data.test is None else len(data.test)) == sizes
    assert told in data.note
    again = read_training_data(replace(options, seed=7))
    assert [fingerprint(part) for part in (data.training, data.validation)] == [
        fingerprint(part) for part in (again.training, again.validation)
    ]


def test_no_image_is_in_two_parts_of_two_data_sets(tmp_path):
    """The same photographs named by two data sets: one as they are, one in another order."""
    first = write_coco(tmp_path / "a", count=60)
    second = write_coco(tmp_path / "b", count=60)
    options = DetectTrainOptions(data=(str(first), str(second)), images=(tmp_path / "a/images", tmp_path / "b/images"))
    data = read_training_data(options)
    names = [{part[i].image.name for i in range(len(part))} for part in (data.training, data.validation, data.test)]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert [len(part) for part in data.training.parts] == [42, 42]


@pytest.mark.slow
def test_the_segmenter_too(deixis, segmenter, tmp_path):
    code, out, err = deixis(refer_arguments(segmenter, tmp_path, "--epochs", "2", "--test-data", REFER_TEST))
    assert code == 0, err
    folder = tmp_path / "segmenter"
    assert "on test data (4 images)" in out
    assert "optimistic" not in out
    tests = {record["weights"]: record for record in records(folder, "test")}
    assert {"before", "best"} <= tests.keys()
    record = read_record(folder / "teachers/sa2va")
    assert record.metrics["test"]["gIoU"] == tests["best"]["gIoU"]
    measured = ["refer", "eval", "--model", folder / "teachers/sa2va", "--data", REFER_TEST, "--max-tiles", "1"]
    assert deixis([*measured, "--output", tmp_path / "again"])[0] == 0
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert again["gIoU"] == pytest.approx(tests["best"]["gIoU"])
    assert REFER_TEST in (folder / "report.html").read_text()


def test_the_segmenter_without_test_data(deixis, segmenter, tmp_path):
    code, out, err = deixis(refer_arguments(segmenter, tmp_path, "--epochs", "1"))
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("gIoU before")]
    assert "optimistic" in line
    assert "optimistic" in (tmp_path / "segmenter/report.html").read_text()


def test_the_segmenter_holds_out_a_test_set_of_many_images():
    data = read_data(ReferTrainOptions(data=("scenes:split=refer_train,count=100,seed=1",)))
    assert (len(data.training), len(data.validation), len(data.test)) == (80, 10, 10)
    data = read_data(ReferTrainOptions(data=("scenes:split=refer_train,count=99,seed=1",)))
    assert (len(data.training), len(data.validation), data.test) == (89, 10, None)


class TestSeeds:
    def test_each_seed_has_its_run_and_the_whole_its_table(self, deixis, tiny_model, tmp_path):
        more = ("--epochs", "1", "--max-steps", "1", "--seeds", "2", "--seed", "3", "--no-report")
        code, out, err = deixis(train_arguments(tiny_model, tmp_path, *more, "--test-data", TEST_SCENES))
        assert code == 0, err
        folder = tmp_path / "detector"
        assert {path.name for path in folder.iterdir()} == {
            *("seed_3", "seed_4", "seeds.json", "seeds.html", "config.yaml", ".deixis-run.json", "teachers"),
            *(["result.json"] if "kept    the average" in out else []),
        }
        assert "kept    " in out
        written = json.loads((folder / "seeds.json").read_text())
        results = [json.loads((folder / f"seed_{seed}/result.json").read_text()) for seed in (3, 4)]
        assert written["seeds"] == {"3": results[0], "4": results[1]}
        values = [result["best"]["test"]["AP"] for result in results]
        assert written["statistics"]["AP best"]["values"] == values
        assert written["reported_on"] == "test"
        assert "standard deviation" in out
        weights = [load_file(folder / f"seed_{seed}/teachers/grounding_dino/model.safetensors") for seed in (3, 4)]
        assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])

    def test_what_was_interrupted_is_resumed(self, deixis, tiny_model, tmp_path, monkeypatch):
        more = ("--epochs", "1", "--max-steps", "1", "--seeds", "2", "--no-report", "--no-baseline")
        arguments = train_arguments(tiny_model, tmp_path, *more)
        real = finetune

        def stopping(options):
            if options.seed == 1:
                raise KeyboardInterrupt
            return real(options)

        monkeypatch.setattr("deixis.recipes.detect.train.finetune", stopping)
        assert deixis(arguments)[0] == 130
        monkeypatch.undo()
        before = (tmp_path / "detector/seed_0/metrics.jsonl").read_text()
        assert deixis(arguments)[0] == 2  # it holds runs already
        code, _, err = deixis([*arguments, "--resume"])
        assert code == 0, err
        assert (tmp_path / "detector/seed_0/metrics.jsonl").read_text() == before
        assert set(json.loads((tmp_path / "detector/seeds.json").read_text())["seeds"]) == {"0", "1"}

    def test_nothing_to_resume(self, deixis, tiny_model, tmp_path):
        code, _, err = deixis(train_arguments(tiny_model, tmp_path, "--seeds", "2", "--resume"))
        assert code == 2
        assert "leave out --resume" in err

    def test_a_dry_run_writes_nothing(self, deixis, tiny_model, tmp_path):
        code, out, err = deixis(train_arguments(tiny_model, tmp_path / "runs", "--seeds", "2", "--dry-run"))
        assert code == 0, err
        assert "seeds 0 to 1" in out
        assert not (tmp_path / "runs").exists()

    def test_a_single_run_is_not_several(self, tiny_model):
        with pytest.raises(OptionError, match="--seeds"):
            finetune(DetectTrainOptions(data=(TRAIN_SCENES,), model=str(tiny_model), seeds=2))
        assert repeat.repeat_run is not None

    def test_the_segmenter_too(self, deixis, segmenter, tmp_path):
        more = ("--epochs", "1", "--max-steps", "1", "--seeds", "2", "--no-report", "--no-baseline")
        code, _, err = deixis(refer_arguments(segmenter, tmp_path, *more))
        assert code == 0, err
        written = json.loads((tmp_path / "segmenter/seeds.json").read_text())
        assert len(written["statistics"]["gIoU best"]["values"]) == 2
        assert any("optimistic" in line for line in written["warnings"])
