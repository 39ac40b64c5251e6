"""What this machine has: hardware, room, and libraries, as lines of `deixis doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
import torch
from packaging.requirements import Requirement

from deixis.text import one_line

Verdict = Literal["", "ok", "note", "FAIL"]

LITTLE_GIB = 2.0
"""Less free memory or disk than this is worth a note: a checkpoint of the smallest released detector takes as much."""
OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
"""Packages that all write the same folder `cv2`."""
COMPILED = ("cv2", "numba", "av", "scipy", "pycocotools.mask", "faster_coco_eval")
"""Modules that can be installed and yet not load, by a library of the system or a version of NumPy."""
SHOWN = ("torch", "transformers", "numba", "opencv-python-headless", "peft", "accelerate", "numpy")
OPTIONAL = {
    "onnx": ("exports to ONNX", "'deixis[onnx]'"),
    "onnxruntime": ("running exported files", "'deixis[onnx]'"),
    "openvino": ("exports to OpenVINO", "'deixis[openvino]'"),
    "pyarrow": ("parquet data sets", "'deixis[parquet]'"),
    "pycocoevalcap": ("METEOR of captions, with Java", "'deixis[captions]'"),
    "pandas": ("results as tables", "pandas"),
    "supervision": ("results for supervision", "supervision"),
    "trackers": ("tracking objects in videos", ""),
    "wandb": ("--log-with wandb", "wandb"),
    "mlflow": ("--log-with mlflow", "mlflow"),
    "triton": ("fast kernels on GPUs", ""),
}
"""What each optional package is for, and what pip installs; nothing where pip alone would not do it rightly."""


class Line(NamedTuple):
    """A line of the page: what was looked at, what was found, and whether it is well."""

    verdict: Verdict
    topic: str
    text: str


def machine(device: torch.device) -> Iterator[Line]:
    """Hardware and system."""
    yield Line("", "system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield Line("", "processor", f"{os.cpu_count()} cores; threads used: {torch.get_num_threads()}")
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        kind = f"compute capability {found.major}.{found.minor}"
        yield Line("", "GPU", f"cuda:{index} {found.name}, {found.total_memory / 2**30:.0f} GiB, {kind}")
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    note = "" if torch.cuda.is_available() else f"; no GPU is visible, PyTorch is {built}"
    yield Line("", "device", f"{device}, which models use{note}")


def room(device: torch.device) -> Iterator[Line]:
    """Free memory and disk."""
    memory = psutil.virtual_memory()
    free_gib, total_gib = memory.available / 2**30, memory.total / 2**30
    yield Line(_enough(free_gib), "memory", f"{free_gib:.1f} of {total_gib:.1f} GiB free")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        yield Line(_enough(free / 2**30), "GPU memory", f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    for place, use in ((Path.cwd(), "the current folder"), (Path(tempfile.gettempdir()), "temporary files")):
        free_gib = shutil.disk_usage(place).free / 2**30
        yield Line(_enough(free_gib), "disk", f"{free_gib:.1f} GiB free for {use}, {place}")


def libraries() -> Iterator[Line]:
    """The packages that deixis needs: whether they are here, new enough, and load."""
    needed = [Requirement(text) for text in requires("deixis") or ()]
    # Requirements of extras are not needed.
    needed = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    found = {each.name: version_of(each.name) for each in needed}
    wrong = [
        f"{each.name} {found[each.name] or 'is missing'}, needed {each.specifier}"
        for each in needed
        if not found[each.name] or not each.specifier.contains(found[each.name], prereleases=True)
    ]
    yield Line("", "deixis", f"{version_of('deixis')}, Python {platform.python_version()}")
    shown = ", ".join(f"{name} {found[name]}" for name in SHOWN if found.get(name))
    yield Line("FAIL" if wrong else "ok", "libraries", "; ".join(wrong) or f"{len(found)} as needed: {shown}")
    yield from _loading()
    yield _opencv()


def optional() -> Iterator[Line]:
    """Packages that some commands use, and what each is for."""
    for name, (use, install) in OPTIONAL.items():
        here = version_of(name)
        remedy = f"; pip install {install}" if install else ""
        yield Line("", "optional", f"{name} {here}: {use}" if here else f"{name} is not installed: {use}{remedy}")


def version_of(name: str) -> str:
    """The version of an installed package; "" without it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _loading() -> Iterator[Line]:
    for name in COMPILED:
        try:
            import_module(name)
        except Exception as error:  # any error of a package's own start
            yield Line("FAIL", "libraries", f"{name} does not load: {type(error).__name__}: {one_line(error, 200)}")


def _opencv() -> Line:
    """Two packages of OpenCV overwrite each other's files; the one with windows needs libraries that servers lack."""
    found = [name for name in OPENCVS if version_of(name)]
    if len(found) > 1:
        again = f"pip uninstall -y {' '.join(found)}; pip install opencv-python-headless"
        return Line("FAIL", "OpenCV", f"{' and '.join(found)} overwrite each other; {again}")
    return Line("ok" if found else "FAIL", "OpenCV", f"{found[0]} alone" if found else "is missing")


def _enough(free_gib: float) -> Verdict:
    return "ok" if free_gib >= LITTLE_GIB else "note"
