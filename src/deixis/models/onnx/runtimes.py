"""Running an exported file: ONNX Runtime for `.onnx`, OpenVINO for `.xml`."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deixis.errors import ModelError
from deixis.models.onnx.facts import FACTS, OPENVINO_KEY, START
from deixis.text import one_line

ONNX, OPENVINO = ".onnx", ".xml"
EXPORTS = (ONNX, OPENVINO)
"""File name endings of exports."""
OUTPUTS = ("logits", "boxes", "scores")


class OpenedExport(NamedTuple):
    """A file that is ready to run.

    Attributes:
        texts: its metadata.
        inputs: names of its inputs.
        run: from arrays by input to logits, boxes and scores, in float32.
    """

    texts: dict[str, str]
    inputs: tuple[str, ...]
    run: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def is_export(source: object) -> bool:
    """Whether a model's name is that of an exported file."""
    return Path(str(source)).suffix.lower() in EXPORTS


def open_export(path: str | Path, device: str = "cpu", *, only_texts: bool = False) -> OpenedExport:
    """Load an exported file.

    Args:
        device: cuda runs a `.onnx` file on the GPU where ONNX Runtime has one; otherwise the CPU does.
        only_texts: load as little as its metadata needs.

    Raises:
        ModelError: it does not exist, the runtime is not installed, or it cannot be loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; deixis model export writes one")
    opened = _open_onnx if path.suffix.lower() == ONNX else _open_openvino
    return opened(path, device, only_texts)


def require(name: str, extra: str = "onnx") -> Any:
    """A module of an extra.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ModelError(f"{package} is not installed; pip install 'deixis[{extra}]'") from error


def require_openvino() -> Any:
    """OpenVINO, without its telemetry, which would send an event from the import.

    Raises:
        ModelError: it is not installed.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    telemetry = "openvino_telemetry"
    known = telemetry in sys.modules
    sys.modules.setdefault(telemetry, None)  # type: ignore[arg-type]  # "not importable": it then uses an empty one
    try:
        return require("openvino", "openvino")
    finally:
        if not known:
            del sys.modules[telemetry]


@contextmanager
def loading(path: Path, runtime: str) -> Iterator[None]:
    """A block in which a runtime reads a file; its errors have no common base."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: {runtime} cannot load it ({one_line(error, 200)})") from error


@contextmanager
def quiet() -> Iterator[None]:
    """A block without the messages and warnings of exporters and converters."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _open_onnx(path: Path, device: str, only_texts: bool) -> OpenedExport:
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    if only_texts:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda") and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    with loading(path, "onnxruntime"):
        session = runtime.InferenceSession(str(path), options, providers=providers)
        inputs = {each.name: each.type for each in session.get_inputs()}
        texts = dict(session.get_modelmeta().custom_metadata_map)
    half = {name for name, kind in inputs.items() if "float16" in kind}

    def run(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        given = {name: array.astype(np.float16) if name in half else array for name, array in arrays.items()}
        return [output.astype(np.float32) for output in session.run(list(OUTPUTS), given)]

    return OpenedExport(texts, tuple(inputs), run)


def _open_openvino(path: Path, device: str, only_texts: bool) -> OpenedExport:
    openvino = require_openvino()
    with loading(path, "OpenVINO"):
        core = openvino.Core()
        model = core.read_model(str(path))
        texts = {}
        for name in FACTS:
            place = [OPENVINO_KEY, name]
            if model.has_rt_info(place):
                texts[START + name] = str(model.get_rt_info(place).value)
        inputs = tuple(each.any_name for each in model.inputs)
        # fp32 unless the weights say otherwise: on some processors OpenVINO would choose bf16
        compiled = None if only_texts else core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        assert compiled is not None
        found = compiled(dict(arrays))
        return [np.array(found[name], np.float32) for name in OUTPUTS]

    return OpenedExport(texts, inputs, run)


def write_openvino(graph: Any, path: Path, facts: Mapping[str, str], *, precision: str) -> None:
    """Write the two files, the small one last.

    Args:
        precision: fp32, or fp16, in which weights are stored; int8 is read from an ONNX graph that holds it.

    Raises:
        ModelError: OpenVINO is not installed or cannot read the graph.
        OSError: the files cannot be written.
    """
    openvino = require_openvino()
    if precision == "int8":
        raise ModelError(f"{path}: OpenVINO files are written in fp32 or fp16; write int8 as .onnx")
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that moving is renaming
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        plain, draft = Path(folder) / "plain.onnx", Path(folder) / path.name
        require("onnx").save(graph, plain)
        with loading(path, "OpenVINO"):
            model = openvino.Core().read_model(str(plain))
            for key, value in facts.items():
                model.set_rt_info(value, [OPENVINO_KEY, key.removeprefix(START)])
            openvino.save_model(model, str(draft), compress_to_fp16=precision == "fp16")
        # weights first: a visible .xml has its .bin
        shutil.move(draft.with_suffix(".bin"), path.with_suffix(".bin"))
        shutil.move(draft, path)
