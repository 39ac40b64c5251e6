"""J and F of tracked phrases on annotated clips, beside those of the same phrases segmented frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

from deixis.errors import DataError
from deixis.evaluation.video_jf import VideoJF, VideoMetrics
from deixis.inference.refer.segmenter import Progress, Segmenter
from deixis.inference.refer.tracker import Tracker
from deixis.records import Rle
from deixis.refer_records import Segmentation
from deixis.video_records import Clip, ClipDataset, ClipExpression

MEMORY, FRAME_BY_FRAME = "memory", "frame_by_frame"


def evaluate_tracks(
    tracker: Tracker,
    dataset: ClipDataset,
    frame_by_frame: bool = False,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> dict[str, VideoMetrics]:
    """Metrics under `memory` and, on request, under `frame_by_frame`; every sentence counts separately.

    Clips without a sentence are skipped. Frames are read one by one up to the last labelled one, and only the masks of
    labelled frames of one clip are kept.

    Args:
        frame_by_frame: also segment every phrase in every labelled frame with the same segmenter, without memory.
        limit: only the first `limit` clips.
        progress: called with the number of clips done and the total.

    Raises:
        DataError: a clip cannot be read or has no labels, or no clip has a sentence.
    """
    segmenter = _segmenter_of(tracker) if frame_by_frame else None
    sums = {way: VideoJF() for way in ((MEMORY, FRAME_BY_FRAME) if frame_by_frame else (MEMORY,))}
    count = len(dataset) if limit is None else min(limit, len(dataset))
    asked_anything = False
    for index in range(count):
        clip = dataset[index]
        asked = [(expression, text) for expression in clip.expressions for text in expression.texts]
        if asked:
            asked_anything = True
            _add_clip(sums, clip, asked, tracker=tracker, segmenter=segmenter)
        if progress is not None:
            progress(index + 1, count)
    if not asked_anything:
        raise DataError(
            f"{dataset.name}: {count} clips without a phrase, so there is nothing to measure; use other data"
        )
    return {way: added.result() for way, added in sums.items()}


def _segmenter_of(tracker: Tracker) -> Segmenter:
    """The tracker's segmenter with the tracker's settings."""
    finder = tracker.finder
    return Segmenter(
        tracker.bundle, tracker.device, finder.max_tiles, threshold=tracker.threshold, generate=finder.generate
    )


def _add_clip(
    sums: dict[str, VideoJF],
    clip: Clip,
    asked: list[tuple[ClipExpression, str]],
    *,
    tracker: Tracker,
    segmenter: Segmenter | None,
) -> None:
    """One pass over the clip for all phrases, with and without memory."""
    if not clip.labelled:
        raise DataError(f"{clip.source}: has no labelled frames to measure on")
    texts = list(dict.fromkeys(text for _, text in asked))  # expressions may share a sentence, which is tracked once
    labelled = set(clip.labelled)
    # masks[way][sentence][frame], of labelled frames only
    masks: dict[str, dict[str, dict[int, Rle]]] = {way: {text: {} for text in texts} for way in sums}
    for frame, (pixels, records) in enumerate(tracker.follow(clip.frames, texts)):
        if frame in labelled:
            found: dict[str, Sequence[Segmentation]] = {MEMORY: records}
            if segmenter is not None:
                (found[FRAME_BY_FRAME],) = segmenter.segment([pixels], texts, tracker.finder.batch_size)
            for way, answers in found.items():
                for answer in answers:
                    masks[way][answer.text][frame] = answer.mask_rle
        if frame == clip.labelled[-1]:  # labels ascend, and what follows the last is not measured
            break
    for way, added in sums.items():
        for expression, text in asked:
            added.add(clip, expression, text, predicted=masks[way][text])
