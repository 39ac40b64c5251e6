"""The library `trackers` in miniature: ByteTrack's two rounds of matching by overlap, without a motion model.

As there, ids count from 0, a track has none in its first frame, and rows come back in another order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import supervision

from deixis.geometry.pixel_boxes import overlaps


@dataclass
class _Track:
    box: np.ndarray
    number: int = -1
    missed: int = 0


class ByteTrackTracker:
    """Takes the arguments that deixis gives."""

    def __init__(
        self,
        *,
        lost_track_buffer: int,
        frame_rate: float,
        track_activation_threshold: float,
        high_conf_det_threshold: float,
    ) -> None:
        self.patience = lost_track_buffer * frame_rate / 30
        self.new, self.high = track_activation_threshold, high_conf_det_threshold
        self.tracks: list[_Track] = []
        self.count = 0

    def update(self, detections: supervision.Detections) -> supervision.Detections:
        certain = detections.confidence >= self.high
        ids = np.full(len(detections), -1)
        free = list(self.tracks)
        for row in [*np.flatnonzero(certain), *np.flatnonzero(~certain)]:
            box = detections.xyxy[row]
            shares = [overlaps(box, track.box[None])[0][0] for track in free]
            if shares and max(shares) >= 0.1:
                track = free.pop(int(np.argmax(shares)))
                if track.number < 0:
                    track.number, self.count = self.count, self.count + 1
                track.box, track.missed, ids[row] = box, -1, track.number
            elif certain[row] and detections.confidence[row] >= self.new:
                self.tracks.append(_Track(box, missed=-1))
        for track in self.tracks:
            track.missed += 1
        self.tracks = [t for t in self.tracks if t.missed <= (self.patience if t.number >= 0 else 0)]
        order = np.argsort(~certain, kind="stable")[::-1]
        result = detections[order]
        result.tracker_id = ids[order]
        return result
