"""A segmenter's SAM 2 as three ONNX files: the image encoder, and the mask decoder for boxes and for phrases.

    encoder.onnx          pixels (batch, 3, side, side), RGB, normalised -> fine, middle, coarse
    box_decoder.onnx      fine, middle, coarse of one image; boxes (objects, 4), xyxy in pixels of the square
    phrase_decoder.onnx   the same levels; phrases (objects, channels): what `text_hidden_fcs` makes of each [SEG]

Both decoders give masks (objects, 3, mask side, mask side) as logits, ious (objects, 3), the IoU expected of each, and
object_scores (objects), the logit of whether there is anything. The vision-language model itself stays in PyTorch.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deixis.atomic_files import new_folder
from deixis.errors import ModelError
from deixis.models.onnx.export import DYNAMIC, to_onnx
from deixis.models.onnx.runtimes import loading, quiet, require
from deixis.models.sa2va import Sa2vaBundle
from deixis.models.sa2va.sam import Masks, decode_masks, encode_image
from deixis.models.sa2va.sam_prompts import masks_of_boxes
from deixis.models.sa2va.sam_protocol import Sam

ENCODER, BOXES, PHRASES = "encoder.onnx", "box_decoder.onnx", "phrase_decoder.onnx"
SAM_FILES = (ENCODER, BOXES, PHRASES)
LEVELS, MASKS = ("fine", "middle", "coarse"), ("masks", "ious", "object_scores")


class SamEncoder(nn.Module):
    """Images to SAM 2's feature pyramid."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, pixels: Float[Tensor, "batch 3 side side"]) -> tuple[Tensor, Tensor, Tensor]:
        """The levels, finest first."""
        return encode_image(self.sam, pixels)


class SamDecoder(nn.Module):
    """An image's levels and prompts to masks."""

    def __init__(self, sam: Sam, boxes: bool) -> None:
        super().__init__()
        self.sam, self.boxes = sam, boxes

    def forward(
        self, fine: Tensor, middle: Tensor, coarse: Tensor, prompts: Float[Tensor, "objects numbers"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks, the IoU expected of each, and object scores."""
        # [objects]: all are in the one image
        image_of_object = torch.zeros_like(prompts[:, 0], dtype=torch.int64)
        decode = masks_of_boxes if self.boxes else decode_masks
        found: Masks = decode(self.sam, prompts, (fine, middle, coarse), image_of_object)
        return found.logits, found.ious, found.object_scores


def export_sam(bundle: Sa2vaBundle, folder: str | Path) -> None:
    """Write the three files into a new folder.

    Raises:
        DataError: the folder exists and is not empty.
        ModelError: an extra is missing, or the model cannot be exported.
    """
    onnx = require("onnx")
    require("onnxscript")
    sam: Any = copy.deepcopy(bundle.model.sam)
    sam.eval().requires_grad_(False)
    facts = {"image_side": bundle.sam_px, "image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
    with quiet(), torch.no_grad(), new_folder(Path(folder)) as draft:
        pixels = torch.zeros(2, 3, bundle.sam_px, bundle.sam_px)
        # of one image, whose size is fixed too: only the number of objects varies
        levels = tuple(level[:1] for level in encode_image(sam, pixels))
        written = {ENCODER: to_onnx(SamEncoder(sam), (pixels,), ["pixels"], outputs=LEVELS, dynamic=({0: DYNAMIC},))}
        prompts = {BOXES: ("boxes", torch.rand(2, 4)), PHRASES: ("phrases", torch.rand(2, sam.hidden_dim))}
        for name, (given, example) in prompts.items():
            decoder, inputs = SamDecoder(sam, name == BOXES), (*levels, example)
            dynamic: tuple[dict[int, Any], ...] = ({}, {}, {}, {0: DYNAMIC})
            written[name] = to_onnx(decoder, inputs, [*LEVELS, given], outputs=MASKS, dynamic=dynamic)
        for name, graph in written.items():
            for key, value in facts.items():
                entry = graph.metadata_props.add()
                entry.key, entry.value = f"deixis.{key}", json.dumps(value)
            onnx.save(graph, draft / name)


def compare_sam(bundle: Sa2vaBundle, folder: str | Path, seed: int = 0) -> dict[str, float]:
    """The largest difference of each file's outputs from PyTorch's, relative to the largest value, on noise.

    Raises:
        ModelError: onnxruntime is missing or cannot load a file.
    """
    generator, sam = torch.Generator().manual_seed(seed), bundle.model.sam.eval()
    pixels = torch.randn(2, 3, bundle.sam_px, bundle.sam_px, generator=generator)
    # [objects, corners, xy], sorted over the corners -> [objects, 4], xyxy in pixels
    corners = torch.rand(3, 2, 2, generator=generator).sort(1).values.flatten(1) * bundle.sam_px
    phrases = torch.randn(3, sam.hidden_dim, generator=generator)
    one = torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        levels = encode_image(sam, pixels)
        first = (levels[0][:1], levels[1][:1], levels[2][:1])
        wanted = {
            ENCODER: levels,
            BOXES: masks_of_boxes(sam, corners, first, one)[:3],
            PHRASES: decode_masks(sam, phrases, first, one)[:3],
        }
    seen = dict(zip(LEVELS, first, strict=True))
    given = {ENCODER: {"pixels": pixels}, BOXES: {**seen, "boxes": corners}, PHRASES: {**seen, "phrases": phrases}}
    found = {}
    for name, inputs in given.items():
        outputs = _run(Path(folder) / name, inputs)
        pairs = zip(outputs, wanted[name], strict=True)
        apart = [(mine - theirs).abs().max() / theirs.abs().max() for mine, theirs in pairs]
        found[name] = float(torch.stack(apart).max())  # Python's `max` passes over NaN
    return found


def _run(path: Path, inputs: dict[str, Tensor]) -> Sequence[Tensor]:
    runtime: Any = require("onnxruntime")
    with loading(path, "onnxruntime"):
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    try:
        outputs = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(f"{path}: fails in onnxruntime ({str(error)[:200]})") from error
    return [torch.from_numpy(output) for output in outputs]
