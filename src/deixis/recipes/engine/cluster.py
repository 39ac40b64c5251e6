"""A Ray cluster: reached within a time limit, and whatever fails there in one line."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.version import Version

from deixis.errors import DataError, OptionError, TrainingError
from deixis.text import one_line

LOWEST = "2.60"
ANSWER_S = 10.0
_OBJECT_STORE_BYTES = 256 << 20  # of a Ray that starts here: shards and answers are small
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # HTTP/2, with empty settings
_SETTINGS = 4
AGAIN = "run the same command again: finished shards are kept"


class WorkersDiedError(TrainingError):
    """Workers, or their node, died more often than Ray tries again by itself."""


def require_ray() -> Any:
    """The library.

    Raises:
        OptionError: it is missing or too old.
    """
    install = "install it with: pip install 'deixis[ray]'"
    try:
        found = version("ray")
    except PackageNotFoundError as error:
        raise OptionError(f"--engine ray needs Ray {LOWEST} or later; {install}") from error
    if Version(found) < Version(LOWEST):
        raise OptionError(f"--engine ray needs Ray {LOWEST} or later, found {found}; {install}")
    # of what Ray's C++ prints on the user's terminal; read when it is loaded
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise OptionError(f"--engine ray: Ray {found} cannot be imported ({one_line(error)}); {install}") from error
    return ray


def require_cluster(address: str | None) -> None:
    """Raises OptionError where Ray is missing or too old, or nothing answers at the address: before models are read."""
    ray = require_ray()
    address = _known(address)
    # "auto" and "local" are no addresses that could be asked.
    if not ray.is_initialized() and address not in (None, "local", "auto"):
        require_answer(str(address))


def _known(address: str | None) -> str | None:
    return address or os.environ.get("RAY_ADDRESS") or None


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The library, connected; a Ray that this process is connected to already is used and left running.

    Raises:
        OptionError: Ray is missing or too old, or nothing answers at the address within seconds.
    """
    ray = require_ray()
    if ray.is_initialized():
        yield ray
        return
    require_cluster(address)
    address = _known(address)
    here = (
        {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES} if address in (None, "local") else {}
    )
    said: list[str] = []
    try:
        with _stderr_into(said):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:  # Ray raises bare exceptions where it cannot start
        if "AuthToken" in "".join(said) or type(error).__name__ == "AuthenticationError":
            raise OptionError(
                f"--address: the Ray cluster at {address} wants its token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
                "(or RAY_AUTH_TOKEN_PATH) as on its head node"
            ) from error
        what = f"--address: {address} cannot be used" if address else "--engine ray: Ray cannot start here"
        raise OptionError(f"{what} ({one_line(error)[:300]}); see Ray's logs") from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _stderr_into(said: list[str]) -> Iterator[None]:
    """Keeps from the terminal what Ray's C++ writes while it connects, a line each second, and adds it to `said`."""
    with tempfile.TemporaryFile() as file:
        terminal = os.dup(2)
        # The descriptor itself: C++ does not write through `sys.stderr`.
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))


def require_answer(address: str, limit_s: float = ANSWER_S) -> None:
    """Raises OptionError unless a gRPC server answers: Ray by itself retries for two minutes, then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise OptionError(f"--address: expected HOST:PORT or auto, got {address!r}")
    advice = "is the head node running, and is its port 6379 open to this machine?"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=limit_s) as connection:
            connection.settimeout(limit_s)
            connection.sendall(_HELLO)
            first = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise OptionError(f"--address: no Ray cluster answers at {address} ({one_line(error)}); {advice}") from error
    # Of a frame's nine bytes the fourth is its type; an HTTP/2 server begins with its settings.
    if len(first) < 4 or first[3] != _SETTINGS:
        raise OptionError(f"--address: what answers at {address} is no Ray cluster; {advice}")


@contextmanager
def ray_failures() -> Iterator[None]:
    """Whatever ends a computation on a cluster, as one line.

    Raises:
        DataError: a disk or the memory of a node is full.
        WorkersDiedError: again and again.
        TrainingError: anything else of Ray's.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("ray."):
            raise
        raise failure(error) from error


def failure(error: BaseException) -> Exception:
    """What an exception of Ray's means."""
    causes, cause = [], error
    while cause is not None and cause not in causes:
        causes.append(cause)
        # Ray's errors carry the worker's as `cause`.
        cause = getattr(cause, "cause", None) or cause.__cause__  # type: ignore[assignment]
    text = " ".join(f"{type(one).__name__} {one}" for one in causes)
    line = one_line(next(one for one in reversed(causes) if str(one) or one is error))[:200]
    if "OutOfDiskError" in text or "No space left" in text:
        return DataError(f"--engine ray: the disk of a node is full ({line}); free some space there and {AGAIN}")
    if "OutOfMemoryError" in text or "out of memory" in text.lower():
        return DataError(f"--engine ray: a node ran out of memory ({line}); use fewer --actors and {AGAIN}")
    if "Died" in text or "Unavailable" in text:
        return WorkersDiedError(
            f"--engine ray: workers died again and again ({line}); is a disk or the memory of a node full? See Ray's "
            f"logs, and {AGAIN}"
        )
    return TrainingError(f"--engine ray: {line}; {AGAIN}")
