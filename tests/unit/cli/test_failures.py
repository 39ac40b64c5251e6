"""Failures of the machine end a command with one line and exit code 2; faults of ours keep their traceback."""

from __future__ import annotations

import errno
import os
import signal

import pytest
import torch

from deixis.cli import main as cli
from deixis.cli.failures import system_failure
from deixis.errors import Terminated

TRAIN = ["detect", "train", "--data", "x"]


def chained(error: Exception) -> Exception:
    """An error that another one was raised from, as libraries do."""
    outer = ValueError("cannot build the batch")
    outer.__cause__ = error
    return outer


NO_MEMORY = {
    "Python": MemoryError(),
    "torch on a CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:125] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)\nframe #0: ..."
    ),
    "torch on Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 40 bytes."),
    "CUDA": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
    "NumPy": MemoryError("Unable to allocate 3.00 TiB for an array with shape (1000, 1000)"),
    "fork": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "C++": RuntimeError("std::bad_alloc"),
    "chained": chained(MemoryError()),
}


@pytest.mark.parametrize("name", NO_MEMORY)
def test_out_of_memory_names_what_helps_in_order(name: str) -> None:
    text = system_failure(NO_MEMORY[name], TRAIN)
    assert text is not None
    assert text.startswith("out of memory")
    assert "\n" not in text
    helps = ["--batch-size", "--gradient-accumulation-steps", "--gradient-checkpointing", "--image-size", "bf16"]
    positions = [text.index(word) for word in helps]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["refer", "train"], "--max-tiles"),
        (["refer", "train"], "--num-workers"),
        (["detect", "train"], "--num-workers"),
        (["detect", "predict"], "--batch-size"),
        (["annotate"], "smaller images"),
        ([], "smaller images"),
    ],
)
def test_each_command_is_told_its_own_options(words: list[str], option: str) -> None:
    text = system_failure(MemoryError(), words)
    assert text is not None
    assert option in text


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(code: int) -> None:
    text = system_failure(OSError(code, os.strerror(code), "/data/x.png"), TRAIN)
    assert text is not None
    assert text.startswith("/data/x.png: the disk is full")
    assert text.endswith("--resume")


@pytest.mark.parametrize(
    "words",
    [
        ["data", "check", "--data", 5000 * "x"],
        ["detect", "train", "--model", "builtin", "--data", 300 * "x"],
        ["detect", "predict", "--model", "builtin", "--names", "a", "--images", 5000 * "x"],
        ["detect", "train", "--config", 5000 * "x"],
    ],
)
def test_a_path_that_is_too_long_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    err = capsys.readouterr().err
    assert (stopped.value.code, err.count("\n")) == (2, 1)
    assert "too long" in err.lower()


def test_a_lost_worker() -> None:
    text = system_failure(RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly"), TRAIN)
    assert text is not None
    assert "--num-workers" in text


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), KeyError("x"), OSError(errno.EACCES, "no")])
def test_other_errors_are_faults_of_ours(error: Exception) -> None:
    assert system_failure(error, TRAIN) is None


def ending(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> tuple[int, str]:
    def fail(_: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "run", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main(TRAIN)
    return int(caught.value.code or 0), capsys.readouterr().err


def test_the_command_ends_with_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = ending(monkeypatch, capsys, MemoryError())
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("deixis: error: out of memory")


def test_an_interrupt_that_an_import_turns_into_its_own_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As numpy and torch do: the KeyboardInterrupt ends as an ImportError or a RuntimeError of theirs."""

    def load(_: list[str]) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy.core.multiarray failed to import") from None
        return 0

    monkeypatch.setattr(cli, "run", load)
    # A shell's background process ignores SIGINT; here it is as in the foreground.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as caught:
            cli.main(TRAIN)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "deixis: interrupted\n"


def test_without_an_interrupt_the_same_error_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ImportError):
        ending(monkeypatch, capsys, ImportError("numpy.core.multiarray failed to import"))


def test_a_worker_missed_while_a_stopped_run_ends_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = RuntimeError("DataLoader worker (pid 12) is killed by signal: Terminated.")
    lost.__context__ = Terminated()
    code, err = ending(monkeypatch, capsys, lost)
    assert code == 143
    assert "stopped by SIGTERM after saving" in err
    lost.__context__ = None
    assert ending(monkeypatch, capsys, lost)[0] == 2
