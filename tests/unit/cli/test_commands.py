"""The table of commands: every record is whole, and a record is all that a command needs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import pytest

from deixis.cli.arguments import parse
from deixis.cli.command import Command, imported
from deixis.cli.commands import COMMANDS
from deixis.cli.main import main
from deixis.errors import OptionError
from deixis.options.fields import options_of
from deixis.options.marks import RARE, Also, Required, Share
from deixis.options.old_names import knows_old_names
from deixis.options.types import Options
from deixis.options.yaml_files import write_options

PRESETS = Path(str(files("deixis.recipes"))) / "configs"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_record_is_whole(command: Command) -> None:
    inspect.signature(imported(command.run)).bind(command.options())
    known = options_of(command.options)
    assert all(option.help for option in known.values())
    assert not command.bare or command.bare in known
    assert f"  deixis {command.words}" in command.examples
    assert len(command.help) < 80
    if command.repeats:
        assert {"gpus", "seeds"} <= set(known)
        inspect.signature(imported(command.repeats.check_inputs)).bind(command.options())


def ending(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(words)
    told = capsys.readouterr()
    return int(caught.value.code or 0), told.out, told.err


@dataclass(frozen=True)
class GreetOptions(Options):
    """Greet somebody."""

    name: Annotated[str, Required("Ada")] = ""
    """Whom to greet."""
    times: int = 1
    """How often."""
    loud: Annotated[bool, RARE] = False
    """In capitals."""

    def check(self) -> None:
        super().check()
        CHECKED.append(self.name)


CHECKED: list[str] = []


def greet(options: GreetOptions) -> int:
    """What the record below runs."""
    text = f"hello {options.name}, " * options.times
    print(text.upper() if options.loud else text)
    return 1 if options.times > 1 else 0


@pytest.fixture
def with_greet(monkeypatch: pytest.MonkeyPatch) -> None:
    """One record in the table: the whole of what CONTRIBUTING.md says about adding a command."""
    record = Command("greet", GreetOptions, f"{__name__}:greet", "greet somebody", "deixis greet Ada", bare="name")
    monkeypatch.setitem(COMMANDS, "greet", record)
    CHECKED.clear()


@pytest.mark.usefixtures("with_greet")
class TestARecordIsACommand:
    def test_it_is_listed(self, capsys):
        code, out, _ = ending(["--help"], capsys)
        assert code == 0
        assert ["greet", "greet", "somebody"] in [line.split() for line in out.splitlines()]

    def test_it_runs_with_flags_a_file_and_a_bare_word(self, capsys, tmp_path):
        file = tmp_path / "greet.yaml"
        file.write_text("name: Grace\ntimes: 2\n")
        assert ending(["greet", "Ada"], capsys) == (0, "hello Ada, \n", "")
        assert ending(["greet", "--config", str(file)], capsys) == (1, "hello Grace, hello Grace, \n", "")
        assert ending(["greet", "--config", str(file), "--times=1", "--loud"], capsys) == (0, "HELLO GRACE, \n", "")
        assert ending(["greet", "--config", str(file), "--times", "1", "--no-loud"], capsys)[1] == "hello Grace, \n"

    def test_its_options_are_checked_once(self, capsys):
        ending(["greet", "Ada"], capsys)
        assert CHECKED == ["Ada"]

    def test_its_help(self, capsys):
        _, short, _ = ending(["greet", "--help"], capsys)
        _, long, _ = ending(["greet", "--help-all"], capsys)
        assert "Whom to greet. (required)" in short
        assert "How often. (default: 1)" in short
        assert "--loud" not in short
        assert "rarely used options too (1)" in short
        assert "--loud" in long

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "--name is required, as in --name Ada"),
            (["--nam", "Ada"], "there is no option --nam in 'deixis greet'; did you mean --name? See"),
            (["Ada", "--times", "ten"], "--times: expected an integer, got 'ten'"),
            (["Ada", "--times"], "--times: expected an integer, got nothing"),
            (["Ada", "--times", "1", "2"], "unexpected '2' after --times 1; see 'deixis greet --help'"),
            (["Ada", "Grace"], "unexpected 'Grace' after --name Ada; see 'deixis greet --help'"),
            (["Ada", "--loud=maybe"], "--loud: expected true or false, got 'maybe'"),
            (["-x"], "unexpected '-x': options start with '--'; see 'deixis greet --help'"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, words, message, capsys):
        code, out, err = ending(["greet", *words], capsys)
        assert (code, out) == (2, "")
        assert err.startswith(f"deixis: error: {message}")
        assert err.count("\n") == 1


@knows_old_names
@dataclass(frozen=True)
class PausingOptions(GreetOptions):
    """Greet somebody, slowly."""

    pause: Annotated[Share, Also("wait")] = 0.5
    """Share of the time between two greetings."""


def test_a_field_is_an_option(tmp_path, capsys, monkeypatch):
    """One field is a flag, a YAML key, a line of config.yaml and of the help, an old name, and a range."""
    monkeypatch.setenv("COLUMNS", "120")  # the help is as wide as the terminal
    file = tmp_path / "greet.yaml"
    write_options(PausingOptions(name="Ada", pause=0.25), file)
    assert "pause: 0.25" in file.read_text()
    assert parse(PausingOptions, ["--config", str(file)], "greet").pause == 0.25
    assert parse(PausingOptions, ["--config", str(file), "--pause", "1"], "greet").pause == 1.0
    assert parse(PausingOptions, ["--wait=0"], "greet").pause == PausingOptions(wait=0).pause == 0.0
    file.write_text("name: Ada\nwait: 0.75\n")
    assert parse(PausingOptions, ["--config", str(file)], "greet").pause == 0.75
    with pytest.raises(OptionError, match=r"^--pause: expected a number from 0 to 1, got 2.0$"):
        parse(PausingOptions, ["--name", "Ada", "--pause", "2"], "greet").check()
    with pytest.raises(SystemExit):
        parse(PausingOptions, ["--help"], "greet")
    out = capsys.readouterr().out
    assert "--pause X                     Share of the time between two greetings. (default: 0.5)" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modle", "info"], "there is no command 'modle info'; did you mean 'model info'? Or see 'deixis --help'"),
        (["data", "chekc"], "there is no command 'data chekc'; did you mean 'data check'? Or see 'deixis data --help'"),
        (["fly"], "there is no command 'fly'; see 'deixis --help'"),
        (["fly", "--high", "up"], "there is no command 'fly'; see 'deixis --help'"),
        (
            ["data", "chekc", "--data", "a.json"],
            "there is no command 'data chekc'; did you mean 'data check'? Or see 'deixis data --help'",
        ),
        (
            ["model", "edit", "ad", "x"],
            "there is no command 'model edit ad'; did you mean 'model edit add'? Or see 'deixis model --help'",
        ),
    ],
)
def test_an_unknown_command(words, message, capsys):
    assert ending(words, capsys) == (2, "", f"deixis: error: {message}\n")


def test_a_group_lists_its_commands(capsys):
    code, out, _ = ending(["data"], capsys)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("  data ")] == [
        "check",
        "convert",
        "split",
        "slice",
        "shard",
        "merge",
        "diff",
        "stats",
    ]


def test_presets_are_listed_and_printed(capsys):
    code, out, _ = ending(["config", "list"], capsys)
    assert code == 0
    names = {line.split()[0] for line in out.splitlines()[:-2]}
    assert names == {path.stem for path in PRESETS.glob("*.yaml")}
    for name in names:
        _, shown, _ = ending(["config", "show", name], capsys)
        assert shown == (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [["config", "show", "none"], ["detect", "train", "--config", "none"]])
def test_a_preset_that_does_not_exist_lists_them(words, capsys):
    code, _, err = ending(words, capsys)
    assert code == 2
    assert "detector_finetune, detector_lora, segmenter_finetune" in err
