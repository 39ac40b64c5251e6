"""Exporting the detector to ONNX and OpenVINO."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from packaging.version import Version
from torch import Tensor

from deixis.atomic_files import file_aside
from deixis.batch_records import Prompt
from deixis.data.detect.prompts import build_prompt
from deixis.data.detect.wordings import Wordings, worded
from deixis.errors import ModelError
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.models.onnx.facts import facts_of, prompt_len
from deixis.models.onnx.graph import AnyNames, FixedNames, ImageGraph
from deixis.models.onnx.runtimes import OPENVINO, OUTPUTS, quiet, require, write_openvino
from deixis.text import one_line

Precision = Literal["fp32", "fp16", "int8"]
SIDES = {
    "pixel_values": ("batch", "3", "height", "width"),
    "input_ids": ("1", "tokens"),
    "class_tokens": ("names", "tokens"),
}
"""Inputs and their sides; numbers are fixed."""
DYNAMIC = torch.export.Dim.DYNAMIC


def export_detector(
    bundle: GroundingDinoBundle,
    names: Sequence[str],
    path: str | Path,
    *,
    wordings: Wordings | None = None,
    any_names: bool = False,
    precision: Precision = "fp32",
) -> Prompt:
    """Write the detector as one file: ONNX, or OpenVINO's two files where the path ends in `.xml`.

    Input `pixel_values` (batch, 3, height, width): images of one size, resized, RGB, normalised; any size with at least
    as many cells as the model has queries. With `any_names` also `input_ids` (1, tokens), the prompt from [CLS] to
    [SEP], and `class_tokens` (names, tokens), the weight of each token in each name. Outputs `logits` (batch, queries,
    tokens), `boxes` (batch, queries, 4), cxcywh over the image's size, and `scores` (batch, queries, names), the mean
    of the sigmoids of a name's tokens; of a class with several wordings that are built in, the highest.
    Attention sinks are built in, without columns of their own. The file's metadata holds what else is needed
    (`deixis.models.onnx.facts`).

    Args:
        any_names: names are an input, and the text encoder is part of the file; without it names are built in.

    Returns:
        The prompt that is built in, whose names are the wordings; or an example.

    Raises:
        PromptError: the names cannot be made into a prompt.
        ModelError: an extra is missing, the model has unmerged adapters or another backbone than Swin, or the file
            cannot be written.
    """
    path = Path(path)
    asked, rows = worded(names, wordings or {}, bundle.prompt_tokenizer)
    prompt = build_prompt(asked, bundle.prompt_tokenizer, prompt_len(bundle))
    if any(".lora_" in name for name, _ in bundle.model.named_parameters()):
        raise ModelError(f"{path}: the model has adapters; merge them before exporting it")
    require_half(path, precision)
    whole = whole_graph(bundle, prompt, () if any_names else rows, any_names=any_names)
    facts = facts_of(bundle, () if any_names else names, prompt, precision=precision)
    write_export(whole, path, facts, precision=precision)
    return prompt


def write_export(graph: Any, path: Path, facts: Mapping[str, str], *, precision: str) -> None:
    """Write an ONNX graph of fp32 in a precision, with its facts, as ONNX or OpenVINO.

    Raises:
        ModelError: an extra is missing, or the file cannot be written.
    """
    try:
        if path.suffix.lower() == OPENVINO:
            write_openvino(graph, path, facts, precision=precision)
            return
        graph = in_precision(graph, precision)
        # the exporter's own entries, such as its version
        del graph.metadata_props[:]
        for key, value in facts.items():
            entry = graph.metadata_props.add()
            entry.key, entry.value = key, value
        with file_aside(path) as draft:
            require("onnx").save(graph, draft)
    except (OSError, ValueError) as error:  # ValueError: more than 2 GiB, the limit of one file
        raise ModelError(f"{path}: cannot be written ({error}); choose another place or a smaller model") from error


def graphs(
    bundle: GroundingDinoBundle, prompt: Prompt | None, rows: Sequence[int] = ()
) -> tuple[ImageGraph, FixedNames | AnyNames]:
    """The exported modules: from images to their levels, and from those to logits, boxes and scores.

    Args:
        prompt: is built in; without it names are an input.
        rows: the class of each name of the prompt; each its own if not given.
    """
    if prompt is None:
        return ImageGraph(bundle.model), AnyNames(bundle.model, bundle.sinks)
    input_ids = torch.tensor([prompt.input_ids])
    class_tokens = torch.from_numpy(prompt.positive_map)[:, : input_ids.shape[1]].to(torch.float32)
    return ImageGraph(bundle.model), FixedNames(bundle.model, input_ids, class_tokens, rows=rows, sinks=bundle.sinks)


def whole_graph(bundle: GroundingDinoBundle, prompt: Prompt, rows: Sequence[int], *, any_names: bool) -> Any:
    """The ONNX graph of `export_detector`, in fp32 and without facts: both parts, joined at the levels."""
    require("onnx")
    require("onnxscript")
    compose = require("onnx.compose")
    image, text = graphs(bundle, None if any_names else prompt, rows)
    levels = [f"level_{index}" for index in range(bundle.model.config.num_feature_levels)]
    # axes 2 and 3 are height and width
    free = {0: DYNAMIC, 2: DYNAMIC, 3: DYNAMIC}
    example: tuple[Any, ...] = (_example_levels(bundle),)
    dynamic: tuple[Any, ...] = ([free] * len(levels),)
    names = list(levels)
    if any_names:
        twice = torch.from_numpy(prompt.positive_map).repeat(2, 1)  # of one name the exporter makes a fixed side
        example += (torch.tensor([prompt.input_ids]), twice)
        dynamic += ({1: DYNAMIC}, {0: DYNAMIC, 1: DYNAMIC})  # tokens; names and tokens
        names += ["input_ids", "class_tokens"]
    with quiet(), torch.no_grad():
        first = to_onnx(image, (_example_images(bundle),), ["pixel_values"], outputs=levels, dynamic=(free,))
        second = to_onnx(text, example, names, outputs=OUTPUTS, dynamic=dynamic)
    # both parts number their nodes in the same way, and merged names must differ
    second = compose.add_prefix(second, "prompt/", rename_inputs=False, rename_outputs=False)
    whole = compose.merge_models(first, second, [(level, level) for level in levels])
    del whole.opset_import[1:]  # each part brought its own, the same, and quantisation wants one
    _name_sides(whole)
    return whole


def to_onnx(
    graph: torch.nn.Module, inputs: tuple[Any, ...], names: Sequence[str], *, outputs: Sequence[str], dynamic: Any
) -> Any:
    """A module as an ONNX graph.

    Args:
        dynamic: which axes of each input are variable, as `torch.export.export` takes them.

    Raises:
        ModelError: it cannot be exported.
    """
    try:
        program = torch.export.export(graph, inputs, dynamic_shapes=dynamic, strict=False)
        # Not optimised here, which takes longer than everything else: runtimes optimise for their own device.
        written = torch.onnx.export(
            program, (), dynamo=True, input_names=names, output_names=outputs, verbose=False, optimize=False
        )
    except Exception as error:  # the exporter's errors have no common base
        raise ModelError(f"the model cannot be exported ({one_line(error, 300)})") from error
    assert written is not None
    return written.model_proto


def _example_images(bundle: GroundingDinoBundle) -> Tensor:
    """Two images (one would be a constant), so large and odd that every stage has several windows and needs padding."""
    backbone = bundle.model.config.backbone_config
    side = backbone.window_size * backbone.patch_size * 2 ** (len(backbone.depths) - 1)
    return torch.zeros(2, 3, side + side // 2 + 5, side + side // 4 + 3)


def _example_levels(bundle: GroundingDinoBundle) -> list[Tensor]:
    """Levels of unrelated sizes, so that the exporter infers no relation, with enough cells for all queries."""
    config = bundle.model.config
    count = config.num_feature_levels
    first = max(20, config.num_queries // 20 + 1)
    return [torch.zeros(2, config.d_model, first - 2 * i, 31 + 5 * count - 5 * i) for i in range(count)]


def _name_sides(model: Any) -> None:
    """Readable names for the variable sides."""
    renamed: dict[str, str] = {}
    for given in model.graph.input:
        sides = given.type.tensor_type.shape.dim
        renamed |= {side.dim_param: name for side, name in zip(sides, SIDES[given.name], strict=True) if side.dim_param}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in renamed:
                side.dim_param = renamed[side.dim_param]


FLOAT32_OPERATORS = ("GridSample", "TopK", "Range", "CumSum", "Resize", "Sigmoid", "Log", "Sin", "Cos", "Pow", "Clip")
"""Stay in float32 in a file of half precision: places in the image, and what is near 0 or 1."""


HALF_SINCE = "1.31"
"""Before this version onnxruntime cannot load what its own conversion to half precision makes of our graphs."""


def require_half(path: Path, precision: str) -> None:
    """Raises ModelError where an ONNX file of this precision could not be loaded; called before the long work."""
    if precision != "fp16" or path.suffix.lower() == OPENVINO:
        return
    installed = require("onnxruntime").__version__
    if Version(installed) < Version(HALF_SINCE):
        raise ModelError(
            f"fp16 needs onnxruntime {HALF_SINCE}, {installed} is installed; pip install -U onnxruntime, or export .xml"
        )


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
        # creating the session writes the folded graph
        runtime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
        tools.quantize_dynamic(folded, small, op_types_to_quantize=["MatMul"], per_channel=True)
        return onnx.load(small)
