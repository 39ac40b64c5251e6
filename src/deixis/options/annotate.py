"""The options of `deixis annotate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from deixis.options.checks import A_DETECTOR, A_SEGMENTER, require, require_model
from deixis.options.marks import RARE, Also, AtLeast1, NotBlank, Range, Removed, Share, WithWordings
from deixis.options.old_names import knows_old_names
from deixis.options.used_models import MAX_SINKS, Engine, require_images_or_stream


@knows_old_names
@dataclass(frozen=True)
class AnnotateOptions(Engine):
    """Annotate photographs: boxes, masks, captions, and whether each caption finds its mask again."""

    images: tuple[Path, ...] = ()
    """Images, videos, or folders of them; with --engine ray also lists, parquet files, WebDataset tars and addresses
    such as s3://bucket/photos/, and no videos."""
    stream: str = ""
    """Address of a video in place of --images: rtsp://10.0.0.7/gate, http://.../film.mp4, or camera:0. It ends where
    the stream ends, with Ctrl-C, or after --max-frames; the same command again adds frames."""
    max_frames: Annotated[AtLeast1 | None, RARE] = None
    """Frames of --stream to annotate; all if not given."""
    names: Annotated[tuple[str, ...], NotBlank(), WithWordings()] = ()
    """What to look for, as in --names "red car" dog; with several wordings of a class, "car=car,sedan". Without names,
    objects are what SAM 2 finds under a grid of points, and captions name them."""
    detector: str = ""
    """"builtin", a detector's folder, or a hub id; required with --names."""
    segmenter: str = ""
    """"builtin", a segmenter's folder (a run's teachers/ or checkpoints/best, or the released layout), or a hub id."""
    output: Path = Path("annotated")
    """Folder for coco.json, expressions.json, gallery.html and annotations.jsonl; of videos for videos/, mot/ and
    frames/. The same command resumes an interrupted one, and annotates images that were added since."""
    frame_step: AtLeast1 = 1
    """Of a video, annotate every Nth frame; frames are written as images below --output."""
    track: bool = False
    """Give the objects of a video ids that stay through its frames. Needs the library trackers."""
    threshold: Share | None = None
    """Minimum score of a detection. If not given, what was chosen on validation data, which deixis.json has, or 0.3."""
    nms: Annotated[float | None, Range(0, 1, open_low=True)] = None
    """Of boxes of one class with this IoU or more, keep the best."""
    nms_across_classes: bool = False
    """Boxes of different classes suppress each other too, from --nms or an IoU of 0.7 on."""
    sinks: Annotated[int | None, Range(0, MAX_SINKS)] = None
    """The detector's attention sinks, as in detect predict; those of its folder if not given."""
    min_fit: Annotated[Share, Also("least_fit")] = 0.3
    """Minimum IoU of the box around an object's mask with the detector's box."""
    points: AtLeast1 = 16
    """Without --names: points per side of the grid."""
    min_predicted_iou: Annotated[Share, Also("least_predicted_iou"), RARE] = 0.8
    """Without --names: minimum IoU that SAM 2 predicts for a mask."""
    max_overlap: Annotated[Share, Also("most_overlap"), RARE] = 0.7
    """Without --names: of two masks with this IoU or more, the worse one is left out."""
    max_objects: AtLeast1 = 50
    """Maximum number of objects per image."""
    cycle_threshold: Share = 0.5
    """Minimum cycle IoU of a caption in expressions.json; coco.json has all. Another value only filters again."""
    max_new_tokens: AtLeast1 = 40
    """Maximum number of tokens per caption."""
    batch_size: AtLeast1 = 8
    """Masks or captions per batch."""
    max_tiles: AtLeast1 = 12
    """Maximum number of tiles in which the vision-language model sees an image."""
    REMOVED = MappingProxyType({"gallery_images": Removed(100, "gallery.html has the first 100 images")})

    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        require_images_or_stream(self.images, self.stream, self.max_frames)
        super().check()
        require(self.max_overlap > 0, "max_overlap", self.max_overlap, "a number above 0")
        require_model(self.segmenter, A_SEGMENTER, "--segmenter")
        if self.names:
            require_model(self.detector, A_DETECTOR, "--detector")
