"""The options of `deixis model export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.checks import require
from deixis.options.marks import WithWordings
from deixis.options.types import Options


@dataclass(frozen=True)
class ModelExportOptions(Options):
    """Export a detector to ONNX for fixed names and images of any size, and check it in onnxruntime."""

    model: str = "builtin"
    """"builtin", a folder, an adapter folder, or a hub id."""
    names: Annotated[tuple[str, ...], WithWordings()] = ()
    """What to look for, as in --names raccoon "traffic light"; the names are built into the file. If not given, those
    that the model was fine-tuned on."""
    output: Path = Path("detector.onnx")
    """File to write; it must not exist."""
    check_sizes: tuple[tuple[int, int], ...] = ()
    """Heights and widths in pixels of two or more images to check with; two made from the image size if not given."""
    overwrite: bool = False
    """Replace the file."""
    dry_run: bool = False
    """Read the model and build the prompt, write nothing."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        fine = all(side >= 32 for size in self.check_sizes for side in size)
        require(fine, "check_sizes", self.check_sizes, "heights and widths of 32 pixels or more")
