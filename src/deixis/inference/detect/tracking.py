"""Objects followed through a video: detections of its frames get ids, by a tracker of the library `trackers`.

>>> from deixis import load_detector
>>> detector = load_detector("builtin")  # doctest: +SKIP
>>> for found in detector.track("street.mp4", ["car"]):  # doctest: +SKIP
...     print(found.image_id, found.track_ids)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from deixis.errors import OptionError
from deixis.results.detections import Detections

INSTALL = 'pip install "supervision>=0.31" && pip install --no-deps trackers'
"""With --no-deps: trackers requires opencv-python, which overwrites the files of opencv-python-headless."""
LOST_FRAMES_AT_30 = 30
"""A track is kept for one second without a detection; `trackers` counts it in frames of 30 per second."""
_CERTAIN = 0.5  # scores from here on may start a track; `tracked` maps each class's threshold to it
_ROW = "deixis_row"  # a column that tells which detection is which, as a tracker may leave some out


@runtime_checkable
class ObjectTracker(Protocol):
    """A tracker of `trackers`, or one that is called like it."""

    def update(self, detections: Any, /) -> Any:
        """Takes the `supervision.Detections` of the next frame; returns them, or a part, with `tracker_id`."""
        ...


def byte_tracker(rate: float) -> ObjectTracker:
    """ByteTrack (arXiv 2110.06864) for `tracked`.

    Args:
        rate: frames per second.

    Raises:
        OptionError: `trackers` is not installed.
    """
    try:
        from trackers import ByteTrackTracker
    except ImportError as error:
        raise OptionError(f"tracking needs trackers ({error}): {INSTALL}") from error
    tracker: ObjectTracker = ByteTrackTracker(
        lost_track_buffer=LOST_FRAMES_AT_30,
        frame_rate=float(rate),
        track_activation_threshold=_CERTAIN,
        high_conf_det_threshold=_CERTAIN,
    )
    return tracker


def tracked(
    frames: Iterable[Detections], thresholds: float | Sequence[float], tracker: ObjectTracker, *, relative: bool = True
) -> Iterator[Detections]:
    """Each frame's detections with `track_ids`, which count from 1 and are -1 until a track is confirmed.

    An object keeps its class: boxes of two classes are never one track. A detection below its threshold, down to half
    of it, stays only where it continues a track.

    Args:
        frames: of one video, in order; one is held at a time.
        thresholds: minimum score, one or by class.
        relative: give the tracker scores as shares of twice their threshold, so that 0.5 means certain for each class.
    """
    numbers: dict[int, int] = {}  # the tracker's own id of each track, to ours
    for found in frames:
        # [n]: that of each detection's class
        least = np.broadcast_to(np.asarray(thresholds, np.float64), len(found.names))[found.class_ids]
        # ByteTrack matches in two rounds: certain detections first, and what is left of the tracks with uncertain ones.
        offered = found[found.scores >= least / 2]
        least = least[found.scores >= least / 2]
        # [offered]; with a threshold of 0, by which nothing can be divided, all are certain
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(least > 0, _CERTAIN * offered.scores / least, 1.0).clip(max=1.0)
        ids = _ids(offered, shares if relative else offered.scores, tracker)
        for new in sorted(set(ids.tolist()) - {-1, *numbers}):
            numbers[new] = len(numbers) + 1
        own = np.array([numbers.get(one, -1) for one in ids.tolist()], np.int64)
        yield replace(offered, track_ids=own)[(offered.scores >= least) | (own > 0)]


def _ids(found: Detections, scores: Float[np.ndarray, " n"], tracker: ObjectTracker) -> Int[np.ndarray, " n"]:
    """The tracker's own id of each detection, -1 where it has none."""
    import supervision

    # Classes are set apart, as in NMS by class: the tracker itself knows none.
    apart = 4.0 * (1 + max(*found.size_hw, float(found.boxes_xyxy_px.max(initial=0))))
    boxes = found.boxes_xyxy_px + apart * found.class_ids[:, None]
    given = supervision.Detections(
        xyxy=boxes.reshape(-1, 4),
        confidence=np.asarray(scores, np.float64),
        class_id=found.class_ids,
        data={_ROW: np.arange(len(found))},
    )
    result = tracker.update(given)
    ids = np.full(len(found), -1, np.int64)
    if len(result) and result.tracker_id is not None:
        ids[np.asarray(result.data[_ROW], np.int64)] = result.tracker_id
    return ids
