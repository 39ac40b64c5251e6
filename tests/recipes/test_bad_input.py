"""What users get wrong: one clear line on stderr, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import pytest
from tiny_runs import VAL_SCENES, records, train_arguments, write_coco, write_tiny_model


@pytest.fixture
def refused(deixis):
    """Runs a command that must be refused; its one line of error."""

    def run(arguments):
        code, _, err = deixis(arguments)
        errors = [line for line in err.splitlines() if not line.startswith("deixis: warning:")]
        assert code == 2, err
        assert len(errors) == 1, err
        assert errors[0].startswith("deixis: error: ")
        return errors[0]

    return run


@pytest.fixture
def training(tiny_model, tmp_path):
    """`deixis detect train` on a COCO file, and what else a test adds."""

    def arguments(labels, *more):
        return train_arguments(tiny_model, tmp_path / "runs", "--data", str(labels), "--epochs", "1", *more)

    return arguments


def test_a_missing_image_is_named(refused, training, tmp_path):
    labels = write_coco(tmp_path / "data")
    (tmp_path / "data/images/3.jpg").unlink()
    assert "3.jpg" in refused(training(labels))
    assert not (tmp_path / "runs").exists()


def test_a_truncated_jpeg_is_named(refused, training, tmp_path):
    labels = write_coco(tmp_path / "data")
    image = tmp_path / "data/images/3.jpg"
    image.write_bytes(image.read_bytes()[:400])
    assert "3.jpg" in refused(training(labels, "--max-unreadable-images", "0"))


def damaged(folder):
    """Four pictures, the last of which ends in the middle."""
    labels = write_coco(folder, count=4)
    image = folder / "images/3.jpg"
    image.write_bytes(image.read_bytes()[:400])
    return labels


SHORT = ("--val-data", VAL_SCENES, "--batch-size", "1", "--save-interval", "1", "--no-baseline", "--seed", "3")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_truncated_jpeg_met_in_training_keeps_what_was_saved(refused, training, tmp_path, workers):
    arguments = training(damaged(tmp_path / "data"), *SHORT, "--workers", workers, "--max-unreadable-images", "0")
    message = refused(arguments)
    assert "3.jpg" in message
    assert "worker" not in message


def test_a_truncated_jpeg_met_in_training_is_left_out(deixis, training, tmp_path):
    with pytest.warns(UserWarning, match=r"3\.jpg: cannot decode.*takes its place in training \(1 of at most 10\)"):
        code, _, err = deixis(training(damaged(tmp_path / "data"), *SHORT, "--workers", "0", "--no-report"))
    assert code == 0, err
    assert len(records(tmp_path / "runs" / "detector", "step")) == 4


def test_an_unknown_category_id_is_named(refused, training, tmp_path):
    labels = write_coco(tmp_path / "data", categories=[{"id": 9, "name": "star"}])
    message = refused(training(labels))
    assert "labels.json" in message
    assert "category_id" in message


def test_malformed_json_is_named(refused, training, tmp_path):
    labels = write_coco(tmp_path / "data")
    labels.write_text(labels.read_text()[:-20])
    assert "labels.json" in refused(training(labels))


def test_an_empty_data_set_is_refused(refused, training, tmp_path):
    labels = write_coco(tmp_path / "data", images=[], annotations=[])
    assert "labels.json" in refused(training(labels))


def test_validation_data_without_objects_is_refused(refused, training, tmp_path):
    empty = write_coco(tmp_path / "empty", annotations=[])
    message = refused(training(write_coco(tmp_path / "data"), "--val-data", str(empty)))
    assert "no object in the validation data" in message


def test_an_output_that_cannot_be_written_is_named(refused, training, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert "runs" in refused(training(write_coco(tmp_path / "data")))


def test_a_model_that_is_not_there_is_named(refused, tmp_path):
    assert "nowhere" in refused(train_arguments(tmp_path / "nowhere", tmp_path / "runs"))


def test_a_name_that_does_not_fit_a_prompt_is_refused(refused, training, tmp_path):
    names = [{"id": 1, "name": "a very long name " * 80}]
    assert "tokens" in refused(training(write_coco(tmp_path / "data", categories=names)))


def test_an_impossible_option_is_named(refused, training, tmp_path):
    assert "--batch-size: expected 1 or more, got 0" in refused(training(tmp_path / "labels.json", "--batch-size", "0"))


def test_an_unknown_key_in_the_config_is_named(refused, tmp_path):
    (tmp_path / "run.yaml").write_text("epoch: 3\n")
    assert "nearest valid key is 'epochs'" in refused(["detect", "train", "--config", str(tmp_path / "run.yaml")])


def test_a_command_that_is_not_there(refused):
    assert "no command 'detect dance'; did you mean 'detect train'? Or see 'deixis detect --help'" in refused(
        ["detect", "dance"]
    )
    assert "no command 'dance now'; see 'deixis --help'" in refused(["dance", "now"])


def test_a_group_of_commands_alone_says_what_is_in_it(deixis):
    code, out, _ = deixis(["refer"])
    assert code == 0
    assert "refer cycle" in out
    assert "detect train" not in out.split("Examples:")[0]


def test_more_gpus_than_there_are(refused, training, tmp_path):
    assert "--gpus: got 99" in refused(training(tmp_path / "labels.json", "--gpus", "99"))


def test_resume_without_a_checkpoint(refused, tiny_model, tmp_path):
    assert "no checkpoint to resume" in refused(train_arguments(tiny_model, tmp_path / "runs", "--resume"))


@pytest.fixture(scope="module")
def finished_run(tiny_model, tmp_path_factory):
    """The output folder of a run of one step."""
    from deixis.cli.main import main

    output = tmp_path_factory.mktemp("finished")
    with pytest.raises(SystemExit) as stopped:
        main(train_arguments(tiny_model, output, "--max-steps", "1", "--no-report"))
    assert stopped.value.code == 0
    return output


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_not_overwritten_unasked(refused, tiny_model, finished_run):
    before = content(finished_run)
    message = refused(train_arguments(tiny_model, finished_run, "--max-steps", "1", "--no-report"))
    assert "holds a run already" in message
    assert content(finished_run) == before


@pytest.mark.parametrize("changes", [{"seed": 1}, {"width": 64}], ids=["other weights", "another shape"])
def test_a_resume_folder_of_another_model(refused, tmp_path, finished_run, changes):
    before = content(finished_run)
    other = write_tiny_model(tmp_path / "model", **changes)
    message = refused(train_arguments(other, finished_run, "--max-steps", "1", "--no-report", "--resume"))
    assert "belongs to another run" in message
    assert "model was" in message
    assert "model_weights was" in message
    assert content(finished_run) == before


def test_a_resume_with_other_data(refused, tiny_model, finished_run):
    arguments = train_arguments(tiny_model, finished_run, "--max-steps", "1", "--no-report", "--resume")
    message = refused([*arguments, "--data", "scenes:split=demo_train,count=13,seed=1"])
    assert "training_data was 'scenes:split=demo_train,count=12,seed=1" in message


def test_a_resume_with_other_options(refused, tiny_model, finished_run):
    arguments = train_arguments(tiny_model, finished_run, "--max-steps", "1", "--no-report", "--resume")
    assert "learning_rate was 0.0001, now 0.1" in refused([*arguments, "--learning-rate", "0.1"])


def test_predict_without_names_or_images(refused, tmp_path):
    assert "--images" in refused(["detect", "predict", "--names", "star"])
    assert "--names" in refused(["detect", "predict", "--images", str(tmp_path), "--model", "builtin"])


def test_an_unknown_device(refused, tmp_path):
    labels = write_coco(tmp_path / "data")
    asked = ["detect", "eval", "--data", str(labels), "--model", "builtin", "--device", "abacus"]
    assert "--device: got 'abacus'" in refused(asked)
