"""An ONNX graph with smaller numbers: half precision, or weights of eight bits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from deixis.models.onnx.runtimes import quiet, require

FLOAT32_OPERATORS = ("GridSample", "TopK", "Range", "CumSum", "Resize", "Sigmoid", "Log", "Sin", "Cos", "Pow", "Clip")
"""Stay in float32 in a file of half precision: places in the image, and what is near 0 or 1."""


def in_precision(graph: Any, precision: str) -> Any:
    """The graph with weights and arithmetic of fp32, fp16 or int8; inputs and outputs stay float32.

    int8 is ONNX Runtime's dynamic quantisation: weights of matrix products are stored in eight bits, one scale per
    column, and activations are quantised as they come. No pictures are needed for it.

    Raises:
        ModelError: an extra is missing.
    """
    if precision == "fp16":
        float16 = require("onnxruntime.transformers.float16")
        blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *FLOAT32_OPERATORS]
        return float16.convert_float_to_float16(graph, keep_io_types=True, op_block_list=blocked)
    return _eight_bits(graph) if precision == "int8" else graph


def _eight_bits(graph: Any) -> Any:
    onnx, runtime, tools = require("onnx"), require("onnxruntime"), require("onnxruntime.quantization")
    with quiet(), tempfile.TemporaryDirectory() as folder:
        plain, folded, small = (str(Path(folder) / name) for name in ("plain.onnx", "folded.onnx", "small.onnx"))
        onnx.save(graph, plain)
        # constants folded first: only weights that are constants can be quantised, and the exporter transposes them
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = folded
        runtime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
        tools.quantize_dynamic(folded, small, op_types_to_quantize=["MatMul"], per_channel=True)
        return onnx.load(small)
