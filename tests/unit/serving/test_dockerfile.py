"""The Dockerfile's steps name what there is, its command is one that deixis takes; all is done where asked for."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from deixis.options.serve import ServeOptions

PROJECT = Path(__file__).parents[3]
sys.path.insert(0, str(PROJECT / "scripts"))
scripts = importlib.import_module("dockerfile_steps")
Image, Step, steps_of = scripts.Image, scripts.Step, scripts.steps_of
STEPS = steps_of((PROJECT / "Dockerfile").read_text())


def texts(name: str) -> list[str]:
    return [step.text for step in STEPS if step.name == name]


def test_steps_are_read_with_continued_lines_and_without_comments() -> None:
    text = '# a\nFROM x\nRUN a \\\n  b\n# c\nCMD ["d e", "f"]\n'
    assert steps_of(text) == [Step("FROM", "x"), Step("RUN", "a    b"), Step("CMD", '["d e", "f"]')]
    assert steps_of(text)[2].words == ["d e", "f"]


def test_steps_up_to_the_install_are_done_and_copy_what_there_is(tmp_path: Path) -> None:
    image = Image(tmp_path, Path(sys.executable).parent)
    install = next(step for step in STEPS if step.text.startswith("pip install"))
    for step in STEPS:
        if step is not install:
            image.do(step)
    assert (tmp_path / "src" / "src" / "deixis" / "serving" / "app.py").is_file()
    assert (tmp_path / "jobs").is_dir()
    project = tomllib.loads((tmp_path / "src" / "pyproject.toml").read_text())["project"]
    for file in (project["readme"], *project["license-files"], "constraints.txt"):
        assert (tmp_path / "src" / file).is_file()
    extras = re.findall(r'"\.\[(.+)\]"', install.text)[0].split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    python = re.findall(r"python:(\d+\.\d+)", texts("FROM")[0])[0]
    assert f"{python}.0" in SpecifierSet(project["requires-python"])


def test_its_command_is_one_that_deixis_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from deixis.cli.main import run

    seen: list[ServeOptions] = []
    monkeypatch.setattr("deixis.recipes.serve.serve", seen.append)
    monkeypatch.setenv("DEIXIS_TOKEN", "sesame")
    entry = next(step for step in STEPS if step.name == "ENTRYPOINT").words
    command = next(step for step in STEPS if step.name == "CMD").words
    assert entry[0] == "deixis"
    run([*entry[1:], *command])
    assert (seen[0].host, str(seen[0].port) in texts("EXPOSE")[0]) == ("0.0.0.0", True)
    assert f":{seen[0].port}/ready" in texts("HEALTHCHECK")[0]
    program = shlex.split(texts("HEALTHCHECK")[0].partition("CMD ")[2])
    compile(program[program.index("-c") + 1], "health check", "exec")


def test_a_step_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no way to do SHELL"):
        Image(tmp_path, tmp_path).do(Step("SHELL", "bash"))


@pytest.mark.slow
@pytest.mark.skipif(
    "DEIXIS_DOCKERFILE" not in os.environ, reason="installs deixis; set DEIXIS_DOCKERFILE=1, or =full for everything"
)
def test_the_steps_make_a_server_that_answers_and_stops() -> None:
    full = ["--full"] if os.environ["DEIXIS_DOCKERFILE"] == "full" else []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(PROJECT / "scripts" / "dockerfile_steps.py"), *full],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "went well" in done.stdout
