"""The options of `deixis detect predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.marks import RARE, AtLeast1, Share, WithWordings
from deixis.options.used_models import Engine, UsedDetector, require_images_or_stream


@dataclass(frozen=True)
class DetectPredictOptions(UsedDetector, Engine):
    """Find named things in images and videos; write drawn images and videos, JSON and COCO results."""

    images: tuple[Path, ...] = ()
    """Images, videos, or folders of them; with --engine ray also lists, parquet files, WebDataset tars and addresses
    such as s3://bucket/photos/, and no videos."""
    stream: str = ""
    """Address of a video in place of --images: rtsp://10.0.0.7/gate, http://.../film.mp4, or camera:0. It ends where
    the stream ends, with Ctrl-C, or after --max-frames."""
    max_frames: Annotated[AtLeast1 | None, RARE] = None
    """Frames to take of --stream; all if not given."""
    names: Annotated[tuple[str, ...], WithWordings()] = ()
    """What to look for, as in --names raccoon "traffic light"; any number. The names that the model was fine-tuned on,
    if not given. With several wordings of a class: "car=car,automobile,sedan"."""
    names_file: Path | None = None
    """Text file with more names to look for, one per line, with wordings where wanted."""
    names_data: str = ""
    """Annotations, in any format, whose class names are looked for too."""
    output: Path = Path("predictions")
    """Folder for pictures/, predictions.json and coco_results.json; of videos for videos/ and mot/."""
    track: bool = False
    """Follow each object through the frames of a video: ids in the drawn video, the JSON lines and the MOT files. A
    folder of images is then a video. Needs the library trackers."""
    threshold: Share | None = None
    """Minimum score of a detection. If not given, what was chosen on validation data, which deixis.json has, or 0.3."""
    max_detections: AtLeast1 = 100
    """Maximum number of detections per image."""
    pictures: bool = True
    """Draw the detections on the images."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        require_images_or_stream(self.images, self.stream, self.max_frames)
        super().check()
