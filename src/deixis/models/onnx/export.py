"""Exporting the detector to ONNX, and comparing onnxruntime's outputs with PyTorch's."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deixis.atomic_files import file_aside
from deixis.data.detect.prompts import build_prompt
from deixis.data.detect.wordings import Wordings, worded
from deixis.errors import ModelError
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.models.grounding_dino.sinks import with_sinks
from deixis.models.onnx.graph import ImageGraph, PromptGraph, of_classes
from deixis.records import Prompt
from deixis.text import one_line

OUTPUTS = ("logits", "boxes", "scores")
TOLERANCE = 1e-3


class Difference(NamedTuple):
    """The difference between onnxruntime and PyTorch on a noise image.

    Attributes:
        size_hw: of the image.
        logits, boxes, scores: largest absolute differences.
    """

    size_hw: tuple[int, int]
    logits: float
    boxes: float
    scores: float


def export_onnx(
    bundle: GroundingDinoBundle, names: Sequence[str], path: str | Path, *, wordings: Wordings | None = None
) -> Prompt:
    """Write the detector for a fixed list of names as one ONNX file. The file is written completely, then renamed.

    Input `pixel_values` (1, 3, height, width): one image, resized, RGB, normalised; any size with at least as many
    cells as the model has queries. Outputs `logits` (1, queries, tokens), `boxes` (1, queries, 4), cxcywh over the
    image's size, and `scores` (1, queries, names), the mean of the sigmoids of a name's tokens; of a class with several
    wordings, the highest of theirs. Attention sinks are built in, without columns of their own. The file's metadata
    holds the names, the caption, the image size, mean and std.

    Returns:
        The prompt that is built into the file; its names are the wordings.

    Raises:
        PromptError: the names cannot be made into a prompt.
        ModelError: the onnx extra is missing, the model has unmerged adapters or another backbone than Swin, or the
            file cannot be written.
    """
    path, onnx = Path(path), _require("onnx")
    _require("onnxscript")
    compose = _require("onnx.compose")
    if any(".lora_" in name for name, _ in bundle.model.named_parameters()):
        raise ModelError(f"{path}: the model has adapters; merge them before exporting it")
    asked, rows = worded(names, wordings or {}, bundle.prompt_tokenizer)
    sinks = 0 if bundle.sinks is None else len(bundle.sinks)
    prompt = build_prompt(asked, bundle.prompt_tokenizer, bundle.model.max_text_len - sinks)
    image, text = graphs(bundle, prompt, rows)
    levels = [f"level_{index}" for index in range(bundle.model.config.num_feature_levels)]
    with _quiet(), torch.no_grad():
        first = _to_onnx(image, (_example_image(bundle),), ["pixel_values"], outputs=levels)
        second = _to_onnx(text, (_example_levels(bundle),), levels, outputs=OUTPUTS)
    second = compose.add_prefix(second, "prompt/", rename_inputs=False, rename_outputs=False)
    whole = compose.merge_models(first, second, [(level, level) for level in levels])
    _name_sizes(whole)
    for key, value in _facts(bundle, names, prompt).items():
        entry = whole.metadata_props.add()
        entry.key, entry.value = key, value
    try:
        with file_aside(path) as draft:
            onnx.save(whole, draft)
    except (OSError, ValueError) as error:  # ValueError: more than 2 GiB, the limit of one file
        raise ModelError(f"{path}: cannot be written ({error}); choose another place or a smaller model") from error
    return prompt


def graphs(bundle: GroundingDinoBundle, prompt: Prompt, rows: Sequence[int] = ()) -> tuple[ImageGraph, PromptGraph]:
    """The exported modules: from an image to its levels, and from those to logits, boxes and scores.

    Args:
        rows: the class of each name of the prompt; each its own if not given.
    """
    input_ids = torch.tensor([prompt.input_ids])
    class_tokens = torch.from_numpy(prompt.positive_map)[:, : input_ids.shape[1]].to(torch.float32)
    return ImageGraph(bundle.model), PromptGraph(bundle.model, input_ids, class_tokens, rows=rows, sinks=bundle.sinks)


def compare_onnx(
    path: str | Path,
    bundle: GroundingDinoBundle,
    prompt: Prompt,
    *,
    sizes_hw: Sequence[tuple[int, int]],
    seed: int = 0,
    rows: Sequence[int] = (),
) -> list[Difference]:
    """Compare the file in onnxruntime with the detector itself, on noise images.

    Args:
        rows: the class of each name of the prompt; each its own if not given.

    Raises:
        ModelError: onnxruntime is missing or cannot load the file.
    """
    runtime = _require("onnxruntime")
    try:
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        raise ModelError(f"{path}: onnxruntime cannot load it ({one_line(error, 200)})") from error
    generator = torch.Generator().manual_seed(seed)
    found = []
    for height, width in sizes_hw:
        pixels = torch.randn(1, 3, height, width, generator=generator)
        theirs = session.run(list(OUTPUTS), {"pixel_values": pixels.numpy()})
        logits, boxes, scores = _reference(bundle, prompt, pixels)
        ours = logits, boxes, of_classes(scores, rows)
        gaps = [float((a - torch.from_numpy(b)).abs().max()) for a, b in zip(ours, theirs, strict=True)]
        found.append(Difference((height, width), *gaps))
    return found


def _reference(bundle: GroundingDinoBundle, prompt: Prompt, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The detector's own outputs, from the code that users run."""
    model = bundle.model.eval()
    input_ids = torch.tensor([prompt.input_ids])
    tokens = input_ids.shape[1]
    pixel_mask = torch.ones(1, *pixels.shape[-2:], dtype=torch.bool)
    with torch.no_grad():
        context = with_sinks(model.encode_text(input_ids, torch.ones_like(input_ids, dtype=torch.bool)), bundle.sinks)
        out = model.ground(model.encode_image(pixels, pixel_mask), context)
    logits = out["pred_logits"][..., :tokens]
    class_tokens = torch.from_numpy(prompt.positive_map)[:, :tokens].to(logits)
    return logits, out["pred_boxes"], logits.sigmoid() @ class_tokens.T


def _to_onnx(graph: torch.nn.Module, inputs: tuple[Any, ...], names: Sequence[str], *, outputs: Sequence[str]) -> Any:
    # axes 2 and 3 are height and width, which stay variable
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    dynamic = tuple([sides] * len(each) if isinstance(each, list) else sides for each in inputs)
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


def _example_image(bundle: GroundingDinoBundle) -> Tensor:
    """An image so large and odd that every stage has several windows and needs padding."""
    backbone = bundle.model.config.backbone_config
    side = backbone.window_size * backbone.patch_size * 2 ** (len(backbone.depths) - 1)
    return torch.zeros(1, 3, side + side // 2 + 5, side + side // 4 + 3)


def _example_levels(bundle: GroundingDinoBundle) -> list[Tensor]:
    """Levels of unrelated sizes, so that the exporter infers no relation, with enough cells for all queries."""
    config = bundle.model.config
    count = config.num_feature_levels
    first = max(20, config.num_queries // 20 + 1)
    return [torch.zeros(1, config.d_model, first - 2 * i, 31 + 5 * count - 5 * i) for i in range(count)]


def _name_sizes(model: Any) -> None:
    """Readable names for the two variable sides."""
    sides = model.graph.input[0].type.tensor_type.shape.dim
    renamed = {sides[2].dim_param: "height", sides[3].dim_param: "width"}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in renamed:
                side.dim_param = renamed[side.dim_param]


def _facts(bundle: GroundingDinoBundle, names: Sequence[str], prompt: Prompt) -> dict[str, str]:
    facts = {
        "names": list(names),
        "caption": prompt.caption,
        "image_size": bundle.image_size,
        "image_mean": bundle.mean,
        "image_std": bundle.std,
        "boxes": "cxcywh over the image's width and height",
    }
    return {f"deixis.{name}": json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """A block without the exporter's log messages and warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _require(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ModelError(f"{package} is not installed; pip install 'deixis[onnx]'") from error
