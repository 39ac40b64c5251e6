"""The options of `deixis model bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.options.checks import require
from deixis.options.marks import AtLeast1, Required
from deixis.options.types import Options

Format = Literal["deixis", "deixis-bf16", "transformers", "onnx", "onnx-int8", "openvino"]


@dataclass(frozen=True)
class ModelBenchOptions(Options):
    """Measure how long a detector takes per image on this machine, by format: deixis, transformers, ONNX, OpenVINO."""

    model: Annotated[str, Required("runs/raccoons")] = "builtin"
    """"builtin", a folder, an adapter folder, or a hub id."""
    names: tuple[str, ...] = ("person", "traffic light", "dog", "cat", "car")
    """What to look for; more names take longer."""
    size: tuple[int, int] = (480, 640)
    """Height and width of the image in pixels, as the model sees it."""
    formats: tuple[Format, ...] = ("deixis", "transformers", "onnx", "onnx-int8", "openvino")
    """What to measure; what is not installed is left out with a line. Exports are written to a temporary folder."""
    files: tuple[Path, ...] = ()
    """Exported files of the same model, measured beside them."""
    repeats: AtLeast1 = 5
    """Timed runs of each, taken in turns."""
    device: str | None = None
    """cpu, cuda or cuda:1, for deixis and transformers; a GPU, if there is one, when not given."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        require(min(self.size) >= 32, "size", self.size, "a height and a width of 32 pixels or more")
        require(bool(self.formats or self.files), "formats", self.formats, "at least one format, or --files")
        require(bool(self.names), "names", self.names, "at least one name")
