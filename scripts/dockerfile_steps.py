"""Do what the Dockerfile does without Docker: its steps in a folder for its root and a virtual environment for its
Python, then its server, its health check, a question and a stop.

    python scripts/dockerfile_steps.py          with the packages that this Python has: installs deixis alone
    python scripts/dockerfile_steps.py --full   installs everything that the image gets

What Docker adds (the base image's system, another user) is not tried.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
import venv
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[1]
_TOKEN = "sesame"
_START_S = 600


@dataclass(frozen=True)
class Step:
    """An instruction of a Dockerfile."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Those of the JSON form, or those between spaces."""
        return json.loads(self.text) if self.text.startswith("[") else self.text.split()


def steps_of(text: str) -> list[Step]:
    """The instructions of a Dockerfile, with continued lines joined and without comments."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", lines)
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [Step(name.upper(), rest.strip()) for name, _, rest in pairs]


@dataclass
class Image:
    """What the steps have made so far.

    Attributes:
        root: the folder that stands for `/`.
        bin: of the Python that stands for the image's.
    """

    root: Path
    bin: Path
    folder: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: str = ""

    def place(self, path: str) -> Path:
        """Where a path of the image is."""
        return self.root / str(Path(self.folder) / path).lstrip("/")

    def environment(self) -> dict[str, str]:
        """Of its processes: this machine's settings of pip, and its own."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "OMP_"))}
        own = {name: str(self.place(value)) if value.startswith("/") else value for name, value in self.env.items()}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return {"HOME": str(self.root), **kept, **own, "PATH": path, "LANG": "C.UTF-8"}

    def do(self, step: Step) -> None:
        """Carry one step out."""
        if step.name in ("ENV", "ARG"):
            for name, value in re.findall(r'(\w+)=("[^"]*"|\S*)', step.text):
                self.env.setdefault(name, os.environ.get(name, value.strip('"')) if step.name == "ARG" else value)
        elif step.name == "WORKDIR":
            self.folder = step.text
            self.place(".").mkdir(parents=True, exist_ok=True)
        elif step.name == "COPY":
            *sources, target = step.words
            for source in sources:
                _copy(PROJECT / source, self.place(target) / ("" if len(sources) == 1 else source))
        elif step.name == "RUN":
            subprocess.run(["sh", "-ec", step.text], cwd=self.place("."), env=self.environment(), check=True)
        elif step.name == "HEALTHCHECK":
            self.health = step.text.partition("CMD ")[2]
        elif step.name == "ENTRYPOINT":
            self.entrypoint = step.words
        elif step.name == "CMD":
            self.command = step.words
        elif step.name not in ("FROM", "USER", "EXPOSE"):
            raise ValueError(f"Dockerfile: no way to do {step.name} here; teach scripts/dockerfile_steps.py")

    def started(self, port: int) -> subprocess.Popen[str]:
        """Its process, on another port."""
        words = [*self.entrypoint, *self.command]
        words = [str(self.place(word)) if word.startswith("/") else word for word in words]
        words[words.index("--port") + 1] = str(port)
        environment = {**self.environment(), "DEIXIS_TOKEN": _TOKEN}
        return subprocess.Popen(words, cwd=self.place("."), env=environment, stderr=subprocess.PIPE, text=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def build(root: Path, full: bool) -> Image:
    """All steps, in a folder."""
    python = root / "venv"
    venv.create(python, with_pip=True)
    if not full:  # what is installed here counts as installed there
        (site,) = python.glob("lib/python*/site-packages")
        (site / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    image = Image(root / "image", python / "bin")
    image.place(".").mkdir(parents=True)
    for step in steps_of((PROJECT / "Dockerfile").read_text()):
        print(step.name, step.text, flush=True)
        image.do(step)
    return image


def serve(image: Image, port: int) -> None:
    """Start the image's server, wait for its health, ask it something, and stop it.

    Raises:
        SystemExit: one of these does not go well.
    """
    process = image.started(port)
    try:
        check = image.health.replace(":8000/", f":{port}/")
        until = time.monotonic() + _START_S
        while subprocess.run(["sh", "-c", check], env=image.environment(), capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > until:
                process.kill()  # else there is no end to what it may say
                raise SystemExit(f"the server does not start: {process.stderr.read() if process.stderr else ''}")
            time.sleep(0.2)
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": f"Bearer {_TOKEN}"}
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            print(answer.read().decode())
        process.send_signal(signal.SIGTERM)
        code = process.wait(120)
        errors = process.stderr.read() if process.stderr else ""
        if code not in (0, -signal.SIGTERM, 128 + signal.SIGTERM) or "Traceback" in errors:
            raise SystemExit(f"the server ends with {code}: {errors}")
    finally:
        process.kill()


def main() -> None:
    """Do the steps and try the server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="install everything that the image gets")
    parser.add_argument("--port", type=int, default=8765, help="port of the server (default 8765)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deixis-image-") as root:
        serve(build(Path(root), given.full), given.port)
    print("the Dockerfile's steps, server, health check and stop went well")


if __name__ == "__main__":
    sys.exit(main())
