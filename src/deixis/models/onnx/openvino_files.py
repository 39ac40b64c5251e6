"""OpenVINO's two files, NAME.xml and NAME.bin, from an ONNX graph."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deixis.errors import ModelError
from deixis.models.onnx.facts import OPENVINO_KEY, START
from deixis.models.onnx.runtimes import loading, require, require_openvino


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
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        plain, draft = Path(folder) / "plain.onnx", Path(folder) / path.name
        require("onnx").save(graph, plain)
        with loading(path, "OpenVINO"):
            model = openvino.Core().read_model(str(plain))
            for key, value in facts.items():
                model.set_rt_info(value, [OPENVINO_KEY, key.removeprefix(START)])
            openvino.save_model(model, str(draft), compress_to_fp16=precision == "fp16")
        shutil.move(draft.with_suffix(".bin"), path.with_suffix(".bin"))
        shutil.move(draft, path)
