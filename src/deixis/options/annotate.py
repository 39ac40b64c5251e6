"""Every option of `deixis annotate`: its flag, its help and its check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deixis.options.checks import A_DETECTOR, A_SEGMENTER, at_least, require, require_model
from deixis.options.types import Options


@dataclass(frozen=True)
class AnnotateOptions(Options):
    """Annotate photographs: boxes, masks, captions, and whether each caption finds its mask again."""

    images: tuple[Path, ...] = ()
    """Pictures, or folders of them."""
    names: tuple[str, ...] = ()
    """What to look for, as in --names "red car" dog. Without any, things are what SAM 2 finds under a grid of points,
    and captions name them."""
    detector: str = ""
    """"builtin", a detector's folder, or a hub id; not used without --names."""
    segmenter: str = ""
    """"builtin", a segmenter's folder (a run's teachers/ or checkpoints/best, or the released layout), or a hub id."""
    output: Path = Path("annotated")
    """Folder for coco.json, expressions.json, gallery.html and annotations.jsonl. A command that was interrupted goes
    on where it stopped; pictures that were added are done, too."""
    threshold: float = 0.3
    """Lowest score of a detection that is kept."""
    least_fit: float = 0.3
    """Least IoU of a mask's own box with the detector's, for the object to be kept."""
    points: int = 16
    """Without names: points on a side of the grid."""
    least_predicted_iou: float = 0.8
    """Without names: least IoU that SAM 2 expects of a mask that is kept."""
    most_overlap: float = 0.7
    """Without names: IoU from which on the worse of two masks is a copy and left out."""
    max_objects: int = 50
    """Most objects in one picture."""
    cycle_threshold: float = 0.5
    """Least cycle IoU of a caption that stands in expressions.json; coco.json has all. Another one costs no new run."""
    max_new_tokens: int = 40
    """Longest caption, in tokens."""
    batch_size: int = 8
    """Regions, or captions to look for, a batch."""
    max_tiles: int = 12
    """Most tiles in which the vision-language model sees an image."""
    gallery_images: int = 100
    """Most pictures on the page; 0 writes no page."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU if there is one, when not given."""

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        require(bool(self.images), "images", self.images, "pictures or folders, as in --images photos/")
        require(all(name.strip() for name in self.names), "names", self.names, "names that are not blank")
        for name in ("threshold", "least_fit", "least_predicted_iou", "cycle_threshold"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number from 0 to 1")
        require(0 < self.most_overlap <= 1, "most_overlap", self.most_overlap, "a number above 0, at most 1")
        for name in ("points", "max_objects", "max_new_tokens", "batch_size", "max_tiles"):
            at_least(self, name, 1)
        at_least(self, "gallery_images", 0)
        require_model(self.segmenter, A_SEGMENTER, "--segmenter")
        if self.names:
            require_model(self.detector, A_DETECTOR, "--detector")
