"""Options: flags, YAML, checks."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import get_args

import pytest

from deixis.cli.arguments import parse
from deixis.cli.commands import COMMANDS
from deixis.cli.main import main
from deixis.errors import OptionError
from deixis.options.detect_eval import DetectEvalOptions
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.detect_train import DetectRun, DetectTrainOptions
from deixis.options.fields import options_of
from deixis.options.groups import Loop, Optimiser, groups_of
from deixis.options.marks import Range, Removed
from deixis.options.refer_train import ReferTrainOptions
from deixis.options.types import bare, marks_of
from deixis.options.yaml_files import option_names, options_from, plain_values, read_options, write_options

KINDS = [DetectTrainOptions, DetectEvalOptions, DetectPredictOptions]
CONFIGS = [path for path in files("deixis.recipes").joinpath("configs").iterdir() if path.name.endswith(".yaml")]


def yaml_file(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_builds_and_opens_with_its_launch_line(config):
    head = [line for line in config.read_text().splitlines() if line.startswith("#")]
    (launch,) = [line.removeprefix("#   deixis ").split() for line in head if "deixis" in line]
    kind = COMMANDS[" ".join(launch[:2])].options
    assert launch[2:4] == ["--config", config.name.removesuffix(".yaml")]
    parse(kind, launch[2:], " ".join(launch[:2])).check()
    assert any("Hardware:" in line for line in head)


def test_configs_are_there():
    assert {config.name for config in CONFIGS} >= {
        "detector_finetune.yaml",
        "detector_lora.yaml",
        "segmenter_finetune.yaml",
    }


def test_an_unknown_key_names_the_nearest(tmp_path):
    path = yaml_file(tmp_path, "data: x\nlearning_rat: 1e-4\n")
    with pytest.raises(OptionError, match=r"run.yaml: unknown key 'learning_rat'; .* 'learning_rate'"):
        read_options(DetectTrainOptions, path)


def test_a_flag_beats_the_file(tmp_path):
    path = yaml_file(tmp_path, "data: x\nepochs: 3\nbatch_size: 2\nlora: true\n")
    options = parse(DetectTrainOptions, ["--config", str(path), "--epochs", "5", "--no-lora"], "detect train", "")
    assert (options.data, options.epochs, options.batch_size, options.lora) == (("x",), 5, 2, False)


def test_exponents_without_a_point_are_numbers(tmp_path):
    path = yaml_file(tmp_path, "learning_rate: 1e-4\nweight_decay: 0\n")
    options = read_options(DetectTrainOptions, path)
    assert (options.learning_rate, options.weight_decay) == (1e-4, 0.0)


def test_written_options_read_back_the_same(tmp_path):
    options = DetectTrainOptions(
        data=("x", "y"),
        images=(Path("photos"),),
        data_weights=(2.0, 0.5),
        freeze=("text",),
        image_size=(64, 96),
        epochs=3,
    )
    write_options(options, tmp_path / "config.yaml")
    assert read_options(DetectTrainOptions, tmp_path / "config.yaml") == options


@pytest.mark.parametrize("kind", [DetectTrainOptions, ReferTrainOptions])
def test_services_of_metrics(kind, monkeypatch):
    """A missing package is one line with the command that installs it, before any data is read."""
    installed = {"tensorboard", "mlflow"}
    monkeypatch.setattr("deixis.options.groups.find_spec", lambda name: name if name in installed else None)
    given = {"data": ("x",), "model": "a/b"}
    assert kind(**given).log_services == ("tensorboard",)
    both = kind(**given, log_with=("mlflow", "tensorboard", "mlflow"))
    both.check()
    assert both.log_services == ("mlflow", "tensorboard")
    none = kind(**given, log_with=("none",))
    none.check()
    assert none.log_services == ()
    with pytest.raises(OptionError, match=r"^--log-with wandb: the package is not installed; pip install wandb$"):
        kind(**given, log_with=("tensorboard", "wandb")).check()


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_survive_the_round_trip(kind):
    assert options_from(kind, plain_values(kind()), "test") == kind()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: many", "epochs: expected an integer, got 'many'"),
        ("epochs: true", "epochs: expected an integer, got True"),
        ("epochs: 1.5", "epochs: expected an integer, got 1.5"),
        ("lora: 1", "lora: expected true or false, got 1"),
        ("recipe: huge", "recipe: expected one of auto, few, small, medium, large, got 'huge'"),
        ("image_size: [800]", "image_size: expected 2 integers, got 800"),
        ("learning_rate: fast", "learning_rate: expected a number, got 'fast'"),
        ("data: 3", "data: expected text, got 3"),
        ("- data", "expected lines of 'key: value', got a list"),
        ("data: [", "cannot be read as YAML"),
    ],
)
def test_wrong_values_in_a_file_say_what_was_wanted(tmp_path, text, message):
    with pytest.raises(OptionError) as caught:
        read_options(DetectTrainOptions, yaml_file(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_all_defaults(tmp_path):
    assert read_options(DetectTrainOptions, yaml_file(tmp_path, "")) == DetectTrainOptions()


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(OptionError, match=r"absent.yaml: cannot be read"):
        read_options(DetectTrainOptions, tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "changes",
    [
        {"data_weights": (1.0, 2.0)},
        {"data_weights": (0.0,)},
        {"images": (Path("a"), Path("b"))},
        {"epoch_length": 0},
        {"denoising_queries": -1},
        {"ema_decay": -0.1},
        {"epochs": 0},
        {"max_steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"clip_norm": 0.0},
        {"ema_decay": 1.0},
        {"flip_probability": 1.5},
        {"backbone_lr_factor": -0.1},
        {"weight_giou": -1.0},
        {"image_size": (96, 64)},
        {"freeze": ("wings",)},
        {"lora_targets": ()},
        {"lora_targets": ("wings",)},
        {"experiment_name": "../elsewhere"},
        {"experiment_name": ".."},
        {"resume": True, "overwrite": True},
        {"gpus": -1},
        {"seed": -1},
        {"log_with": ()},
        {"log_with": ("none", "wandb")},
        {"log_with": ("comet",)},
    ],
    ids=lambda changes: str(changes),
)
def test_impossible_values_are_named(changes):
    flag = f"--{next(iter(changes)).replace('_', '-')}"
    with pytest.raises(
        OptionError, match=f"^{flag}(: expected .*, got| is required, as in {flag} |, .* exclude each other)"
    ):
        DetectTrainOptions(**{"data": ("x",), **changes}).check()


@pytest.mark.parametrize("data", [(), ("",)])
@pytest.mark.parametrize("kind", [DetectTrainOptions, ReferTrainOptions])
def test_data_is_required(kind, data):
    with pytest.raises(OptionError, match=r"^--data is required, as in --data labels\.json"):
        kind(data=data, model="builtin").check()


def test_options_that_are_gone_are_named_and_old_files_are_read(tmp_path):
    gone = "hard_negatives: 0.0\nshuffle_names: true\ndenoising_label_noise: 0.25\ndenoising_box_noise: 1.0\n"
    assert read_options(DetectTrainOptions, yaml_file(tmp_path, gone)) == DetectTrainOptions()
    assert read_options(ReferTrainOptions, yaml_file(tmp_path, "encoder_lr_factor: 1.0")) == ReferTrainOptions()
    with pytest.raises(OptionError, match="--hard-negatives was removed; the other names of a prompt are drawn"):
        parse(DetectTrainOptions, ["--hard-negatives", "0.5"], "x", "")
    with pytest.raises(OptionError, match="--shard-model divides segmenters, not detectors; detectors fit on each"):
        parse(DetectTrainOptions, ["--shard-model"], "x", "")
    with pytest.raises(OptionError, match="--shuffle-names was removed"):
        parse(DetectTrainOptions, ["--no-shuffle-names"], "x", "")


def test_good_values_pass():
    DetectTrainOptions(data=("x",), model="a/b", image_size=(64, 64), freeze=("text",), resume=True).check()
    DetectEvalOptions(data="x", model="a/b").check()
    DetectPredictOptions(images=(Path("a.jpg"),), names=("cat",), model="a/b").check()


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_has_a_flag_and_a_help(kind, capsys):
    for words in (["--help"], ["--data", "x", "-h"], ["--help-all"]):
        with pytest.raises(SystemExit) as caught:
            parse(kind, words, "detect", "Examples:\n  deixis something")
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert "deixis something" in text
        for option in options_of(kind).values():
            assert option.help
            shown = re.search(rf"^  {option.flag}[ ,\n]", text, re.MULTILINE) is not None
            assert shown == (words == ["--help-all"] or not option.is_rare), option.flag


@pytest.mark.parametrize("words", ["detect train", "refer train"])
def test_the_help_of_a_trainer_fits_three_screens(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        main([*words.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 3 * 40
    assert max(map(len, lines)) <= 120
    assert "--help-all" in lines[-1]
    assert "Low-rank adapters (LoRA), saved in PEFT's format" in lines  # a title of a group


WRONG = {
    "a slip": (DetectTrainOptions, ["--epoch", "3"], "no option --epoch in .*; did you mean --epochs?"),
    "with a value": (DetectTrainOptions, ["--epoch=3"], "did you mean --epochs?"),
    "of another tool": (DetectPredictOptions, ["--source", "x"], "no option --source .*; did you mean --images?"),
    "names": (DetectPredictOptions, ["--classes", "a", "b"], "no option --classes .*; did you mean --names?"),
    "confidence": (DetectPredictOptions, ["--conf", "0.3"], "did you mean --threshold?"),
    "of nothing": (DetectTrainOptions, ["--zzzzzz"], "no option --zzzzzz in 'deixis x'; see 'deixis x --help'"),
    "a word": (DetectTrainOptions, ["--epochs", "ten"], "--epochs: expected an integer, got 'ten'"),
    "one of two": (DetectTrainOptions, ["--image-size", "3"], "--image-size: expected 2 integers, got '3'"),
    "a choice": (DetectTrainOptions, ["--precision", "fp8"], "--precision: expected one of fp32, bf16, got 'fp8'"),
    "a share": (DetectTrainOptions, ["--flip-probability", "x"], "--flip-probability: expected a number, got 'x'"),
    "stray": (DetectTrainOptions, ["stray"], "stray"),
    "nothing": (DetectTrainOptions, ["--epochs"], "--epochs"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_wrong_words_are_one_line(case, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    kind, words, message = WRONG[case]
    with pytest.raises(OptionError, match=message) as caught:
        parse(kind, words, "x", "")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    told = capsys.readouterr()
    assert told.out + told.err == ""
    assert os.environ["COLUMNS"] == columns


def test_an_unknown_flag_exits_with_2():
    with pytest.raises(SystemExit) as caught:
        main(["detect", "train", "--epoch", "3"])
    assert caught.value.code == 2


def test_help_imports_no_torch():
    program = (
        "import sys\nfrom deixis.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    for words in (["--help"], ["detect", "--help"], ["detect", "train", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_a_single_value_in_a_file_is_a_list_of_one(tmp_path):
    options = read_options(DetectTrainOptions, yaml_file(tmp_path, "data: labels.json\nimages: photos\nfreeze: text"))
    assert (options.data, options.images, options.freeze) == (("labels.json",), (Path("photos"),), ("text",))


@pytest.mark.parametrize(
    ("old", "new", "value"), [("workers", "num_workers", 1), ("lora_rank", "lora_r", 3)], ids=["workers", "lora_rank"]
)
@pytest.mark.parametrize("kind", [DetectTrainOptions, ReferTrainOptions])
def test_earlier_names_still_work(kind, old, new, value, tmp_path):
    flag = f"--{old.replace('_', '-')}"
    assert getattr(kind(**{old: value}), new) == value
    assert getattr(parse(kind, [flag, str(value)], "x", ""), new) == value
    assert getattr(parse(kind, [f"{flag}={value}"], "x", ""), new) == value
    assert getattr(read_options(kind, yaml_file(tmp_path, f"{old}: {value}\n")), new) == value


@pytest.mark.parametrize("kind", [DetectTrainOptions, ReferTrainOptions])
def test_every_option_is_in_one_group_with_help_and_range(kind):
    groups = groups_of(kind)
    names = [field.name for group in groups for field in fields(group)]
    assert len(groups) >= 8
    assert sorted(names) == sorted({field.name for field in fields(kind)})
    assert option_names(kind) == names
    for option in options_of(kind).values():
        assert option.help
        assert option.title
        numeric = bare(option.hint) in (int, float) or {int, float} & set(map(bare, get_args(bare(option.hint))))
        ranged = any(isinstance(mark, Range) for mark in marks_of(option.hint))
        assert ranged or not numeric or option.name == "image_size", option.name


def test_a_group_holds_its_own_options_alone():
    options = DetectTrainOptions(data="x", epochs=3, output=Path("a"), experiment_name="b")
    loop, run = options.group(Loop), options.group(DetectRun)
    assert (type(loop), loop.epochs, loop.batch_size) == (Loop, 3, 4)
    assert not hasattr(loop, "data")
    assert run.folder == Path("a/b")
    assert DetectTrainOptions(data="x").group(DetectRun).folder == Path("runs/detector")


def test_a_removed_option_says_what_replaced_it(tmp_path, monkeypatch):
    monkeypatch.setattr(DetectTrainOptions, "REMOVED", {"wings": Removed(2, "use --epochs")}, raising=False)
    assert read_options(DetectTrainOptions, yaml_file(tmp_path, "wings: 2\nepochs: 3")).epochs == 3
    message = "wings was removed; use --epochs"
    with pytest.raises(OptionError, match=message):
        read_options(DetectTrainOptions, yaml_file(tmp_path, "wings: 4"))
    with pytest.raises(OptionError, match=message):
        parse(DetectTrainOptions, ["--wings", "4"], "x", "")
    with pytest.raises(OptionError, match=message):
        DetectTrainOptions(wings=4)


def test_segmenters_take_steps_or_a_share_of_warm_up():
    assert ReferTrainOptions().group(Optimiser).warmup(200) == 10
    assert ReferTrainOptions(warmup_share=0.5).group(Optimiser).warmup(200) == 100
    assert ReferTrainOptions(warmup_steps=7).group(Optimiser).warmup(200) == 7
    assert DetectTrainOptions().group(Optimiser).warmup(40_000) == 500
    assert DetectTrainOptions(warmup_share=0.5).group(Optimiser).warmup(200) == 100


@pytest.mark.parametrize("place", ["run", "run/checkpoints/last"])
def test_resume_may_name_a_run_in_yaml_too(tmp_path, place):
    (tmp_path / "run/checkpoints/last").mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text("data: [a.json]\nepochs: 3\nbatch_size: 7\noverwrite: true\n")
    file = tmp_path / "mine.yaml"
    file.write_text(f"resume: {tmp_path / place}\nepochs: 5\n")
    options = read_options(DetectTrainOptions, file)
    assert (options.resume, options.overwrite, options.folder) == (True, False, tmp_path / "run")
    assert (options.data, options.epochs, options.batch_size) == (("a.json",), 5, 7)


def test_resume_of_no_run_in_yaml_is_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("resume: nowhere\n")
    with pytest.raises(OptionError, match=r"mine\.yaml: resume: nowhere is not a folder; give a run's folder"):
        read_options(DetectTrainOptions, tmp_path / "mine.yaml")
