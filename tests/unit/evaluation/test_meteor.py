"""METEOR through a process: what is asked, what is answered, and every way in which the process can fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deixis.evaluation import meteor as module
from deixis.evaluation.meteor import MISSING, corpus_meteor

ODD = [
    "a red|||star", "two\nlines", "", "   ", "SCORE ||| a ||| b", "EVAL ||| 1.0", "\x00\x1b[31m", "\ud800 lone",
    "\u2028 line\u2029 ends \x85 \x0b", "…!?", "|||", "ein Straßenschild 他 \U0001f600", "x" * 5000, "the " * 2000,
]  # fmt: skip

ECHO = """
import sys
for line in sys.stdin:
    parts = [part.strip() for part in line.rstrip("\\n").split("|||")]
    if parts[0] == "SCORE":
        assert len(parts) >= 3, parts
        same = parts[-1] in parts[1:-1] and parts[-1] != ""
        print(f"{float(same)} 1.0")
    else:
        stats = [float(part.split()[0]) for part in parts[1:]]
        for value in [*stats, sum(stats) / len(stats)]:
            print(value)
    sys.stdout.flush()
"""


@pytest.fixture
def java(tmp_path, monkeypatch):
    """A function that puts a Python program in the place of Java and its jar."""

    def install(program: str) -> None:
        path = tmp_path / "java"
        path.write_text(f"#!{sys.executable}\n{program}")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(module, "_meteor_jar", lambda: Path("meteor-1.5.jar"))
        monkeypatch.setattr(module, "_nltk_scorer", lambda: None)

    return install


def test_groups_are_scored_from_the_statistics_of_their_captions(java) -> None:
    java(ECHO)
    found = corpus_meteor(["A star.", "dog", "cat"], [["a star", "x"], ["dog"], ["y", "z"]], [[0, 1, 2], [2], [0, 1]])
    assert found.name == "METEOR"
    assert found.values == pytest.approx((2 / 3, 0, 1))


def test_one_process_serves_all_and_is_started_again_where_it_ended(java, monkeypatch) -> None:
    java(ECHO)
    started = []
    popen = module.subprocess.Popen
    monkeypatch.setattr(module.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    for _ in range(2):
        assert corpus_meteor(["a star"], [["a star"]], [[0]]).values == (1.0,)
    assert len(started) == 1
    started[0].kill()
    started[0].wait()
    assert corpus_meteor(["a star"], [["a star"]], [[0]]).values == (1.0,)
    assert len(started) == 2


def test_no_caption_breaks_the_protocol(java) -> None:
    java(ECHO)
    references = [[text, "another"] for text in ODD]
    found = corpus_meteor(ODD, references, [[i] for i in range(len(ODD))])
    assert found.reason == ""
    blank = {"", "   ", "…!?", "|||"}
    wanted = [0.0 if text in blank else 1.0 for text in ODD]
    assert list(found.values) == wanted


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", "it ended early"),
        ("import sys; sys.exit(3)", "it ended early"),
        (
            "import sys\nfor line in sys.stdin: print('Error: [red]no[/]', flush=True)",
            "it answered 'Error: [red]no[/]'",
        ),
        ("import sys\nsys.stdin.readline(); print('1.0', flush=True); print('2.0', flush=True)", "it ended early"),
        ("import sys\nsys.stdin.buffer.readline(); sys.stdout.buffer.write(b'\\xff\\n')", "it answered"),
        ("import time; time.sleep(60)", "no answer in 0 s"),
    ],
)
def test_a_process_that_fails_leaves_meteor_out(java, monkeypatch, program: str, reason: str) -> None:
    """One line says why, other figures are unharmed and no process stays behind."""
    java(program)
    started = []
    popen = module.subprocess.Popen
    monkeypatch.setattr(module.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    if "sleep" in program:
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    found = corpus_meteor(["a star", "b"], [["a star"], ["b"]], [[0, 1]])
    assert (found.name, found.values) == ("", ())
    assert found.reason.startswith("METEOR is not measured: meteor-1.5.jar failed")
    assert reason in found.reason
    assert "\n" not in found.reason
    assert [process.returncode is not None for process in started] == [True]
    assert all(process.stdin.closed and process.stdout.closed for process in started)


def test_an_interruption_ends_the_process_too(java, monkeypatch) -> None:
    java(ECHO)
    started = []
    popen = module.subprocess.Popen
    monkeypatch.setattr(module.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module._Java, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        corpus_meteor(["a"], [["a"]], [[0]])
    assert started[0].returncode is not None


def test_without_java_it_is_nltks_and_called_so(monkeypatch) -> None:
    monkeypatch.setattr(module, "_meteor_jar", lambda: None)
    monkeypatch.setattr(module, "_nltk_scorer", lambda: lambda references, said: len(said) / len(references[0]))
    found = corpus_meteor(["a star", "b", ""], [["a red star", "x"], ["b"], ["c"]], [[0, 1, 2], [0]])
    assert found.name == "NLTK METEOR"
    assert found.values == pytest.approx(((2 / 3 + 1 + 0) / 3, 2 / 3))
    monkeypatch.setattr(module, "_nltk_scorer", lambda: None)
    assert corpus_meteor(["a"], [["a"]], [[0]]) == module.Meteor("", (), MISSING)


def test_a_package_without_its_jar_is_none(monkeypatch, tmp_path) -> None:
    (tmp_path / "pycocoevalcap").mkdir()
    (tmp_path / "pycocoevalcap/__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/java")
    sys.modules.pop("pycocoevalcap", None)
    assert module._meteor_jar() is None
