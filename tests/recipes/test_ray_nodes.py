"""Two Ray nodes in network namespaces of this machine, one with a small disk that fills; needs root and `ip`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from test_predict_resumes import content
from tiny_runs import write_coco

pytest.importorskip("ray", reason="needs Ray: pip install 'deixis[ray]'")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.slow

ADDRESS = "10.209.77.1:6379"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5e1f" * 16}
LIMIT_S = 600  # a busy machine starts a worker in a minute


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Nodes:
    """A cluster whose second node has its temporary folder on a small disk."""

    names: list[str]
    small: subprocess.Popen[bytes]
    disk: Path

    @property
    def filler(self) -> Path:
        """A file on that disk, which is mounted in the node's namespace alone."""
        return Path(f"/proc/{self.small.pid}/root{self.disk}/filler")

    def fill(self) -> None:
        with self.filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 20))

    def empty(self) -> None:
        self.filler.unlink()

    def start(self, *arguments: str | Path, token: bool = True) -> subprocess.Popen[str]:
        """The command, on the first node."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(TOKEN if token else {})}
        command = ["ip", "netns", "exec", self.names[0], sys.executable, "-m", "deixis", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=environment, text=True, **pipes)

    def run(self, *arguments: str | Path, token: bool = True) -> tuple[int, str]:
        process = self.start(*arguments, token=token)
        _, err = process.communicate(timeout=LIMIT_S)
        return process.returncode, err


@pytest.fixture(scope="module")
def nodes():
    """Both nodes; each process that they started is ended afterwards."""
    if not hasattr(os, "geteuid") or os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and ip, for namespaces")
    names = [f"deixis{os.getpid()}{letter}" for letter in "ab"]
    folder = Path(tempfile.mkdtemp(prefix="dx", dir="/tmp"))  # sockets need a short path
    started = []
    try:
        link = [f"dx{os.getpid()}{letter}" for letter in "ab"]
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", link[0], "netns", names[0], "type", "veth", "peer", "name", link[1], "netns", names[1])
        for number, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.209.77.{number + 1}/24", "dev", link[number])
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", link[number], "up")
            ip("-n", name, "route", "add", "default", "via", f"10.209.77.{2 - number}")
            (folder / name).mkdir()
            started.append(start_ray(name, number, folder / name))
        yield Nodes(names, started[1], folder / names[1])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"namespaces cannot be made here: {error.stderr.decode()}")
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):
                kill_all(name)
                ip("netns", "delete", name)
        shutil.rmtree(folder, ignore_errors=True)


def start_ray(name: str, number: int, folder: Path) -> subprocess.Popen[bytes]:
    """A node, once it runs; Ray by itself waits for 30 s, too short on a busy machine."""
    role = ["--head", "--port=6379", "--include-dashboard=false"] if number == 0 else [f"--address={ADDRESS}"]
    ray = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role),
        *(f"--node-ip-address=10.209.77.{number + 1}", "--num-cpus=1", "--object-store-memory=80000000"),
        f"--temp-dir={folder}",
    ]
    # a mount of its own namespace: `ip netns exec` makes one
    mount = f"mount -t tmpfs -o size=16m tmpfs {folder} && " if number else ""
    command = ["ip", "netns", "exec", name, "sh", "-c", f'{mount}exec "$@"', "sh", *ray]
    environment = {**os.environ, **TOKEN, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    path = folder.parent / f"{number}.log"
    for _ in range(3):
        with path.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_for(lambda started=process: b"Ray runtime started" in path.read_bytes() or started.poll() is not None)
        if process.poll() is None:
            return process
        kill_all(name)
    raise AssertionError(path.read_text())


def wait_for(ready) -> None:
    end = time.monotonic() + LIMIT_S
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.1)


def kill_all(name: str) -> None:
    """Every process of a namespace."""
    found = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True)
    for pid in found.stdout.split():
        with suppress(psutil.Error):
            psutil.Process(int(pid)).kill()


@pytest.fixture(scope="module")
def asked(tiny_model, tmp_path_factory):
    """A command, without its output and engine."""
    photos = write_coco(tmp_path_factory.mktemp("data"), count=24).parent / "images"
    given = ("--model", tiny_model, "--images", photos, "--names", "star", "circle", "--no-pictures")
    return "detect", "predict", *given, "--threshold", "0", "--max-detections", "5", "--batch-size", "2"


@pytest.fixture(scope="module")
def local(asked, nodes, tmp_path_factory):
    """What the local engine writes."""
    output = tmp_path_factory.mktemp("local")
    code, err = nodes.run(*asked, "--device", "cpu", "--output", output)
    assert code == 0, err
    return content(output)


def on_ray(output: Path) -> tuple[str | Path, ...]:
    more = ("--actors", "2", "--shard-rows", "2", "--output", output)
    return "--engine", "ray", "--address", ADDRESS, *more


def same(output: Path, local: dict[str, bytes]) -> bool:
    """Whether all is there, once."""
    rows = pq.read_table(output / "rows").to_pylist()
    assert len(rows) == len({row["picture"] for row in rows}) == 24
    made = {name: held for name, held in content(output).items() if not name.startswith(("rows/", "errors"))}
    return made == local


def errors(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.strip()]


def test_a_disk_that_fills_while_it_works_and_one_that_is_full(asked, nodes, local, tmp_path):
    """First the second node's disk fills after the first shard; then it is full when the run begins."""
    process = nodes.start(*asked, *on_ray(tmp_path / "fills"))
    wait_for(lambda: any((tmp_path / "fills" / "rows").glob("part-*")) or process.poll() is not None)
    nodes.fill()
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert same(tmp_path / "fills", local)
    code, err = nodes.run(*asked, *on_ray(tmp_path / "full"))
    nodes.empty()
    assert code == 0, err
    (line,) = errors(err)
    assert "left out: no worker starts on 10.209.77.2; is the disk" in line
    assert same(tmp_path / "full", local)


def test_a_full_disk_of_the_results(asked, nodes, local, tmp_path):
    """One line; with more space the same command goes on from there."""
    output = tmp_path / "small"
    output.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(output)], check=True)
    try:
        code, err = nodes.run(*asked, *on_ray(output))
        (line,) = errors(err)
        assert code == 2
        assert "cannot be written" in line
        assert "No space left on device); free some space and run the same command again" in line
        kept = len(list((output / "rows").glob("part-*")))
        assert 0 < kept < 12
        subprocess.run(["mount", "-o", "remount,size=16m", str(output)], check=True)
        code, err = nodes.run(*asked, *on_ray(output))
        assert code == 0, err
        assert same(output, local)
    finally:
        subprocess.run(["umount", str(output)], check=True)


def test_a_cluster_that_wants_a_token(asked, nodes, tmp_path):
    code, err = nodes.run(*asked, *on_ray(tmp_path / "out"), token=False)
    assert code == 2
    (line,) = errors(err)
    assert "the Ray cluster at 10.209.77.1:6379 wants its token; set RAY_AUTH_MODE=token" in line


def test_a_node_that_is_killed(asked, nodes, local, tmp_path):
    """Last: there is one node after it."""
    process = nodes.start(*asked, *on_ray(tmp_path))
    wait_for(lambda: any((tmp_path / "rows").glob("part-*")) or process.poll() is not None)
    kill_all(nodes.names[1])
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert same(tmp_path, local)
