"""The options of `deixis model export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from deixis.options.marks import Removed, WithWordings
from deixis.options.types import Options

DETECTOR = Path("detector.onnx")


@dataclass(frozen=True)
class ModelExportOptions(Options):
    """Export a detector to ONNX or OpenVINO for images of any size, or a segmenter's SAM 2 to ONNX, and compare the
    files with the model."""

    model: str = "builtin"
    """"builtin", a folder, an adapter folder, or a hub id."""
    names: Annotated[tuple[str, ...], WithWordings()] = ()
    """What to look for, as in --names raccoon "traffic light"; the names are built into the file. If not given, those
    that the model was fine-tuned on."""
    any_names: bool = False
    """Make names an input of the file, which then contains the text encoder and the tokenizer."""
    output: Path = DETECTOR
    """File to write, .onnx, or .xml for OpenVINO, which adds a .bin; of a segmenter, a folder. It must not exist."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Numbers of the file. fp16 halves it; int8 stores the weights of matrix products in eight bits (.onnx only)."""
    overwrite: bool = False
    """Replace the file."""
    dry_run: bool = False
    """Read the model and build the prompt, write nothing."""

    REMOVED = MappingProxyType({"check_sizes": Removed((), "files are checked at two sizes made from the image size")})
